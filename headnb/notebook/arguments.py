"""What the words on a magic's line stand for: options, models, tasks, scores and pictures.

A word is a variable of the notebook if one of that name holds something fitting, else an id, a name or a path. A
variable of text stands for its text, so that `%headscore model task` works with a notebook's parameters.
"""

from __future__ import annotations

import contextlib
import difflib
import keyword
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic_arguments import argument, real_name
from IPython.utils.process import arg_split  # type: ignore[attr-defined]

from headnb.errors import HeadnbError
from headnb.hub import user_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping

    import xarray as xr

    from headnb.display.grid import HeadGrid
    from headnb.models.model_cache import ModelCache
    from headnb.notebook.shared_options import Option
    from headnb.notebook.variables import Variables
    from headnb.tasks.loading import Task

MODEL = argument(  # type: ignore[no-untyped-call]
    "model", metavar="MODEL", help="Id, folder, or variable with a model or a pair (model, tokenizer)."
)
_PAIR_HINT = "for another one give a pair (model, tokenizer)"


def takes(*options: Option) -> Callable[[Any], Any]:
    """Give a magic these options. What `%config` sets has no default here: `chosen` looks it up."""

    def add(magic: Any) -> Any:
        for option in reversed(options):
            default = "" if option.default is None else f" Default: {option.default}."
            about = {"help": (option.help + default).replace("%", "%%"), "metavar": option.metavar, "type": option.kind}
            argument(*option.flags, default=None if option.settable else option.default, **about)(magic)  # type: ignore[no-untyped-call]
        return magic

    return add


def parse(magic: Any, line: str) -> argparse.Namespace:
    """The options of a magic's line.

    Raises:
        UsageError: quotes that are not closed, a word too many, or an option that does not exist.
    """
    name = f"%{real_name(magic)}"  # type: ignore[no-untyped-call]
    try:
        words = arg_split(line.strip().removesuffix(";"), posix=True)  # a habit from expressions
    except ValueError:
        raise UsageError(f"{name}: a quote is not closed: {line.strip()}") from None
    try:
        options, unknown = magic.parser.parse_known_intermixed_args(words)  # options may stand between MODEL and TASK
    except UsageError as error:
        raise UsageError(f"{name}: {error} ({name}? explains)") from None
    if unknown:
        raise UsageError(f"{name}: {_unknown_argument_message(unknown[0], option_names(magic))} ({name}? explains)")
    return options  # type: ignore[no-any-return]


def option_names(magic: Any) -> list[str]:
    """The options that a magic has, as they are typed."""
    return [text for action in magic.parser._actions for text in action.option_strings]  # noqa: SLF001  no public form


def _unknown_argument_message(word: str, known: list[str]) -> str:
    if not word.startswith("-"):
        return f"{word!r} is one word too many"
    typed = word.partition("=")[0]
    near = difflib.get_close_matches(typed, known, n=1, cutoff=0.5)
    return f"there is no option {typed}" + (f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}")


def variable(word: str, namespace: Variables, fits: Callable[[Any], bool]) -> Any:
    """What a variable of this name holds if it fits, else the word itself; a variable's text in place of its name.

    Raises:
        HeadnbError: it may not be the variable that is meant, as `Variables.check_visible` says.
    """
    if not word.isidentifier() or word not in namespace:
        return word
    value = namespace[word]
    if not isinstance(value, (str, Path)) and not fits(value):
        return word
    namespace.check_visible(word)
    return str(value) if isinstance(value, Path) else value


@contextlib.contextmanager
def explain_variable(word: str, found: object, namespace: Variables, wanted: str) -> Iterator[None]:
    """Errors of a word that was taken for a name also say what the variable of that name holds, if there is one."""
    try:
        yield
    except HeadnbError as error:
        if found is not word or word not in namespace:
            raise
        held = type(namespace[word]).__name__
        raise HeadnbError(f"{error} (the variable {word} holds a {held}, not {wanted})") from None


def check_name(name: str | None) -> None:
    """Refuse what cannot be a variable's name, before the work whose result it is to hold.

    Raises:
        HeadnbError: it is none.
    """
    if name is not None and (not name.isidentifier() or keyword.iskeyword(name)):
        raise HeadnbError(f"--into {name}: a variable's name has letters, digits and _ only, and is no word of Python")


def is_model(value: object) -> bool:
    """A transformers model, bare, compiled or wrapped by PEFT; asked without importing any of these."""
    return all(hasattr(value, name) for name in ("config", "forward", "parameters"))


def is_tokenizer(value: object) -> bool:
    """Whether a variable holds a tokenizer, of any class."""
    return callable(value) and all(hasattr(value, name) for name in ("encode", "convert_ids_to_tokens"))


def is_model_pair(value: object) -> bool:
    """Whether a variable holds what `load_model` returns: (model, tokenizer)."""
    return isinstance(value, tuple) and len(value) == 2 and is_model(value[0])


def is_task(value: object) -> bool:
    """Whether a variable holds something that `load_task` takes."""
    from headnb.tasks.loading import Task  # noqa: PLC0415

    return isinstance(value, (Task, list, tuple)) or type(value).__module__.partition(".")[0] == "datasets"


def is_scores(value: object) -> bool:
    """Whether a variable holds what `score_heads` returns."""
    import xarray as xr  # noqa: PLC0415

    return isinstance(value, xr.Dataset) and "score" in value


def is_drawable(value: object) -> bool:
    """Anything that `HeadGrid.of` can draw: it says itself what is wrong with a Dataset or a dict of other things."""
    import xarray as xr  # noqa: PLC0415

    from headnb.display.array_input import is_matrix_like  # noqa: PLC0415
    from headnb.display.grid import HeadGrid  # noqa: PLC0415

    return isinstance(value, (xr.Dataset, xr.DataArray, HeadGrid, dict)) or is_matrix_like(value)


def find_tokenizer(model: Any, namespace: Variables, model_cache: ModelCache) -> tuple[Any, str]:
    """The tokenizer of a model that a variable holds, and a line that says which one where the reader may be wrong.

    The one it was loaded with, else a variable's that has the model's name, else the one that lies where the model
    came from, else the variable `tokenizer` or the only one; None if there is none (encoded samples need none).
    """
    known = model_cache.tokenizer_of(model)
    if known is not None:
        return known, ""
    name = getattr(model, "name_or_path", "")
    held = _tokenizers(namespace.own) or _tokenizers(namespace)
    for value in held.values():
        if name and _same_place(getattr(value, "name_or_path", ""), name):
            return value, ""
    word = "tokenizer" if "tokenizer" in held else next(iter(held)) if len(held) == 1 else ""
    beside = _tokenizer_beside(name)
    if beside is not None:
        return beside, f"the tokenizer is the one in {name}, not the variable {word}; {_PAIR_HINT}" if word else ""
    if not word:
        return None, ""
    namespace.check_visible(word)
    origin = getattr(held[word], "name_or_path", "")
    note = f"the tokenizer is that of {origin}, the model is {name}; {_PAIR_HINT}" if name and origin else ""
    return held[word], note


def _tokenizers(namespace: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in namespace.items() if not key.startswith("_") and is_tokenizer(value)}


def _same_place(one: str, other: str) -> bool:
    return bool(one) and Path(one) == Path(other)


def _tokenizer_beside(name: str) -> Any:
    if not name or not Path(name).is_dir():
        return None
    from headnb.models.loading import load_tokenizer_or_none  # noqa: PLC0415

    return load_tokenizer_or_none(name)


def draw_task(source: Any, n: int | None, most: int, split: str, seed: int) -> Task:
    """The task of a source: n samples of it; without n all that a variable holds, and at most `most` of other sources.

    Raises:
        HeadnbError: as `load_task` does.
    """
    from headnb.tasks.loading import load_task  # noqa: PLC0415

    if n is not None:
        return load_task(source, split=split, n=n, seed=seed)
    if not isinstance(source, str):
        return load_task(source, split=split, seed=seed)
    if not user_path(source).exists():
        return load_task(source, split=split, n=most, seed=seed)
    task = load_task(source, split=split, seed=seed)
    return task if len(task) <= most else load_task(task, n=most, seed=seed)


def find_scores(word: str, namespace: Variables) -> xr.Dataset:
    """The scores that a variable or a file holds.

    Raises:
        HeadnbError: neither of them does.
    """
    import xarray as xr  # noqa: PLC0415

    from headnb.storage.score_store import open_scores  # noqa: PLC0415

    found = variable(word, namespace, is_scores)
    if isinstance(found, xr.Dataset):
        return found
    if not user_path(found).exists():
        raise HeadnbError(
            _not_found_message(word, namespace, "scores (from %headscore or headnb.score_heads)", is_scores)
        )
    return open_scores(user_path(found))


def find_drawable(word: str, namespace: Variables) -> HeadGrid | Any:
    """What a variable or a file holds that can be drawn: scores, a pattern, a comparison, a matrix, a mapping, a grid.

    Raises:
        HeadnbError: neither of them does.
    """
    found = variable(word, namespace, is_drawable)
    if not isinstance(found, str):
        return found
    path = user_path(found)
    if not path.exists():
        raise HeadnbError(
            _not_found_message(word, namespace, "something to draw (scores, a pattern, a comparison)", is_drawable)
        )
    return open_drawable(path)


def open_drawable(path: Path) -> HeadGrid | Any:
    """A saved grid (`*.heads.json`) or saved scores (Zarr, netCDF)."""
    from headnb.display.grid import HeadGrid  # noqa: PLC0415
    from headnb.storage.score_store import open_scores  # noqa: PLC0415

    return HeadGrid.open(path) if path.suffix == ".json" else open_scores(path)


def _not_found_message(word: str, namespace: Mapping[str, Any], wanted: str, fits: Callable[[Any], bool]) -> str:
    if word.isidentifier() and word in namespace and not isinstance(namespace[word], (str, Path)):
        return f"{word} is a {type(namespace[word]).__name__}, not {wanted}"
    held = [name for name, value in namespace.items() if not name.startswith("_") and fits(value)]
    near = difflib.get_close_matches(word, held, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; these do: {', '.join(sorted(held)[:8])}" if held else ""
    return f"no variable and no file {word!r} holds {wanted}{hint}"
