"""Encoded rows: token ids with masks, positions and lengths.

Scores are computed on single samples without padding. So masked tokens are dropped. A packed row, which concatenates
several samples, is split where its positions restart.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError
from headnb.tasks.row_values import IGNORED, column_names, integers

if TYPE_CHECKING:
    from collections.abc import Mapping

SEQUENCE_COLUMNS = ("attention_mask", "position_ids", "seq_lengths")
MASK_COLUMNS = ("completion_mask", "assistant_masks")

# Names of other inputs of models or losses in the model classes and collators of transformers.
_OTHER_INPUTS = re.compile(
    r"(inputs?|prompt|image|video|audio)_embeds|past_key_values|cache_position|(cross_attn_)?head_mask|loss_(mask|weights)"
    r"|cu_?seq_?lens?(_[qk])?|seq_idx|(en|de)coder_\w+|cross_attention_\w+|pixel_\w+|(image|video|audio)_(grid_thw|sizes)"
    r"|(image|video|audio|feature)_(features|attention_mask)|input_(features\w*|values)|aspect_ratio_\w+"
    r"|(mm_)?token_type_ids"
)


@dataclass(frozen=True)
class Segment:
    """One sample of an encoded row.

    Attributes:
        number: index of the sample in a packed row, from 0; None if the row is a single sample.
        input_ids: the token ids that are not masked.
        labels: labels of these tokens; -100 on tokens outside the answer.
    """

    number: int | None
    input_ids: list[int]
    labels: list[int]

    @property
    def has_answer(self) -> bool:
        """Whether there is a token to predict. The first token has no earlier token that could predict it."""
        return any(label != IGNORED for label in self.labels[1:])


def is_other_input(name: object) -> bool:
    """Whether a column is an unsupported input of a model or its loss, other than tokens."""
    return isinstance(name, str) and bool(_OTHER_INPUTS.fullmatch(name))


def read_segments(row: Mapping[str, Any], where: str) -> list[Segment]:
    """The samples of one encoded row that have an answer.

    Raises:
        HeadnbError: an unsupported input, columns of different lengths, positions that neither increase by 1 nor
            restart at 0, labels that contradict a mask or the token ids, an invalid token id, or no answer.
    """
    check_no_extra_inputs(row, where)
    input_ids = integers(row["input_ids"], f"{where}: input_ids")
    labels = _labels(row, input_ids, where)
    unmasked = _unmasked_positions(row, len(input_ids), where)
    segments = [
        Segment(number, [input_ids[index] for index in indices], [labels[index] for index in indices])
        for number, indices in _split_packed(row, unmasked, len(input_ids), where)
    ]
    for segment in segments:
        _check_tokens(segment, where)
    if not (answered := [segment for segment in segments if segment.has_answer]):
        raise HeadnbError(f"{where}: no token has a label, so there is no answer to score")
    return answered


def check_no_extra_inputs(row: Mapping[str, Any], where: str) -> None:
    """Raise HeadnbError if the row has model inputs other than tokens. Token types that are all 0 have no effect."""
    for name, value in row.items():
        if value is None or not is_other_input(name):
            continue
        if name.endswith("token_type_ids") and not any(integers(value, f"{where}: {name}")):
            continue
        raise HeadnbError(f"{where} has {name!r}, which is not supported: samples are input_ids with labels; remove it")


def _labels(row: Mapping[str, Any], input_ids: list[int], where: str) -> list[int]:
    """The labels of a row. Without labels, built from the masks as in TRL: the token id where all masks are 1."""
    masks = {name: _read_mask(row, name, len(input_ids), where) for name in MASK_COLUMNS if row.get(name) is not None}
    if row.get("labels") is None and (masks or "labels" not in row):
        if not masks:
            raise HeadnbError(
                f"{where} has input_ids but neither 'labels' nor 'completion_mask' nor 'assistant_masks';"
                f" it has {column_names(row)}"
            )
        rows = zip(*masks.values(), strict=True)
        return [token if all(bits) else IGNORED for token, bits in zip(input_ids, rows, strict=True)]
    labels = integers(row["labels"], f"{where}: labels")
    if len(labels) != len(input_ids):
        raise HeadnbError(f"{where}: {len(input_ids)} input_ids but {len(labels)} labels")
    for name, mask in masks.items():
        if any(label != IGNORED and not bit for label, bit in zip(labels, mask, strict=True)):
            raise HeadnbError(f"{where}: labels are set where {name} is 0; give either labels or {name}")
    return labels


def _unmasked_positions(row: Mapping[str, Any], length: int, where: str) -> list[int]:
    """The indices of tokens that the attention mask does not hide."""
    if row.get("attention_mask") is None:
        return list(range(length))
    mask = _read_mask(row, "attention_mask", length, where)
    return [index for index, bit in enumerate(mask) if bit]


def _read_mask(row: Mapping[str, Any], name: str, length: int, where: str) -> list[int]:
    bits = integers(row[name], f"{where}: {name}")
    if len(bits) != length:
        raise HeadnbError(f"{where}: {length} input_ids but {len(bits)} entries in {name}")
    if not set(bits) <= {0, 1}:
        raise HeadnbError(f"{where}: {name} may contain only 0 and 1")
    return bits


def _split_packed(
    row: Mapping[str, Any], unmasked: list[int], length: int, where: str
) -> list[tuple[int | None, list[int]]]:
    """The token indices of each sample, with the number of the sample in a packed row.

    Parts of a single token are dropped as padding: TRL pads position_ids with 0. If only one part remains, and the row
    has no seq_lengths, the row is a single sample.
    """
    packed = row.get("seq_lengths") is not None
    starts = _starts_by_lengths(row["seq_lengths"], unmasked, length, where) if packed else None
    if row.get("position_ids") is not None:
        by_positions = _starts_by_positions(row["position_ids"], unmasked, length, where)
        if starts is not None and by_positions != starts:
            raise HeadnbError(f"{where}: seq_lengths and position_ids disagree on where samples start")
        starts = by_positions
    edges = [*(starts or [0]), len(unmasked)]
    parts = [unmasked[start:end] for start, end in itertools.pairwise(edges)]
    parts = [part for part in parts if len(part) > 1]
    return list(enumerate(parts)) if packed or len(parts) > 1 else [(None, part) for part in parts]


def _starts_by_lengths(lengths: Any, unmasked: list[int], length: int, where: str) -> list[int]:
    """The indices into `unmasked` at which samples start, by the length of each sample."""
    lengths = integers(lengths, f"{where}: seq_lengths")
    if min(lengths, default=0) < 0 or sum(lengths) != length:
        raise HeadnbError(f"{where}: {length} input_ids, but seq_lengths add up to {sum(lengths)}")
    sample = [number for number, tokens in enumerate(lengths) for _ in range(tokens)]
    return [at for at, index in enumerate(unmasked) if at == 0 or sample[index] != sample[unmasked[at - 1]]]


def _starts_by_positions(positions: Any, unmasked: list[int], length: int, where: str) -> list[int]:
    """The indices into `unmasked` at which positions restart at 0.

    After padding on the left, the first position may be its index in the row.
    """
    positions = integers(positions, f"{where}: position_ids")
    if len(positions) != length:
        raise HeadnbError(f"{where}: {length} input_ids but {len(positions)} position_ids")
    starts = []
    for at, index in enumerate(unmasked):
        if positions[index] == 0 or (at == 0 and positions[index] == index):
            starts.append(at)
        elif at == 0 or positions[index] != positions[unmasked[at - 1]] + 1:
            raise HeadnbError(
                f"{where}: position_ids must increase by 1 or restart at 0 (token {index} has {positions[index]})"
            )
    return starts


def _check_tokens(segment: Segment, where: str) -> None:
    if any(token < 0 for token in segment.input_ids):
        raise HeadnbError(f"{where}: token ids must be 0 or more")
    if any(token >= 2**31 for token in segment.input_ids):
        raise HeadnbError(f"{where}: a token id has more than 31 bits")
    for index, (token, label) in enumerate(zip(segment.input_ids, segment.labels, strict=True)):
        if label not in (IGNORED, token):
            raise HeadnbError(
                f"{where}: labels must equal input_ids or be {IGNORED}; headnb shifts them itself (token {index} is "
                f"{token}, its label {label})"
            )
