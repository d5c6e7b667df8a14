"""Completion in the shell, as bash asks for it, and docs/cli.md."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest
import typer
from headnb.cli import main
from headnb.cli.parameters import completes
from headnb.models.registry import known_models
from headnb.notebook.known_values import known_values
from headnb.scoring.registry import methods
from headnb.tasks.loading import known_tasks

from command_page import PAGE, command_page


def complete(*words: str) -> list[str]:
    """Completions of the last word of `headnb WORDS...`."""
    asked = {"COMP_WORDS": " ".join(["headnb", *words]), "COMP_CWORD": str(len(words))}
    program = "import sys; sys.argv[0] = 'headnb'; from headnb.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | asked | {"_HEADNB_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["fine"], ["finetune"]),
        (["score", "smoll"], ["smollm2-135m"]),
        (["score", "x", "svamp", "gsm"], ["gsm8k", "gsm_symbolic"]),
        (["finetune", "x", "svamp", "--track", "bool"], ["boolq"]),
        (["finetune", "x", "svamp", "--tra"], ["--track"]),
        (["ablate", "x", "svamp", "--dtype", "float"], ["float32", "float16"]),
        (["ablate", "x", "svamp", "--encoding", "o", "--encoding", "t"], ["trl"]),
        (["export", "some"], []),  # the shell completes files where nothing is offered
    ],
)
def test_tab_completes_commands_options_and_names(words: list[str], offered: list[str]) -> None:
    assert complete(*words) == offered


def test_the_names_are_those_of_the_registries() -> None:
    assert known_values("model") == list(known_models())
    assert known_values("task") == known_values("track") == list(known_tasks())
    assert known_values("method") == list(methods())
    assert completes("method")("ablate-") == [name for name in methods() if name.startswith("ablate-")]


def test_help_explains_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.app(["--help"])
    shown = capsys.readouterr().out
    for line in inspect.cleandoc(main.EXIT_STATUS).splitlines()[1:]:
        assert line.strip() in shown


def test_the_page_of_the_commands_is_up_to_date() -> None:
    """If this fails: `python tests/support/command_page.py`."""
    assert PAGE.read_text(encoding="utf-8") == command_page()


def test_the_page_has_every_command() -> None:
    names = typer.main.get_command(main.app).commands.keys() - {"suite"}  # type: ignore[attr-defined]
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"### headnb {name}\n" in page for name in names)
