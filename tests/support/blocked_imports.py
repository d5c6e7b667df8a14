"""Simulation of packages that are not installed."""

from __future__ import annotations

import contextlib
import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


# Packages that keep a reference to a blocked package after their import, and must be imported again too.
_IMPORTED_BY = {"nbclient": "papermill", "pycosat": "reasoning_gym"}


class _Blocker(MetaPathFinder):
    def __init__(self, package: str, error: ImportError) -> None:
        self.package, self.error = package, error

    def find_spec(self, name: str, *_: object) -> None:
        if name == self.package or name.startswith(f"{self.package}."):
            raise self.error


@contextlib.contextmanager
def blocked(package: str, error: ImportError | None = None) -> Iterator[None]:
    """Let imports of the package and its modules raise an error, by default that of a missing package."""
    missing = ModuleNotFoundError(f"No module named {package!r}", name=package)
    prefixes = (f"{package}.", f"{_IMPORTED_BY.get(package, package)}.")

    def remove_modules() -> dict[str, ModuleType]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if f"{name}.".startswith(prefixes)}

    blocker = _Blocker(package, error or missing)
    removed = remove_modules()
    try:
        with mock.patch.object(sys, "meta_path", [blocker, *sys.meta_path]):
            yield
    finally:
        remove_modules()
        sys.modules.update(removed)  # other new modules stay, because some cannot be imported twice
