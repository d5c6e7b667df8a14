"""The snippets of docs/your_data.md run in order, with data of the hub made here."""

from __future__ import annotations

import re
from pathlib import Path

import datasets
import pytest
from headnb.tasks import harness
from headnb.tasks.files import _READERS, LINE_LIMIT, ROW_LIMIT, SIZE_LIMIT

from paths import ROOT

PAGE = (ROOT / "docs" / "your_data.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
SUMS = {"question": [f"{i} + 1?" for i in range(9)], "answer": [f"#### {i + 1}" for i in range(9)]}
ARC = {
    "question": ["What pulls a ball down?"] * 2,
    "choices": [{"text": ["gravity", "light"], "label": ["A", "B"]}] * 2,
    "answerKey": ["A"] * 2,
}


def load_dataset(path, name=None, *, split=None, streaming=False, **_):
    rows = datasets.Dataset.from_dict({"openai/gsm8k": SUMS, "allenai/ai2_arc": ARC}[path])
    splits = datasets.DatasetDict(train=rows, validation=rows, test=rows)
    if split is None:
        return splits
    loaded = splits[split.partition("[")[0]]
    return loaded.to_iterable_dataset() if streaming else loaded


def small_index(monkeypatch):
    """The index of a few tasks of the harness: the whole one takes long."""
    manager = pytest.importorskip("lm_eval.tasks").TaskManager
    init = manager.__init__
    folder = Path(pytest.importorskip("lm_eval").__file__).parent / "tasks"
    paths = [folder / "arc", folder / "gsm8k"]
    monkeypatch.setattr(harness, "_manager", harness._manager.__wrapped__)
    monkeypatch.setattr(manager, "__init__", lambda self: init(self, include_path=paths, include_defaults=False))


def test_the_snippets_run(tmp_path, monkeypatch, capsys, no_network):
    small_index(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADNB_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    names = {}
    for snippet in SNIPPETS:
        exec(compile(snippet, "your_data.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "Question: 2 + 3?\nAnswer: 5\n" in printed
    assert "('a', 'b', 'c')" in printed
    assert "Task('sums', 2 samples from sums.jsonl.gz)" in printed
    assert [sample.prompt for sample in names["first"].samples] == ["0 + 1?\n", "1 + 1?\n", "2 + 1?\n"]
    assert {sample.prompt.count("Question") for sample in names["task"].samples} == {1}


def test_the_page_has_the_endings_and_the_limits():
    assert set(re.findall(r"`(\.\w+)`", PAGE.partition("| ending |")[2].partition("\n\n")[0])) == set(_READERS)
    assert f"at most {LINE_LIMIT // 10**6} MB long" in PAGE
    assert f"{SIZE_LIMIT // 10**9} GB after decompression and {ROW_LIMIT // 10**6} million rows" in " ".join(
        PAGE.split()
    )
