"""Head grids made by a stranger, in an untrusted notebook in JupyterLab, as files, as pages and in a widget.

No script runs, no request leaves the page, nothing opens or navigates, the page stays responsive, and what cannot be
drawn is one readable line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from headnb.display.frontend import bundle
from headnb.display.grid import HeadGrid
from headnb.display.payload import MIME_TYPE
from nbformat.v4 import new_code_cell, new_notebook, new_output
from playwright.sync_api import expect

import grids
import hostile_payloads
from jupyter_pages import Jupyter, no_kernel
from widget_host_page import HOST

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator, Page

OUTPUTS_PER_CELL = 25
LONGEST_LINE = 400
STATE = """() => ({
    ran: [window.ran, ({}).ran, [].ran, Object.prototype.polluted].filter((found) => found !== undefined),
    alive: 6 * 7,
})"""


@dataclass
class Watched:
    """A page and what a hostile payload would cause on it."""

    page: Page
    home: str = "about:"
    caused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        page = self.page
        page.on("dialog", lambda dialog: (self.caused.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self._address("request", request.url))
        page.on("framenavigated", lambda frame: self._address("navigation", frame.url))
        page.on("popup", lambda popup: self.caused.append(f"popup {popup.url}"))
        page.on("pageerror", lambda error: self.caused.append(f"error {error}"))

    def _address(self, kind: str, url: str) -> None:
        if not url.startswith((self.home, "about:", "data:", "blob:")):
            self.caused.append(f"{kind} {url}")

    def check(self) -> None:
        """Nothing happened, and the page answers."""
        self.page.wait_for_timeout(200)
        assert self.page.evaluate(STATE) == {"ran": [], "alive": 42}
        assert self.caused == []


def check_drawn_or_named(cards: Locator) -> dict[str, int]:
    """Each card has a picture or one readable line; returns how many of each."""
    found = cards.evaluate_all(
        """hosts => hosts.map((host) => {
            const root = host.shadowRoot ?? host;
            const alert = root.querySelector('[role=alert]');
            const shown = alert && !alert.hidden;
            const canvas = root.querySelector('.stage canvas');
            return { line: shown ? alert.textContent : null, canvas: !!canvas && !canvas.closest('[hidden]') };
        })"""
    )
    lines = [one["line"] for one in found if one["line"] is not None]
    assert all(one["canvas"] for one in found if one["line"] is None)
    for line in lines:
        assert line
        assert line.isprintable(), line
        assert len(line) <= LONGEST_LINE
    return {"named": len(lines), "drawn": len(found) - len(lines)}


def notebook_of(payloads: list[Any]) -> Any:
    """A notebook with several outputs per cell."""
    outputs = [new_output("display_data", data={MIME_TYPE: payload}) for payload in payloads]
    groups = [outputs[start : start + OUTPUTS_PER_CELL] for start in range(0, len(outputs), OUTPUTS_PER_CELL)]
    return new_notebook(cells=[new_code_cell("x", outputs=group, execution_count=1) for group in groups])


def saved_widget(notebook: Any) -> Any:
    """The notebook with a saved widget whose module is a stranger's script."""
    script = "window.ran = 'a saved widget'; export default { render() { window.ran = 'a saved widget'; } };"
    base = {"_model_module": "anywidget", "_model_module_version": "*", "_view_module": "anywidget"}
    names = {"_model_name": "AnyModel", "_view_name": "AnyView", "_view_module_version": "*", "_esm": script}
    model = {"model_name": "AnyModel", "model_module": "anywidget", "model_module_version": "*", "state": base | names}
    state = {"version_major": 2, "version_minor": 0, "state": {"abc": model}}
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": state}
    view = {"version_major": 2, "version_minor": 0, "model_id": "abc"}
    data = {"application/vnd.jupyter.widget-view+json": view, "text/plain": "a widget"}
    notebook.cells.append(new_code_cell("x", outputs=[new_output("display_data", data=data)], execution_count=1))
    return notebook


def operate(card: Locator) -> None:
    """Open every drawer and show the tooltip, so that each text is drawn."""
    for name in ("Options", "Table", "Save"):
        card.get_by_role("button", name=name, exact=True).click()
    stage = card.locator(".stage")
    stage.focus()
    stage.press("ArrowDown")
    expect(card.locator(".tooltip").first).to_be_visible()


def test_an_untrusted_notebook_runs_nothing(page: Page, jupyter: Jupyter) -> None:
    payloads = [
        *hostile_payloads.with_texts(),
        *hostile_payloads.extreme(),
        *[*hostile_payloads.with_wrong_values()][::9],
    ]
    watched = Watched(page, jupyter.address)
    jupyter.open_lab(page, jupyter.save(saved_widget(notebook_of(payloads))))
    no_kernel(page)
    cards = page.locator(".headnb-grid")
    for cell in page.locator(".jp-Notebook-cell").all():
        cell.scroll_into_view_if_needed()
    expect(cards).to_have_count(len(payloads))
    for text in range(0, len(hostile_payloads.TEXTS), 6):
        cards.nth(text).scroll_into_view_if_needed()
        operate(cards.nth(text))
    expect(page.get_by_text("a widget", exact=True)).to_be_visible()
    counts = check_drawn_or_named(cards)
    watched.check()
    print(
        f"payloads in an untrusted notebook: {len(payloads)} tried, {counts}; no script, request, dialog or navigation"
    )
    assert counts["drawn"] >= len(hostile_payloads.TEXTS)


def test_every_wrong_value_of_every_field_is_drawn_or_named(page: Page) -> None:
    payloads = [*hostile_payloads.with_wrong_values(), *hostile_payloads.extreme()]
    watched = Watched(page)
    page.goto("about:blank")
    script = bundle("widget.js").read_text(encoding="utf-8")
    page.evaluate(HOST, {"script": script, "traits": {"payload": grids.grid().payload, "selected": []}})
    widget = page.locator("#widget")
    counts = {"named": 0, "drawn": 0}
    for payload in payloads:
        page.evaluate("text => window.model.set('payload', JSON.parse(text))", json.dumps(payload))
        for name, count in check_drawn_or_named(widget).items():
            counts[name] += count
    for selected in hostile_payloads.WRONG:
        page.evaluate("text => window.model.set('selected', JSON.parse(text))", json.dumps(selected))
    watched.check()
    print(f"wrong values in payloads: {len(payloads)} tried, {counts}")
    assert min(counts.values()) > 0


FILES = {
    "markup": lambda: json.dumps(hostile_payloads.with_text(hostile_payloads.template(), hostile_payloads.TEXTS[0])),
    "address": lambda: json.dumps(hostile_payloads.with_text(hostile_payloads.template(), hostile_payloads.TEXTS[-16])),
    "<img src=x onerror=window.ran=1>": lambda: "<script>window.ran = 1</script>",
    "'-window.ran=1-'": lambda: "[" * 10**6,
    "prototype": lambda: '{"__proto__": {"ran": 1}, "constructor": {"prototype": {"ran": 1}}}',
    "large": lambda: json.dumps("x" * 3 * 10**7),
    "empty": lambda: "",
    "surrogate": lambda: '{"version": 1, "kind": "level", "units": "\\ud800"}',
}


def test_files_opened_by_double_click_run_nothing(page: Page, jupyter: Jupyter) -> None:
    folder = jupyter.files / "strangers"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / f"{name}.heads.json").write_text(content(), encoding="utf-8")
    watched = Watched(page, jupyter.address)
    jupyter.open_lab(page, "strangers/markup.heads.json")
    expect(page.locator(".headnb-grid .stage canvas").first).to_be_visible()
    for name in FILES:
        page.locator(".jp-DirListing-item").filter(has_text=f"{name}.heads.json").dblclick()
        expect(page.locator("#jp-main-dock-panel .lm-TabBar-tab.lm-mod-current")).to_contain_text(name)
        shown = page.locator(".headnb-grid:visible")
        expect(shown.locator("[role=alert]:visible, .stage canvas:visible").first).to_be_visible()
    expect(page.locator(".headnb-grid")).to_have_count(len(FILES))
    counts = check_drawn_or_named(page.locator(".headnb-grid"))
    watched.check()
    print(f"files opened by double click: {len(FILES)} tried, {counts}")
    assert counts == {"named": len(FILES) - 2, "drawn": 2}


def test_saved_pages_run_nothing(page: Page, tmp_path: Path) -> None:
    watched = Watched(page, "file:")
    for payload in hostile_payloads.with_mixed_texts():
        page.goto(HeadGrid.of(payload).save_page(tmp_path / "page.html").as_uri())
        operate(page.locator("#headnb-grid"))
        watched.check()
    print(f"saved pages: {len(hostile_payloads.TEXTS)} tried")


def test_pictures_saved_in_the_browser_are_well_formed(page: Page) -> None:
    watched = Watched(page)
    script = bundle("widget.js").read_text(encoding="utf-8")
    for number, payload in enumerate(hostile_payloads.with_texts()):
        if number % 8 == 0:  # Chromium blocks the tenth of many downloads in a row
            page.goto("about:blank")
            page.evaluate(HOST, {"script": script, "traits": {"payload": grids.grid().payload, "selected": []}})
            page.locator("#widget").get_by_role("button", name="Save", exact=True).click()
        page.evaluate("payload => window.model.set('payload', payload)", payload)
        with page.expect_download() as saved:
            page.locator("#widget").get_by_role("button", name="SVG", exact=True).click()
        picture = ET.parse(saved.value.path()).getroot()
        kinds = {element.tag.rpartition("}")[2] for element in picture.iter()}
        assert kinds <= {"svg", "title", "rect", "g", "path", "text", "polygon"}
        assert not any(name.startswith("on") or "href" in name for one in picture.iter() for name in one.attrib)
    watched.check()
    print(f"pictures saved in the browser: {len(hostile_payloads.TEXTS)} tried, all well-formed XML")
