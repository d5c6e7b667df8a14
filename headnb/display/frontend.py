"""Scripts of the built front end in the installed package."""

from __future__ import annotations

from pathlib import Path

from headnb.errors import HeadnbError

_STATIC = Path(__file__).parent.parent / "static"


def bundle(name: str) -> Path:
    """The path of a built script. Raises HeadnbError if the front end of this copy of headnb is not built."""
    path = _STATIC / name
    if not path.is_file():
        raise HeadnbError(
            "headnb's front end is not built; in a source checkout run: pip install -e . (Node is not needed)"
        )
    return path
