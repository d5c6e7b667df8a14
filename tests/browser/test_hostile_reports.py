"""Reports of run folders made by a stranger, in Chromium: every text of the folder stays text.

No script, request, dialog or navigation, and no text pushes the page out of its width.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from headnb import finetune, load_task, scale_heads, score_heads
from headnb.display.report import report
from headnb.experiments.folder import Run
from headnb.experiments.report import contents_of
from playwright.sync_api import expect

from hostile_payloads import TEXTS
from paths import FIXTURES
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

WHOLE = FIXTURES / "format-1" / "run"
PAIRS = [("2 + 3 = ", "5"), ("4 + 4 = ", "8"), ("1 + 6 = ", "7"), ("3 + 3 = ", "6")]
TASKS = 13  # texts in one report
NAMES = [f"{number} {text}" for number, text in enumerate(TEXTS)]  # tasks of one file name are refused
REPORTS = [NAMES[start : start + TASKS] for start in range(0, len(NAMES), TASKS)]


def hostile_run(folder: Path, texts: list[str]) -> Run:
    """A run whose tasks have the names `texts`, with such a text in every other text of its files too."""
    run, text, model, tokenizer = Run(folder), texts[0], tiny_model(), tiny_tokenizer()
    folder.mkdir()
    tasks = {name: load_task(PAIRS, name=name) for name in texts}
    for name, task in tasks.items():
        score_heads(model, tokenizer, task, out=run.paths.before(name))
    loss = {name: {"before": 2.0, "after": 1.0} for name in texts}
    for trained in texts[:2]:
        of_task, track = run.paths.finetuning(trained, 0), {trained: tasks[trained]}
        finetune(tiny_model(), tokenizer, tasks[trained], steps=2, every=1, track=track, output_dir=of_task)
        with scale_heads(model, {"L0H1": 0.2}):
            for name, task in tasks.items():
                score_heads(model, tokenizer, task, out=run.paths.after(trained, 0, name))
        result = {"task": trained, "seed": 0, "kind_of_tuning": text, "steps": text, "loss": loss, "movement": 0.1}
        (of_task / "result.json").write_text(json.dumps(result))
    settings = json.loads((WHOLE / "run.json").read_text())
    settings |= {"model": text, "tasks": texts, "versions": {text: text}}
    run.paths.settings.write_text(json.dumps(settings))
    notebook = {"node": text, "versions": {text: text, "headnb": text}, "threads": text, "hardware": text}
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "01_patterns.json").write_text(json.dumps(notebook | {"seconds": 1.0, "memory_mb": 10}))
    return run


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("texts", REPORTS, ids=lambda texts: texts[0].split()[0])
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
