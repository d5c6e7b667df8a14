"""The built front end, as it stands in the installed package."""

from __future__ import annotations

from pathlib import Path

from headnb.errors import HeadnbError

_STATIC = Path(__file__).parent.parent / "static"


def bundle(name: str) -> Path:
    """The path of a built script. Raises HeadnbError where this copy of headnb was never built."""
    path = _STATIC / name
    if not path.is_file():
        raise HeadnbError(
            "headnb's front end is not built here; in a source checkout: pip install -e . (needs no Node)"
        )
    return path
