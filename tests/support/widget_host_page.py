"""A page that hosts a widget without Jupyter."""

from __future__ import annotations

# A model with the methods of the specification, whose changes are told to those who asked for them by name.
HOST = """async ({ script, traits }) => {
  const url = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
  const found = (await import(url)).default;
  const widget = typeof found === 'function' ? await found() : found;
  const heard = new Map();
  const model = {
    get: name => traits[name],
    set: (name, value) => { traits[name] = value; for (const one of heard.get('change:' + name) ?? []) one(); },
    save_changes: () => { window.saved = structuredClone(traits.selected); },
    on: (name, one) => { heard.set(name, [...(heard.get(name) ?? []), one]); },
    off: (name, one) => { heard.set(name, (heard.get(name) ?? []).filter(other => other !== one)); },
    send: content => { (window.sent ??= []).push(content); },
  };
  const signal = new AbortController().signal;
  const experimental = {};
  const cleanups = [await widget.initialize?.({ model, signal, experimental })];
  const el = document.body.appendChild(document.createElement('div'));
  el.id = 'widget';
  cleanups.push(await widget.render({ model, el, signal, experimental }));
  window.model = model;
  window.leave = () => { cleanups.forEach(one => one?.()); return [...heard.values()].flat().length; };
}"""
