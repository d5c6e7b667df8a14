"""docs/cli.md, generated from the commands. `python tests/support/command_page.py` writes it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from headnb.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
INTRODUCTION = """\
# Command line

Every command calls public Python functions and uses their defaults. `headnb COMMAND --help` shows the same text as this
page.

```sh
headnb score smollm2-135m gsm_symbolic -n 32 --out before.zarr
headnb finetune smollm2-135m gsm_symbolic --steps 60 --out tuned
headnb score smollm2-135m gsm_symbolic -n 32 --adapter tuned/adapter --out after.zarr
headnb compare before.zarr after.zarr --save change.png
headnb ablate smollm2-135m gsm_symbolic --heads L3H5,L7H1 -n 32
headnb export after.zarr after.csv after.heads.json
```

## Exit status

| status | meaning |
|---|---|
{statuses}

Results are written to stdout, progress and errors to stderr. An interrupted `score --out`, `finetune` or `suite run`
keeps its finished work and says how to continue.

## Completion in the shell

`headnb --install-completion` installs completion for bash, zsh, fish or PowerShell; `headnb --show-completion` prints
the script. Tab then completes commands, options, models, tasks and methods. Completing methods takes a few
seconds, because listing them loads torch.

## Commands
"""


def command_page() -> str:
    """The page in Markdown."""
    statuses = [line.split(maxsplit=1) for line in main.EXIT_STATUS.splitlines()[2:]]
    table = "\n".join(f"| {number} | {meaning} |" for number, meaning in statuses)
    sections = [
        section
        for name, command in _commands(typer.main.get_command(main.app), "headnb")
        for section in (f"### {name}", *_section(name, command))
    ]
    return "\n\n".join([INTRODUCTION.format(statuses=table).rstrip(), *sections]) + "\n"


def _commands(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Name -> command, also those of groups."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def _section(name: str, command: Any) -> Iterator[str]:
    """What the command does, how it is called, and its arguments and options."""
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option" and "--help" not in param.opts]
    yield inspect.cleandoc(command.help)
    words = [_usage(param) for param in arguments] + ["[OPTIONS]"] * bool(options)
    yield "```text\n" + " ".join([name, *words]) + "\n```"
    rows = [(_word(param), _explained(param)) for param in arguments]
    rows += [(", ".join(param.opts), _explained(param)) for param in options]
    if rows:
        yield "\n".join(["| name | meaning |", "|---|---|", *(f"| `{flag}` | {text} |" for flag, text in rows)])


def _usage(argument: Any) -> str:
    word = _word(argument) + ("..." if argument.nargs == -1 else "")
    return word if argument.required else f"[{word}]"


def _word(argument: Any) -> str:
    return (argument.metavar or argument.name).strip("[]")


def _explained(param: Any) -> str:
    """Help text, and the default value where the text does not name it."""
    text = param.help.replace("|", "\\|")
    if param.required and param.param_type_name == "option":
        return f"{text} Required."
    shown = str(param.default) not in {"None", "False", ""} and "Default:" not in text
    return f"{text} Default: `{param.default}`." if shown else text


if __name__ == "__main__":
    PAGE.write_text(command_page(), encoding="utf-8")
