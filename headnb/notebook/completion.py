"""Tab completion of the magics' models, tasks, methods, options and variables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from headnb.models.registry import known_models
from headnb.notebook import arguments
from headnb.notebook.shared_options import SCORE
from headnb.tasks.loading import known_tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

    from headnb.notebook.magics import HeadMagics

_MAGICS = (
    "headscore",
    "headsft",
    "headablate",
    "headgrid",
    "headdiff",
    "headfree",
    "headtasks",
    "headmodels",
    "headmethods",
)
_IDENTIFIER = "headnb"
_LINE = re.compile(rf"[^%]*%{{1,2}}({'|'.join(_MAGICS)})(\s.*)$", re.DOTALL)


def add_completion(shell: InteractiveShell, magics: HeadMagics) -> None:
    """Complete what stands behind each magic's name, also in `x = %headscore ...`.

    A matcher rather than a `complete_command` hook: beside a hook's words IPython lists what Jedi makes of the line,
    as if it were Python.
    """

    @context_matcher(identifier=_IDENTIFIER)  # type: ignore[untyped-decorator]
    def words(context: CompletionContext) -> SimpleMatcherResult:
        found = _LINE.match(context.text_until_cursor)
        if found is None:
            return {"completions": [], "suppress": False}
        fitting = [word for word in _complete(magics, *found.groups()) if word.startswith(context.token)]
        completions = [SimpleCompletion(word, type="magic") for word in fitting]
        return {"completions": completions, "suppress": bool(completions), "ordered": True}

    remove_completion(shell)
    shell.Completer.custom_matchers.append(words)


def remove_completion(shell: InteractiveShell) -> None:
    """Take away what `add_completion` added."""
    matchers = shell.Completer.custom_matchers
    matchers[:] = [one for one in matchers if getattr(one, "matcher_identifier", "") != _IDENTIFIER]


def _complete(magics: HeadMagics, name: str, line: str) -> list[str]:
    """The words that may stand where the cursor is; `line` is what stands behind the magic's name."""
    words = line.split()
    typed = "" if line[-1:].isspace() else words.pop()
    assert magics.shell is not None  # noqa: S101  there is one where words are completed
    magic: Any = magics.shell.find_line_magic(name)  # type: ignore[no-untyped-call]
    actions = magic.parser._actions  # noqa: SLF001  argparse has no public form
    options = {text: action for action in actions for text in action.option_strings}
    option, equals, _ = typed.partition("=")
    if typed.startswith("-") and not equals:
        return [text for text in options if text.startswith("--")]
    if not equals:
        option = words[-1] if words else ""
    if option in options and options[option].nargs != 0:
        return _values(magics, options[option].dest)
    positions = [action for action in actions if not action.option_strings]
    place = _positionals(words, options)
    if positions and positions[-1].nargs == "*":
        place = min(place, len(positions) - 1)
    return _values(magics, positions[place].dest) if place < len(positions) else []


def _positionals(words: list[str], options: dict[str, Any]) -> int:
    """How many words are neither options nor their values."""
    count, value_follows = 0, False
    for word in words:
        if value_follows:
            value_follows = False
        elif word.startswith("-"):
            value_follows = word in options and options[word].nargs != 0
        else:
            count += 1
    return count


def _values(magics: HeadMagics, what: str) -> list[str]:
    """What an argument may be; empty where only the user knows."""
    find: dict[str, Callable[[HeadMagics], list[str]]] = {
        "model": _models,
        "task": _tasks,
        "track": _tasks,
        "method": _methods,
        "models": lambda magics: [cached.name for cached in magics.model_cache],
        "after": lambda magics: _matching_variables(magics, arguments.is_scores),
        "before": lambda magics: _matching_variables(magics, arguments.is_scores),
        "picture": lambda magics: _matching_variables(magics, arguments.is_drawable),
        "word": lambda _: sorted({card.group for card in known_tasks().values()}),
    }
    if what in find:
        return find[what](magics)
    return [choice for option in SCORE if option.name == what for choice in option.choices]


def _models(magics: HeadMagics) -> list[str]:
    loaded = [cached.name for cached in magics.model_cache]
    return list(dict.fromkeys([*_matching_variables(magics, arguments.is_model), *loaded, *known_models()]))


def _tasks(magics: HeadMagics) -> list[str]:
    return [*_matching_variables(magics, arguments.is_task), *known_tasks()]


def _methods(_: HeadMagics) -> list[str]:
    from headnb.scoring.registry import methods  # noqa: PLC0415  loads torch

    return list(methods())


def _matching_variables(magics: HeadMagics, fits: Callable[[Any], bool]) -> list[str]:
    """The user's variables that hold something fitting."""
    hidden = getattr(magics.shell, "user_ns_hidden", {})
    mine = {name: value for name, value in magics.variables().items() if name not in hidden}
    return [name for name, value in mine.items() if not name.startswith("_") and fits(value)]
