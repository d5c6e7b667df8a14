"""Variables that a magic's arguments can name: those of the calling function, then those of the notebook.

IPython's `@needs_local_scope` is not enough: it does not tell whether the calling function is nested in another one,
and for cell magics and aliases it passes the notebook's variables. So this module reads the calling frame.
"""

from __future__ import annotations

import inspect
import sys
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from types import CodeType, FrameType

_WRAPPER_PACKAGES = {
    "IPython",
    "ipykernel",
    "headnb",
    "timeit",
    "profile",
    "cProfile",
}  # packages between a caller and a magic
_TIMEIT = "<magic-timeit>"
_IPYTHON_NAMES = frozenset({"In", "Out", "exit", "quit", "get_ipython"})


def fitting_names(namespace: Mapping[str, Any], fits: Callable[[Any], bool]) -> list[str]:
    """Names to suggest: variables whose values `fits` accepts, without private ones and those that IPython sets."""
    return [
        name
        for name, value in namespace.items()
        if not name.startswith("_") and name not in _IPYTHON_NAMES and fits(value)
    ]


class Variables(Mapping[str, Any]):
    """Name -> value, innermost scope first. Holds a copy of a function's variables, never its frame.

    Attributes:
        own: variables of the calling function, or of the notebook if a cell calls the magic directly.
        notebook: variables of the notebook.
    """

    def __init__(self, notebook: dict[str, Any], frame: FrameType | None = None) -> None:
        self.notebook = self.own = notebook
        self._function: CodeType | None = None
        scopes = [notebook]
        if frame is not None and frame.f_locals is not notebook:
            outer = _function_around(frame)
            self._function = outer.f_code
            self.own = {**(outer.f_locals if outer is not frame else {}), **frame.f_locals}
            scopes = [self.own, frame.f_globals, notebook]
        self._all = ChainMap(*scopes)

    @classmethod
    def of_caller(cls, notebook: dict[str, Any]) -> Variables:
        """Variables visible to the code that called the current magic."""
        return cls(notebook, _calling_frame())

    def __getitem__(self, name: str) -> Any:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def check_visible(self, name: str) -> None:
        """Check that a name means the variable that Python would read.

        Python gives a nested function only those variables of the outer function that its code uses. A magic's line is
        a string, so a name in it may mean a variable of the outer function, which cannot be read.

        Raises:
            HeadnbError: the calling function is nested, and `name` is not one of its own variables.
        """
        if self._function is not None and _is_nested(self._function) and name not in self.own:
            raise HeadnbError(
                f"{name!r} is not a variable of this function, which is nested in another one: pass {name!r} as an "
                "argument (replace a comprehension by a for loop)"
            )

    def check_settable(self, name: str) -> None:
        """Check that `--into NAME` does not name a variable of the calling function: a magic cannot set those.

        Raises:
            HeadnbError: it names one.
        """
        code = self._function
        if code is not None and name in (*code.co_varnames, *code.co_cellvars, *code.co_freevars):
            raise HeadnbError(
                f"--into {name}: a magic cannot set {name}, a variable of the function {code.co_name}; "
                f"write {name} = %head..."
            )

    def set(self, name: str, value: object) -> None:
        """Set a variable of the notebook; print a note if a function called the magic."""
        self.notebook[name] = value
        if self._function is not None:
            print(f"{name} is set in the notebook, not in the function {self._function.co_name}")  # noqa: T201


def _calling_frame() -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  as IPython's own get_local_scope does
    while frame is not None and _is_wrapper_frame(frame):
        frame = frame.f_back
    return frame


def _function_around(frame: FrameType) -> FrameType:
    """Frame of the function whose line another magic, such as `%time`, runs; else `frame` itself."""
    caller = frame.f_back
    runs_a_line = frame.f_code.co_filename == _TIMEIT or (
        frame.f_code.co_name == "<module>" and frame.f_locals is not frame.f_globals
    )
    if not runs_a_line or caller is None or not _is_wrapper_frame(caller):
        return frame
    while caller is not None and _is_wrapper_frame(caller):
        caller = caller.f_back
    return frame if caller is None else _function_around(caller)


def _is_wrapper_frame(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in _WRAPPER_PACKAGES


def _is_nested(code: CodeType) -> bool:
    """Whether code is nested in a function; a class body has no such flag, but a qualified name."""
    return bool(code.co_flags & inspect.CO_NESTED) or "<locals>" in code.co_qualname
