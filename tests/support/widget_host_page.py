"""A web page that hosts a widget without Jupyter."""

from __future__ import annotations

# The model has the methods of the anywidget specification, and notifies the listeners of each trait.
HOST = """async ({ script, traits }) => {
  const url = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
  const exported = (await import(url)).default;
  const widget = typeof exported === 'function' ? await exported() : exported;
  const listeners = new Map();
  const model = {
    get: name => traits[name],
    set: (name, value) => {
      traits[name] = value;
      for (const listener of listeners.get('change:' + name) ?? []) listener();
    },
    save_changes: () => { window.saved = structuredClone(traits.selected); },
    on: (name, listener) => { listeners.set(name, [...(listeners.get(name) ?? []), listener]); },
    off: (name, listener) => {
      listeners.set(name, (listeners.get(name) ?? []).filter(other => other !== listener));
    },
    send: content => { (window.sent ??= []).push(content); },
  };
  const signal = new AbortController().signal;
  const experimental = {};
  const cleanups = [await widget.initialize?.({ model, signal, experimental })];
  const el = document.body.appendChild(document.createElement('div'));
  el.id = 'widget';
  cleanups.push(await widget.render({ model, el, signal, experimental }));
  window.model = model;
  window.leave = () => { cleanups.forEach(cleanup => cleanup?.()); return [...listeners.values()].flat().length; };
}"""
