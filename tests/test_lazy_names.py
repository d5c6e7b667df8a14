"""Lazy public names: completion and signatures without torch, and the real objects on use."""

from __future__ import annotations

import subprocess
import sys

TAB = """
import sys
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("import headnb")
for text in ("headnb.", "headnb.sc", "headnb.HeadS", "headnb.score_heads("):
    with shell.builtin_trap, provisionalcompleter():
        found = list(shell.Completer.completions(text, len(text)))
    if text == "headnb.sc":
        print([(one.text, one.type, "tokenizer" in one.signature) for one in found if "score" in one.text])
print("torch" in sys.modules)
"""
SAME = """
import inspect, pickle, sys
import headnb
early = {name: getattr(headnb, name) for name in headnb.__all__}
assert "torch" not in sys.modules
docs = {name: value.__doc__ for name, value in early.items()}
assert pickle.loads(pickle.dumps(early["score_heads"])) is early["score_heads"]

class Mine(early["HeadScoreCallback"]):
    pass

import headnb.tuning.finetuning, headnb.explorer.explorer
for name, module in headnb._lazy_names.public_modules().items():
    __import__(f"headnb.{module}")
    real = getattr(headnb, name)
    assert docs[name] == inspect.getdoc(real) or docs[name] == real.__doc__, name
    if inspect.isfunction(real):
        assert list(inspect.signature(early[name]).parameters) == list(inspect.signature(real).parameters), name
assert issubclass(Mine, headnb.HeadScoreCallback)
task = early["load_task"]([("2 + 2 = ", "4")])
assert isinstance(task, headnb.Task)
assert isinstance(early["Task"](task.name, task.samples, task.ids, "here"), headnb.Task)
try:
    early["load_task"]("no such task")
except headnb.HeadnbError as error:
    print(error)
"""


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_tab_shows_signatures_and_loads_no_torch():
    shown, torch_is_loaded = run(TAB).splitlines()
    assert shown == "[('score_heads', 'function', True), ('score_tasks', 'function', True)]"
    assert torch_is_loaded == "False"


def test_a_placeholder_calls_the_real_function():
    assert "unknown task 'no such task'" in run(SAME)
