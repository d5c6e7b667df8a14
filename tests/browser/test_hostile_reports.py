"""Reports of run folders made by a stranger, in Chromium: every text of the folder stays text.

No script, request, dialog or navigation, and no text pushes the page out of its width.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from headnb.display.report import report
from headnb.experiments.report import contents_of
from playwright.sync_api import expect

from hostile_payloads import TEXTS
from report_runs import report_run

if TYPE_CHECKING:
    from pathlib import Path

    from headnb.experiments.folder import Run
    from playwright.sync_api import Page

NAMES = [f"{number} {text}" for number, text in enumerate(TEXTS)]  # tasks of one file name are refused
REPORTS = NAMES[: len(NAMES) // 2], NAMES[len(NAMES) // 2 :]


def hostile_run(folder: Path, texts: list[str]) -> Run:
    """A run whose tasks have the names `texts`, with such a text in every other text of its files too."""
    text = iter(texts)
    run = report_run(folder, texts, model_name=next(text), result={"kind_of_tuning": next(text), "steps": next(text)})
    settings = json.loads(run.paths.settings.read_text())
    run.paths.settings.write_text(json.dumps(settings | {"versions": {next(text): next(text)}}))
    notebook = {name: next(text) for name in ("node", "threads", "hardware")}
    notebook["versions"] = {next(text): next(text), "headnb": next(text)}
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "01_patterns.json").write_text(json.dumps(notebook | {"seconds": 1.0, "memory_mb": 10}))
    return run


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("texts", [REPORTS[0], pytest.param(REPORTS[1], marks=pytest.mark.long)], ids=["0", "1"])
def test_the_report_of_a_strangers_run_only_shows_it(page: Page, tmp_path: Path, texts: list[str]) -> None:
    run = hostile_run(tmp_path / "run", texts)
    path = report(contents_of(run, {texts[0]: texts[1:2]}, {text: text for text in texts}), run.folder / "report.html")
    addresses: list[str] = []
    page.on("dialog", lambda dialog: pytest.fail(f"the page opened a dialog: {dialog.message}"))
    page.on("request", lambda request: addresses.append(request.url))
    page.set_viewport_size({"width": 1300, "height": 900})
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    page.mouse.wheel(0, 100_000)
    expect(page.locator("nav ol")).to_be_visible()
    page.wait_for_timeout(500)
    assert page.evaluate("[window.ran, document.title.startsWith('Attention heads of')]") == [None, True]
    assert page.url == path.as_uri()
    assert [address for address in addresses if not address.startswith((path.as_uri(), "data:", "blob:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 1300
    print(f"texts in all files of a run folder, in its report: {len(texts)} tried, all stay text")
