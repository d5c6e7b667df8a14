"""Type checkers know the public API in a user's file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import headnb
import pytest

USER = """
import headnb

model, tokenizer = headnb.load_model("smollm2-135m")
scores = headnb.score_heads(model, tokenizer, "gsm_symbolic", method="activation")
reveal_type(scores)
reveal_type(scores.heads.pattern())
reveal_type(scores.isel(sample=slice(4)).heads.reliability())
reveal_type(headnb.compare(scores, scores).heads.evidence())
headnb.score_haeds(model, tokenizer, "gsm_symbolic")
headnb.score_heads(model, tokenizer, "gsm_symbolic", metod="activation")
headnb.load_task(n="64", source="gsm_symbolic")
scores.heads.patern()
"""
REVEALED = {6: "Scores", 7: "Pattern", 8: "float", 9: "Evidence"}
WRONG = {10: "score_haeds", 11: "metod", 12: "int", 13: "patern"}


# Their types do not matter here, and mypy would read them for most of a minute.
UNREAD = "torch transformers scipy pandas matplotlib bokeh dask distributed datasets peft trl IPython ipywidgets PIL"
CONFIG = f"""
[mypy]
follow_imports = silent
[mypy-{",".join(f"{package}.*" for package in UNREAD.split())}]
follow_imports = skip
"""


@pytest.fixture
def user(tmp_path: Path) -> Path:
    path = tmp_path / "user.py"
    path.write_text(USER)
    return path


@pytest.mark.long
def test_mypy_knows_the_public_names_and_their_types(user: Path) -> None:
    user.with_name("mypy.ini").write_text(CONFIG)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", str(user)]
    found = subprocess.run(command, cwd=user.parent, capture_output=True, text=True, check=False).stdout.splitlines()
    lines = [(int(line.split(":")[1]), line) for line in found if line.startswith("user.py:")]
    for number, word in {**REVEALED, **WRONG}.items():
        assert any(at == number and word in line for at, line in lines), (number, word, found)
    assert {at for at, line in lines if "error:" in line} == set(WRONG)


@pytest.mark.long
def test_pyright_knows_the_public_names_and_their_types(user: Path) -> None:
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", str(user)]
    found = subprocess.run(command, cwd=user.parent, capture_output=True, text=True, check=False).stdout
    reported = [(entry["range"]["start"]["line"] + 1, entry) for entry in json.loads(found)["generalDiagnostics"]]
    words = {**REVEALED, **WRONG, 11: "score_heads"}  # of a function with overloads it names the function only
    for number, word in words.items():
        assert any(at == number and word in entry["message"] for at, entry in reported), (number, word, found)
    assert {at for at, entry in reported if entry["severity"] == "error"} == set(WRONG)


def test_every_public_name_is_typed_and_loads() -> None:
    stub = Path(headnb.__file__).with_suffix(".pyi").read_text()
    for name in headnb.__all__:
        assert getattr(headnb, name) is not None
        assert f" as {name}\n" in stub or f"{name}: str" in stub
