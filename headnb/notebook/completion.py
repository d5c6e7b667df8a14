"""Tab completion of models, tasks, methods, options and variables in the magics' lines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from headnb.display.role_marks import is_roles
from headnb.notebook import arguments
from headnb.notebook.known_values import known_values
from headnb.notebook.variables import fitting_names

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
    "headroles",
    "headfree",
    "headtasks",
    "headmodels",
    "headmethods",
)
_IDENTIFIER = "headnb"
_LINE = re.compile(rf"[^%]*%{{1,2}}({'|'.join(_MAGICS)})(\s.*)$", re.DOTALL)


def add_completion(shell: InteractiveShell, magics: HeadMagics) -> None:
    """Complete the arguments after each magic's name, also in `x = %headscore ...`.

    This is a matcher, not a `complete_command` hook: with a hook, IPython adds Jedi's completions of the line as Python
    code.
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
    """Remove the matcher of `add_completion`."""
    matchers = shell.Completer.custom_matchers
    matchers[:] = [matcher for matcher in matchers if getattr(matcher, "matcher_identifier", "") != _IDENTIFIER]


def _complete(magics: HeadMagics, name: str, line: str) -> list[str]:
    """Completions at the cursor; `line` is the text between the magic's name and the cursor."""
    words = line.split()
    typed = "" if line[-1:].isspace() else words.pop()
    assert magics.shell is not None  # noqa: S101  IPython's type allows a magic without a shell
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
    positionals = [action for action in actions if not action.option_strings]
    index = _count_positionals(words, options)
    if positionals and positionals[-1].nargs in ("*", "+"):
        index = min(index, len(positionals) - 1)
    return _values(magics, positionals[index].dest) if index < len(positionals) else []


def _count_positionals(words: list[str], options: dict[str, Any]) -> int:
    """Number of words that are neither options nor their values."""
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
    """Possible values of an argument: fitting variables and loaded models, then known names."""
    find: dict[str, Callable[[], list[str]]] = {
        "model": lambda: [*_matching_variables(magics, arguments.is_model), *_loaded(magics)],
        "models": lambda: _loaded(magics),
        "task": lambda: _matching_variables(magics, arguments.is_task),
        "track": lambda: _matching_variables(magics, arguments.is_task),
        "after": lambda: _matching_variables(magics, arguments.is_scores),
        "before": lambda: _matching_variables(magics, arguments.is_scores),
        "roles": lambda: _matching_variables(magics, is_roles),
        "picture": lambda: _matching_variables(magics, arguments.is_drawable),
    }
    own = find[what]() if what in find else []
    return list(dict.fromkeys([*own, *known_values(what)]))


def _loaded(magics: HeadMagics) -> list[str]:
    return [cached.name for cached in magics.model_cache]


def _matching_variables(magics: HeadMagics, fits: Callable[[Any], bool]) -> list[str]:
    """Names of the user's variables whose values `fits` accepts."""
    return fitting_names(magics.variables(), fits)
