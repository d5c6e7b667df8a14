"""Messages of a hostile page to the explorer, through JupyterLab's connection to a real kernel."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from hostile_payloads import TEXTS, WRONG
from jupyter_pages import notebook, run_cell

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from jupyter_pages import Jupyter

MADE = """import headnb
from tiny import tiny_model, tiny_tokenizer
sums = [("2 + 3 = ", "5"), ("4 + 4 = ", "8"), ("1 + 6 = ", "7"), ("3 + 3 = ", "6")]
explorer = headnb.explore(tiny_model(), tiny_tokenizer(), {"sums": sums}, samples=4)
explorer"""
STATE = "explorer.wait(60); explorer.comm.comm_id"
SEND = """([comm_id, all]) => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    for (const [number, data] of JSON.parse(all).entries()) {
        const header = {msg_id: `hostile${number}`, msg_type: 'comm_msg', session: kernel.clientId,
            username: '', date: new Date().toISOString(), version: '5.3'};
        kernel.sendShellMessage({header, parent_header: {}, metadata: {}, channel: 'shell', buffers: [],
            content: {comm_id, data}});
    }
}"""
COMMANDS = {
    "run": {},
    "stop": {},
    "attend": {"head": "L0H0", "place": 0},
    "ablate": {"factor": 0, "heads": ["L0H0"], "tasks": ["sums"], "controls": 0},
}
TRAITS = ("selected", "focused", "payload", "status", "task", "method", "samples", "choices", "head", "attention")
AGAIN = """explorer.wait(60)
explorer.task, explorer.method, explorer.samples = "sums", "activation", 4
explorer.run(); explorer.wait(60)
print("scored", explorer.scores.sizes["sample"])"""


def messages() -> list[dict[str, object]]:
    """Commands with a wrong value in each argument, and wrong values of every synchronised trait."""
    values = [*WRONG, *TEXTS[:4], ["L0H0"] * 1000, "L99H99", {"L0H0": {}}]
    contents: list[object] = [*values, *({"do": value} for value in (*WRONG, *TEXTS))]
    for command, arguments in COMMANDS.items():
        contents += [{"do": command, **arguments, name: value} for name in arguments for value in values]
    states = [{name: value} for name, value in itertools.product(TRAITS, values)]
    return [
        *({"method": "custom", "content": content} for content in contents),
        *({"method": "update", "state": state, "buffer_paths": []} for state in states),
        *({"method": method} for method in ("nosuch", "__class__", "request_state")),
    ]


def test_whatever_a_page_sends_the_kernel_and_the_explorer_go_on(page: Page, jupyter: Jupyter) -> None:
    page.on("dialog", lambda dialog: dialog.dismiss())
    jupyter.open_lab(page, jupyter.save(notebook(MADE, STATE, AGAIN)))
    run_cell(page, 0)
    comm = run_cell(page, 1).inner_text().strip().strip("'")
    sent = messages()
    page.evaluate(SEND, [comm, json.dumps(sent)])
    expect(run_cell(page, 2)).to_have_text("scored 4")
    assert "Traceback" not in page.locator(".jp-Notebook").inner_text()
    assert page.evaluate("window.ran") is None
    print(f"messages of a hostile page to the explorer through a kernel: {len(sent)} tried, the next run works")
