"""Names of heads: layer 3, head 5 is written L3H5."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Iterable


def head_name(layer: int, head: int) -> str:
    """`L3H10`."""
    return f"L{layer}H{head}"


def parse_heads(names: str | Iterable[str]) -> list[tuple[int, int]]:
    """(layer, head) of each of `"L3H10,L7H1"` or `["L3H10", "L7H1"]`."""
    parts = names.replace(",", " ").split() if isinstance(names, str) else list(names)
    if not parts:
        raise HeadnbError("no head is named; write heads as L3H10, several as L3H10,L7H1")
    heads = []
    for part in parts:
        found = re.fullmatch(r"[Ll](\d+)[Hh](\d+)", part.strip())
        if found is None:
            raise HeadnbError(f"{part!r} is not a head; write layer 3, head 10 as L3H10")
        heads.append((int(found[1]), int(found[2])))
    return heads
