"""Parser of magic lines, and resolution of their arguments to models, tasks, scores and grids.

An argument names a notebook variable if a variable of that name has a suitable value. Otherwise it is an id, a name or
a path. A string variable is replaced by its text, so that `%headscore model task` works with a notebook's parameters.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import keyword
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic_arguments import MagicArgumentParser, argument, real_name
from IPython.utils.process import arg_split  # type: ignore[attr-defined]

from headnb.errors import HeadnbError
from headnb.hub import user_path
from headnb.notebook.variables import fitting_names
from headnb.storage.remote import is_url, local_copy, url_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import xarray as xr

    from headnb.display.grid import HeadGrid
    from headnb.models.model_cache import ModelCache
    from headnb.notebook.shared_options import Option
    from headnb.notebook.variables import Variables
    from headnb.tasks.loading import Task

MODEL = argument(  # type: ignore[no-untyped-call]
    "model", metavar="MODEL", help="Id, folder, or variable with a model or a pair (model, tokenizer)."
)
_PAIR_HINT = "to use another one, give a pair (model, tokenizer)"


def takes(*options: Option) -> Callable[[Any], Any]:
    """Add options to a magic. Options that `%config` sets get no default here: `chosen` looks it up."""

    def add(magic: Any) -> Any:
        for option in reversed(options):
            default = "" if option.default is None or option.kind is bool else f" Default: {option.default}."
            about: dict[str, Any] = {"help": (option.help + default).replace("%", "%%")}
            if option.kind is bool:
                about |= {"action": "store_true"}
            else:
                about |= {"metavar": option.metavar, "type": _reader(option.kind)}
                about |= {"action": "append"} if option.several else {}
                about |= {"default": None if option.settable else option.default}
            argument(*option.flags, **about)(magic)  # type: ignore[no-untyped-call]
        return magic

    return add


def _reader(kind: Callable[[str], object]) -> Callable[[str], object]:
    """`int` and `float` with an error in plain words; another `kind` is returned as is."""
    number = {int: "whole number", float: "number"}.get(kind)  # type: ignore[call-overload]

    def read(text: str) -> object:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r:.60} is not a {number}") from None

    return read if number else kind


def parse(magic: Any, line: str) -> argparse.Namespace:
    """Parse a magic's line; the attribute `given` has the names of its options, such as "samples".

    Raises:
        UsageError: a quote is not closed, or an argument is missing, invalid or unexpected.
    """
    name = f"%{real_name(magic)}"  # type: ignore[no-untyped-call]
    try:
        words = arg_split(line.strip().removesuffix(";"), posix=True)  # users end lines with ";" as in expressions
    except ValueError:
        raise UsageError(f"{name}: unclosed quote: {line.strip()}") from None
    magic.parser.allow_abbrev = False
    try:
        given = argparse.Namespace(given=_given(magic, words))
        # Intermixed: options may stand between MODEL and TASK.
        options, unknown = magic.parser.parse_known_intermixed_args(words, given)
    except UsageError as error:
        raise UsageError(f"{name}: {error} (see {name}?)") from None
    if unknown:
        raise UsageError(f"{name}: {_unknown_argument_message(unknown[0], option_names(magic))} (see {name}?)")
    return options  # type: ignore[no-any-return]


class _Once(argparse.Action):
    """Add an option to `namespace.given`; refuse a second use, of which the parser would silently take the value."""

    def __call__(self, parser: Any, namespace: Any, *_: Any) -> None:
        if self.dest in namespace.given:
            parser.error(f"{self.option_strings[-1]} is given twice")
        namespace.given.add(self.dest)


def _given(magic: Any, words: list[str]) -> set[str]:
    """Names of the options in a line, without those that may be given several times.

    Raises:
        UsageError: an option is given twice or has no value.
    """
    parser = MagicArgumentParser()  # type: ignore[no-untyped-call]
    parser.allow_abbrev = False
    for action in magic.parser._actions:  # noqa: SLF001  no public form
        if action.option_strings and not isinstance(action, argparse._AppendAction):  # noqa: SLF001
            parser.add_argument(*action.option_strings, dest=action.dest, nargs=action.nargs, action=_Once)
    return parser.parse_known_args(words, argparse.Namespace(given=set()))[0].given  # type: ignore[no-any-return]


def option_names(magic: Any) -> list[str]:
    """Flags of a magic's options, such as `--method`."""
    return [flag for action in magic.parser._actions for flag in action.option_strings]  # noqa: SLF001  no public form


def _unknown_argument_message(word: str, known: list[str]) -> str:
    if not word.startswith("-"):
        return f"unexpected argument {word!r}"
    typed = word.partition("=")[0]
    near = difflib.get_close_matches(typed, known, n=1, cutoff=0.5)
    return f"unknown option {typed}; " + (f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}")


def variable(word: str, namespace: Variables, fits: Callable[[Any], bool]) -> Any:
    """Value of the variable `word` if it is text, a path or accepted by `fits`; else `word` itself.

    Raises:
        HeadnbError: as for `Variables.check_visible`.
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
    """Add to an error about the name `word` that a variable of that name exists and has another type.

    Args:
        word: the argument as typed.
        found: what `variable` returned for it.
        namespace: the variables that were searched.
        wanted: what the argument should be, such as "a model".
    """
    try:
        yield
    except HeadnbError as error:
        if found is not word or word not in namespace:
            raise
        actual = type(namespace[word]).__name__
        raise HeadnbError(f"{error} (the variable {word} has type {actual}, not {wanted})") from None


def check_name(name: str | None) -> None:
    """Check the variable name of --into before the work starts.

    Raises:
        HeadnbError: it is not a valid variable name.
    """
    if name is not None and (not name.isidentifier() or keyword.iskeyword(name)):
        raise HeadnbError(
            f"--into {name}: a variable name has only letters, digits and _, does not start with a digit, and is not a "
            "Python keyword"
        )


def is_model(value: object) -> bool:
    """Whether a value is a transformers model, bare, compiled or wrapped by PEFT; imports none of these packages."""
    return all(hasattr(value, name) for name in ("config", "forward", "parameters"))


def is_tokenizer(value: object) -> bool:
    """Whether a value is a tokenizer, of any class."""
    return callable(value) and all(hasattr(value, name) for name in ("encode", "convert_ids_to_tokens"))


def is_model_pair(value: object) -> bool:
    """Whether a value is a pair (model, tokenizer), as `load_model` returns it."""
    return isinstance(value, tuple) and len(value) == 2 and is_model(value[0])


def is_task(value: object) -> bool:
    """Whether a value is something that `load_task` accepts."""
    from headnb.tasks.loading import Task  # noqa: PLC0415
    from headnb.tasks.sources import is_source  # noqa: PLC0415

    return isinstance(value, Task) or is_source(value)


def is_scores(value: object) -> bool:
    """Whether a value is a data set of scores, as `score_heads` returns it."""
    import xarray as xr  # noqa: PLC0415

    return isinstance(value, xr.Dataset) and "score" in value


def is_drawable(value: object) -> bool:
    """Whether `HeadGrid.of` accepts this type; it raises its own error for a Dataset or dict that it cannot draw."""
    import xarray as xr  # noqa: PLC0415

    from headnb.display.array_input import is_list_of_results, is_matrix_like  # noqa: PLC0415
    from headnb.display.grid import HeadGrid  # noqa: PLC0415
    from headnb.storage.method_results import MethodResults  # noqa: PLC0415

    return (
        isinstance(value, (xr.Dataset, xr.DataArray, HeadGrid, MethodResults, dict))
        or is_list_of_results(value)
        or is_matrix_like(value)
    )


def find_tokenizer(model: Any, namespace: Variables, model_cache: ModelCache) -> tuple[Any, str]:
    """Tokenizer of a model that is a variable, and a note where the choice may surprise.

    The first of: the tokenizer that the model was loaded with; a variable whose tokenizer has the model's name; the
    tokenizer in the model's folder; the variable `tokenizer`; the only variable that is a tokenizer. None if there is
    no such tokenizer: encoded samples do not need one.
    """
    known = model_cache.tokenizer_of(model)
    if known is not None:
        return known, ""
    name = getattr(model, "name_or_path", "")
    tokenizers = _tokenizers(namespace.own) or _tokenizers(namespace)
    for value in tokenizers.values():
        if name and _same_path(getattr(value, "name_or_path", ""), name):
            return value, ""
    word = "tokenizer" if "tokenizer" in tokenizers else next(iter(tokenizers)) if len(tokenizers) == 1 else ""
    in_folder = _tokenizer_in_folder(name)
    if in_folder is not None:
        return in_folder, f"the tokenizer is the one in {name}, not the variable {word}; {_PAIR_HINT}" if word else ""
    if not word:
        return None, ""
    namespace.check_visible(word)
    origin = getattr(tokenizers[word], "name_or_path", "")
    note = f"the tokenizer belongs to {origin}, but the model is {name}; {_PAIR_HINT}" if name and origin else ""
    return tokenizers[word], note


def _tokenizers(namespace: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in namespace.items() if not key.startswith("_") and is_tokenizer(value)}


def _same_path(one: str, other: str) -> bool:
    return bool(one) and Path(one) == Path(other)


def _tokenizer_in_folder(name: str) -> Any:
    if not name or not Path(name).is_dir():
        return None
    from headnb.models.loading import load_tokenizer_or_none  # noqa: PLC0415

    return load_tokenizer_or_none(name)


def load_sampled_task(source: Any, n: int | None, most: int, split: str, seed: int, config: str | None = None) -> Task:
    """Load the task of a name, path or variable's value.

    Args:
        source: a name, id or path (text), or the value of a variable.
        n: number of samples. None: all samples of a variable's value, at most `most` of a named source.
        most: limit of samples without `n`.
        split: of a named task.
        seed: of the random subset.
        config: configuration of a hub data set.

    Raises:
        HeadnbError: as for `load_task`.
    """
    from headnb.tasks.loading import load_at_most, load_task  # noqa: PLC0415
    from headnb.tasks.sources import is_known  # noqa: PLC0415

    if n is not None or not isinstance(source, str):
        return load_task(source, split=split, n=n, seed=seed, config=config)
    if is_known(source) or not user_path(source).exists():
        return load_at_most(source, most, split, seed, config=config)
    task = load_task(source, split=split, seed=seed, config=config)  # a small file keeps its order
    return task if len(task) <= most else load_task(task, n=most, seed=seed)


def find_scores(word: str, namespace: Variables) -> xr.Dataset:
    """Scores of a variable, a file or a URL.

    Raises:
        HeadnbError: no variable and no file of that name has scores.
    """
    import xarray as xr  # noqa: PLC0415

    from headnb.storage.reading import open_scores_of_one_method  # noqa: PLC0415

    found = variable(word, namespace, is_scores)
    if isinstance(found, xr.Dataset):
        return found
    if not is_file_or_url(found):
        raise HeadnbError(
            _not_found_message(word, namespace, "with scores (from %headscore or headnb.score_heads)", is_scores)
        )
    return open_scores_of_one_method(found)


def find_drawable(word: str, namespace: Variables) -> HeadGrid | Any:
    """Drawable value of a variable, a file or a URL: scores, a pattern, a comparison, a matrix, a mapping or a grid.

    Raises:
        HeadnbError: no variable and no file of that name has one.
    """
    found = variable(word, namespace, is_drawable)
    if not isinstance(found, str):
        return found
    if not is_file_or_url(found):
        raise HeadnbError(
            _not_found_message(word, namespace, "that can be drawn (scores, a pattern, a comparison)", is_drawable)
        )
    return open_drawable(found)


def one_drawable(found: Sequence[Any], words: Sequence[str]) -> Any:
    """One value to draw: the only one found, or several by labels (see `display.array_input.labelled`).

    Raises:
        HeadnbError: one of several is a grid, which has a colour scale of its own.
    """
    from headnb.display.array_input import labelled  # noqa: PLC0415
    from headnb.display.grid import HeadGrid  # noqa: PLC0415

    if len(found) == 1:
        return found[0]
    for value, word in zip(found, words, strict=True):
        if isinstance(value, HeadGrid):
            raise HeadnbError(
                f"{word} is a saved grid, which is drawn alone; give its scores to draw it next to others"
            )
    return labelled(found, short_names(words))


def short_names(words: Sequence[str]) -> list[str]:
    """Names of variables, files and URLs: without folder and suffix."""
    return [Path(url_name(word)).stem for word in words]


def is_file_or_url(source: str) -> bool:
    """Whether a file or a folder of that name exists; any URL passes, because only opening it can tell."""
    return is_url(source) or user_path(source).exists()


def open_drawable(source: str) -> HeadGrid | Any:
    """Open a saved grid (`*.heads.json`) or saved scores at a path or a URL."""
    from headnb.display.grid import HeadGrid  # noqa: PLC0415
    from headnb.storage.reading import SHARED_FILE, open_scores  # noqa: PLC0415

    if not url_name(source).endswith(".json"):
        return open_scores(source)
    with local_copy(source, SHARED_FILE) as path:
        return HeadGrid.open(path)


def _not_found_message(word: str, namespace: Mapping[str, Any], wanted: str, fits: Callable[[Any], bool]) -> str:
    if word.isidentifier() and word in namespace and not isinstance(namespace[word], (str, Path)):
        return f"{word} has type {type(namespace[word]).__name__}; give a variable or a file {wanted}"
    names = fitting_names(namespace, fits)
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"; such variables: {', '.join(sorted(names)[:8])}" if names else ""
    if near:
        hint = f"; did you mean {near[0]}?"
    return f"{word!r} is neither a variable nor a file {wanted}{hint}"
