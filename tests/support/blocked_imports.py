"""Packages that are installed, made to look as if they were not."""

from __future__ import annotations

import contextlib
import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


# A package that was imported before keeps what it imported: it is forgotten with what is blocked.
_IMPORTED_BY = {"nbclient": "papermill", "pycosat": "reasoning_gym"}


class _Blocker(MetaPathFinder):
    def __init__(self, package: str, error: ImportError) -> None:
        self.package, self.error = package, error

    def find_spec(self, name: str, *_: object) -> None:
        if name == self.package or name.startswith(f"{self.package}."):
            raise self.error


@contextlib.contextmanager
def blocked(package: str, error: ImportError | None = None) -> Iterator[None]:
    """Importing the package, or anything of it, raises the error, by default the one for a package that is missing."""
    missing = ModuleNotFoundError(f"No module named {package!r}", name=package)
    forgotten = (f"{package}.", f"{_IMPORTED_BY.get(package, package)}.")

    def forget() -> dict[str, ModuleType]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if f"{name}.".startswith(forgotten)}

    blocker = _Blocker(package, error or missing)
    kept = forget()
    try:
        with mock.patch.object(sys, "meta_path", [blocker, *sys.meta_path]):
            yield
    finally:
        forget()
        sys.modules.update(kept)  # what else was imported meanwhile stays: some modules cannot be imported twice
