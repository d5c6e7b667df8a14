"""What an adapter_config.json says, looked at before peft acts on it.

peft takes some entries as regular expressions, and matches them with the name of every module. An expression may take
longer than anybody waits, so those that headnb hands on are made of names, alternatives and at most two wildcards.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError
from headnb.models.provenance import adapter_config

if TYPE_CHECKING:
    from pathlib import Path

LONGEST = 2000  # characters of a pattern
MOST_WILDCARDS = 2
_WILDCARD = re.compile(r"(\.|\\d|\[0-9\])[*+]")
_NAMES = r"[\w.\\$^-]*"
# Names, and in parentheses alternatives of names, three times at most.
_SIMPLE = re.compile(rf"{_NAMES}(\([^()]*\){_NAMES}){{0,3}}")
_ALTERNATIVE = re.compile(r"([\w-]|\\[.d])+")
_ESCAPES = re.compile(r"\\(?![.d])|\\$")
_PATTERNS = ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern")
_SIDES = ("r", "init_r", "num_virtual_tokens", "encoder_hidden_size", "token_dim", "num_layers", "adapter_len")
USUAL_RANK = 256  # up to which a rank need not be that of a weight: others may replace it for every module
_KEYS = ("rank_pattern", "alpha_pattern")


def check_adapter_config(folder: Path) -> None:
    """Refuse what peft would take too long, or too much memory, to act on.

    Raises:
        HeadnbError: no JSON object; a pattern of modules that is not made of names, alternatives and two wildcards; a
            rank that its weights do not have.
    """
    config = adapter_config(folder)
    for name in _PATTERNS:
        held = config.get(name)
        # A list of modules is compared as text; lists of the other two are patterns.
        listed = (
            [held] if isinstance(held, str) else held if isinstance(held, list) and name != "target_modules" else []
        )
        for pattern in listed:
            _check_pattern(pattern, f"{folder}: {name}")
    for name in _KEYS:
        held = config.get(name)
        for pattern in held if isinstance(held, dict) else ():
            _check_pattern(pattern, f"{folder}: {name}")
    largest = max(USUAL_RANK, _largest_side(folder))
    for name, value in (*config.items(), *_entries_of(config.get("rank_pattern"))):
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name in _SIDES and value > largest:
            raise HeadnbError(f"{folder}: {name} is {value:.3g}, and no side of the weights is above {largest}")
    if config.get("layer_replication"):
        raise HeadnbError(
            f"{folder} has layer_replication, which headnb does not read: it makes a model of other layers"
        )


def _check_pattern(pattern: Any, where: str) -> None:
    text = pattern if isinstance(pattern, str) else ""
    groups = [group.removeprefix("?:").split("|") for group in re.findall(r"\(([^()]*)\)", text)]
    # The same name twice in a group would be tried twice, with all that follows it.
    plain = all(len({*group}) == len(group) and all(map(_ALTERNATIVE.fullmatch, group)) for group in groups)
    names, wildcards = _WILDCARD.subn("", text)
    simple = len(text) <= LONGEST and wildcards <= MOST_WILDCARDS and plain and _SIMPLE.fullmatch(names)
    if not simple or not isinstance(pattern, str) or _ESCAPES.search(names):
        raise HeadnbError(
            f"{where} is {str(pattern)!r:.80}, which headnb does not hand to peft: a pattern may hold names, "
            f"alternatives such as (q_proj|v_proj), and {MOST_WILDCARDS} wildcards such as .*; a list of names does"
        )


def _entries_of(ranks: Any) -> list[tuple[str, Any]]:
    return [("r", rank) for rank in ranks.values()] if isinstance(ranks, dict) else []


def _largest_side(folder: Path) -> int:
    """Of all tensors of the adapter."""
    from safetensors import safe_open  # noqa: PLC0415

    try:
        with safe_open(folder / "adapter_model.safetensors", framework="np") as opened:
            tensors: Any = opened
            shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118  it is no mapping
            return max((side for shape in shapes for side in shape), default=0)
    except Exception as error:
        raise HeadnbError(f"{folder / 'adapter_model.safetensors'} cannot be read: {error}") from error
