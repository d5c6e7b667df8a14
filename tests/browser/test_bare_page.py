"""The widgets' modules on a bare page: they need what anywidget's specification promises (AFM), and nothing of Jupyter.

So they run in VS Code, Colab and marimo too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grids
import pytest
from headnb.display.frontend import bundle
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

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
EXPLORER = {
    "selected": [],
    "focused": "",
    "task": "sums",
    "method": "activation",
    "samples": 32,
    "choices": {"model": "m", "tasks": ["sums"], "methods": {"activation": "the paper's"}},
    "status": {"state": "idle", "line": "", "done": 0, "total": 0, "error": "", "note": ""},
    "head": {},
    "attention": {},
    "ablation": {},
}


def hosted(page: Page, name: str, traits: dict[str, Any]) -> None:
    page.evaluate(HOST, {"script": bundle(name).read_text(encoding="utf-8"), "traits": traits})
    expect(page.locator("#widget .stage")).to_be_visible()


def test_the_grid_selects_and_listens(page: Page) -> None:
    hosted(page, "widget.js", {"payload": grids.grid().payload, "selected": ["L3H5"]})
    names = page.locator("#widget .selection .names")
    expect(names).to_have_text("L3H5")
    page.locator("#widget .top button").first.click()
    assert page.evaluate("window.saved") == [names.inner_text()]
    page.evaluate("window.model.set('selected', ['L1H2', 'L0H1'])")
    expect(names).to_have_text("L0H1,L1H2")
    assert page.evaluate("window.leave()") == 0
    expect(page.locator("#widget .stage")).to_have_count(0)


def test_the_explorer_commands_and_stops_when_its_last_view_leaves(page: Page) -> None:
    hosted(page, "explorer.js", EXPLORER | {"payload": grids.grid().payload})
    page.get_by_role("button", name="Run").click()
    page.evaluate("window.model.set('status', {...window.model.get('status'), error: 'out of <b>memory</b>'})")
    expect(page.get_by_role("alert").first).to_have_text("out of <b>memory</b>")
    assert page.evaluate("window.leave()") == 0
    assert page.evaluate("window.sent") == [{"do": "run"}, {"do": "stop"}]


@pytest.mark.parametrize("colour", ["#111111", "#eeeeee"])
def test_ink_is_the_pages_own_colour_without_any_hosts_variables(page: Page, colour: str) -> None:
    page.evaluate("colour => { document.body.style.color = colour; }", colour)
    hosted(page, "widget.js", {"payload": grids.grid().payload, "selected": []})
    found = page.locator("#widget .title").evaluate("title => getComputedStyle(title).color")
    value = int(colour[1:3], 16)
    assert found == f"rgb({value}, {value}, {value})"
