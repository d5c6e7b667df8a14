"""Checks of a PEFT adapter's adapter_config.json, made before peft reads it.

peft treats some entries as regular expressions and matches them with the name of every module. A malicious expression
can take practically forever. So headnb passes only patterns of names, alternatives and at most two wildcards to peft.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError
from headnb.models.provenance import adapter_config

if TYPE_CHECKING:
    from pathlib import Path

LONGEST = 2000  # characters in a pattern
MOST_WILDCARDS = 2
_WILDCARD = re.compile(r"(\.|\\d|\[0-9\])[*+]")
_NAMES = r"[\w.\\$^-]*"
# Names, with at most three groups of alternatives in parentheses.
_SIMPLE = re.compile(rf"{_NAMES}(\([^()]*\){_NAMES}){{0,3}}")
_ALTERNATIVE = re.compile(r"([\w-]|\\[.d])+")
_ESCAPES = re.compile(r"\\(?![.d])|\\$")
_PATTERNS = ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern")
_SIDES = ("r", "init_r", "num_virtual_tokens", "encoder_hidden_size", "token_dim", "num_layers", "adapter_len")
USUAL_RANK = 256  # a rank up to this is accepted even if no weight is that large, since rank_pattern may override it
_KEYS = ("rank_pattern", "alpha_pattern")


def check_adapter_config(folder: Path) -> None:
    """Refuse an adapter config that would cost peft too much time or memory.

    Raises:
        HeadnbError: not a JSON object; a module pattern that is more than names, alternatives and two wildcards; or a
            rank larger than every side of the adapter's weights.
    """
    config = adapter_config(folder)
    for name in _PATTERNS:
        value = config.get(name)
        # peft compares a list in target_modules as text; it treats the lists of all other entries as patterns.
        patterns = (
            [value] if isinstance(value, str) else value if isinstance(value, list) and name != "target_modules" else []
        )
        for pattern in patterns:
            _check_pattern(pattern, f"{folder}: {name}")
    for name in _KEYS:
        value = config.get(name)
        for pattern in value if isinstance(value, dict) else ():
            _check_pattern(pattern, f"{folder}: {name}")
    largest = max(USUAL_RANK, _largest_side(folder))
    for name, value in (*config.items(), *_entries_of(config.get("rank_pattern"))):
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name in _SIDES and value > largest:
            raise HeadnbError(f"{folder}: {name} is {value:.3g}, but no side of the weights is above {largest}")
    if config.get("layer_replication"):
        raise HeadnbError(
            f"{folder} has layer_replication, which headnb does not support, because it changes the layers of the model"
        )


def _check_pattern(pattern: Any, where: str) -> None:
    text = pattern if isinstance(pattern, str) else ""
    groups = [group.removeprefix("?:").split("|") for group in re.findall(r"\(([^()]*)\)", text)]
    # A name listed twice in a group would double the number of matches that the engine tries.
    plain = all(len({*group}) == len(group) and all(map(_ALTERNATIVE.fullmatch, group)) for group in groups)
    names, wildcards = _WILDCARD.subn("", text)
    simple = len(text) <= LONGEST and wildcards <= MOST_WILDCARDS and plain and _SIMPLE.fullmatch(names)
    if not simple or not isinstance(pattern, str) or _ESCAPES.search(names):
        raise HeadnbError(
            f"{where} is {str(pattern)!r:.80}, which headnb does not pass to peft: a pattern may contain names, "
            f"alternatives such as (q_proj|v_proj), and {MOST_WILDCARDS} wildcards such as .*; use a list of names"
        )


def _entries_of(ranks: Any) -> list[tuple[str, Any]]:
    return [("r", rank) for rank in ranks.values()] if isinstance(ranks, dict) else []


def _largest_side(folder: Path) -> int:
    """The largest dimension of all tensors of the adapter."""
    from safetensors import safe_open  # noqa: PLC0415

    try:
        with safe_open(folder / "adapter_model.safetensors", framework="np") as opened:
            tensors: Any = opened
            shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118  not a mapping
            return max((side for shape in shapes for side in shape), default=0)
    except Exception as error:
        raise HeadnbError(f"{folder / 'adapter_model.safetensors'} cannot be read: {error}") from error
