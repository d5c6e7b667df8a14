"""Names of heads: L3H5 is head 5 of layer 3."""

from __future__ import annotations

import re
from collections.abc import Iterable

from headnb.errors import HeadnbError


def head_name(layer: int, head: int) -> str:
    """Name of a head, such as `L3H10`."""
    return f"L{layer}H{head}"


def parse_heads(names: str | Iterable[str]) -> list[tuple[int, int]]:
    """Parse `"L3H10,L7H1"` or `["L3H10", "L7H1"]` to pairs (layer, head).

    Raises:
        HeadnbError: there is no name, or a name is not valid.
    """
    if not isinstance(names, Iterable):
        raise HeadnbError(f"{names!r:.60} is not a head; write layer 3, head 10 as L3H10")
    parts = names.replace(",", " ").split() if isinstance(names, str) else list(names)
    if not parts:
        raise HeadnbError("no heads given; write heads as L3H10, several as L3H10,L7H1")
    heads = []
    for part in parts:
        match = re.fullmatch(r"[Ll](\d+)[Hh](\d+)", part.strip()) if isinstance(part, str) else None
        if match is None:
            raise HeadnbError(f"{part!r:.60} is not a head; write layer 3, head 10 as L3H10")
        heads.append((int(match[1]), int(match[2])))
    return heads
