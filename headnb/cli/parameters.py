"""Arguments and options of several commands, and their completion in the shell."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headnb.notebook import shared_options as shared
from headnb.notebook.known_values import known_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from headnb.notebook.shared_options import Option
    from headnb.tasks.loading import Task


def completes(name: str) -> Callable[[str], list[str]]:
    """Completion of an argument or option by the names that start with the typed text."""

    def words(incomplete: str) -> list[str]:
        return [word for word in known_values(name) if word.startswith(incomplete)]

    return words


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Id, folder or GGUF file: see `headnb models`.", autocompletion=completes("model")
    ),
]
Save = Annotated[
    Path | None,
    typer.Option(
        help="Write the grid: .png, .pdf, .svg, .html (static), .csv or .heads.json. `headnb show FILE --html PAGE` "
        "writes an interactive page."
    ),
]


def sampled_task(name: str, given: dict[str, Any]) -> Task:
    """The task of a command line, with the samples that its options select."""
    from headnb.notebook.arguments import load_sampled_task  # noqa: PLC0415

    sampling = [given[option.name] for option in (shared.SPLIT, shared.SEED, shared.CONFIG)]
    return load_sampled_task(name, given["samples"], shared.MAX_SAMPLES, *sampling)


def takes(*options: Option) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add options to a command, which receives their values as `**given`."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        *own, _ = signature.parameters.values()
        command.__signature__ = signature.replace(parameters=[*own, *map(_parameter, options)])  # type: ignore[attr-defined]
        return command

    return add


def _parameter(option: Option) -> inspect.Parameter:
    kind, parser = (option.kind, None) if isinstance(option.kind, type) else (str, option.kind)
    about = typer.Option(
        option.default,
        *option.flags,
        help=option.help,
        metavar=option.metavar,
        parser=parser,
        autocompletion=completes(option.name),
    )
    annotation: Any = list[kind] if option.several else kind  # type: ignore[valid-type]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=about, annotation=annotation)
