"""Variables that the words of a magic's line may name: the calling function's own, then the notebook's.

IPython's `@needs_local_scope` hands over a function's variables, but not whether that function lies inside another,
and it hands over the notebook's for cell magics and aliases. So the calling frame is read here.
"""

from __future__ import annotations

import inspect
import sys
from collections import ChainMap
from collections.abc import Iterator, Mapping
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


class Variables(Mapping[str, Any]):
    """Name -> value, the innermost first. Holds a copy of a function's variables, never its frame.

    Attributes:
        own: the calling function's variables; the notebook's where a cell itself calls.
        notebook: the notebook's variables.
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
        """Variables seen by the code that called the magic that calls this."""
        return cls(notebook, _calling_frame())

    def __getitem__(self, name: str) -> Any:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def check_visible(self, name: str) -> None:
        """Refuse a variable that may be another one than Python would read.

        Of the function around it, a nested function sees only the variables that its own text uses; a magic's line is
        text in quotes, so the name on it may stand for a variable of that outer function, which cannot be read.

        Raises:
            HeadnbError: the caller is nested, and the variable is not its own.
        """
        if self._function is not None and _is_nested(self._function) and name not in self.own:
            raise HeadnbError(
                f"{name!r} is not a variable of this function, which is nested in another one: pass {name!r} as an "
                "argument (in place of a comprehension write a for loop)"
            )

    def check_settable(self, name: str) -> None:
        """Refuse `--into NAME` where NAME is a variable of the calling function, which a magic cannot set.

        Raises:
            HeadnbError: it is one.
        """
        code = self._function
        if code is not None and name in (*code.co_varnames, *code.co_cellvars, *code.co_freevars):
            raise HeadnbError(
                f"--into {name}: a magic cannot set {name}, a variable of the function {code.co_name}; "
                f"write {name} = %head..."
            )

    def set(self, name: str, value: object) -> None:
        """Set a variable of the notebook, and say so where the caller is not the notebook itself."""
        self.notebook[name] = value
        if self._function is not None:
            print(f"{name} is set in the notebook, outside of {self._function.co_name}")  # noqa: T201


def _calling_frame() -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  as IPython's own get_local_scope does
    while frame is not None and _is_wrapper_frame(frame):
        frame = frame.f_back
    return frame


def _function_around(frame: FrameType) -> FrameType:
    """The function whose line is run by a magic around it, such as `%time`; else the frame itself."""
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
    """Whether code lies in a function; a class body there has no flag that says so, but a name."""
    return bool(code.co_flags & inspect.CO_NESTED) or "<locals>" in code.co_qualname
