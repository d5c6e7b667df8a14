"""Encoded rows: token ids, and the masks, positions and lengths that say what of them a model sees and is trained on.

Scores are computed on samples alone, without padding. So masked positions are dropped, and a packed row, in which
several samples follow each other, is split at the places where its positions begin again.
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

# Other inputs of models or losses, as the model classes and collators of transformers name them.
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
        number: its place in a packed row, counted from 0; None where the row is one sample.
        input_ids: the token ids that are not masked.
        labels: of these tokens, -100 where one is not part of the answer.
    """

    number: int | None
    input_ids: list[int]
    labels: list[int]

    @property
    def has_answer(self) -> bool:
        """Whether there is a token to predict. Nothing stands before the first token that could predict it."""
        return any(label != IGNORED for label in self.labels[1:])


def is_other_input(name: object) -> bool:
    """Whether a column holds something that a model or its loss is given beside the tokens, and that is not read."""
    return isinstance(name, str) and bool(_OTHER_INPUTS.fullmatch(name))


def read_segments(row: Mapping[str, Any], where: str) -> list[Segment]:
    """The samples of one encoded row that have an answer.

    Raises:
        HeadnbError: an input that is not read, parts of different lengths, positions that neither count on nor begin
            again, masks and labels that contradict each other, or no answer.
    """
    check_no_extra_inputs(row, where)
    input_ids = integers(row["input_ids"], f"{where}: input_ids")
    labels = _labels(row, input_ids, where)
    seen = _unmasked_positions(row, len(input_ids), where)
    segments = [
        Segment(number, [input_ids[place] for place in places], [labels[place] for place in places])
        for number, places in _split_packed(row, seen, len(input_ids), where)
    ]
    for segment in segments:
        _check_tokens(segment, where)
    if not (answered := [segment for segment in segments if segment.has_answer]):
        raise HeadnbError(f"{where}: no token has a label, so there is no answer to score")
    return answered


def check_no_extra_inputs(row: Mapping[str, Any], where: str) -> None:
    """Raise HeadnbError where the model would be given more than tokens. Token types that are all 0 change nothing."""
    for name, value in row.items():
        if value is None or not is_other_input(name):
            continue
        if name.endswith("token_type_ids") and not any(integers(value, f"{where}: {name}")):
            continue
        raise HeadnbError(f"{where} has {name!r}, which is not read: samples are input_ids with labels; remove it")


def _labels(row: Mapping[str, Any], input_ids: list[int], where: str) -> list[int]:
    """The labels, or the token ids where all masks are 1, as TRL builds them."""
    masks = {name: _read_mask(row, name, len(input_ids), where) for name in MASK_COLUMNS if row.get(name) is not None}
    if row.get("labels") is None and (masks or "labels" not in row):
        if not masks:
            raise HeadnbError(
                f"{where} has input_ids but neither 'labels' nor 'completion_mask' nor 'assistant_masks';"
                f" it has {column_names(row)}"
            )
        bits = zip(*masks.values(), strict=True)
        return [token if all(of) else IGNORED for token, of in zip(input_ids, bits, strict=True)]
    labels = integers(row["labels"], f"{where}: labels")
    if len(labels) != len(input_ids):
        raise HeadnbError(f"{where}: {len(input_ids)} input_ids but {len(labels)} labels")
    for name, mask in masks.items():
        if any(label != IGNORED and not bit for label, bit in zip(labels, mask, strict=True)):
            raise HeadnbError(f"{where}: labels are set where {name} is 0; give one of the two")
    return labels


def _unmasked_positions(row: Mapping[str, Any], length: int, where: str) -> list[int]:
    """The places of tokens that are not masked."""
    if row.get("attention_mask") is None:
        return list(range(length))
    mask = _read_mask(row, "attention_mask", length, where)
    return [place for place, bit in enumerate(mask) if bit]


def _read_mask(row: Mapping[str, Any], name: str, length: int, where: str) -> list[int]:
    bits = integers(row[name], f"{where}: {name}")
    if len(bits) != length:
        article = "an" if name.startswith("a") else "a"
        raise HeadnbError(f"{where}: {length} input_ids but {article} {name} of {len(bits)}")
    if not set(bits) <= {0, 1}:
        raise HeadnbError(f"{where}: {name} may hold 0 and 1 only")
    return bits


def _split_packed(
    row: Mapping[str, Any], seen: list[int], length: int, where: str
) -> list[tuple[int | None, list[int]]]:
    """The places of each sample's tokens, with the sample's number in a packed row.

    A row whose other parts are single tokens is one sample with padding, as TRL pads packed rows.
    """
    packed = row.get("seq_lengths") is not None
    starts = _starts_by_lengths(row["seq_lengths"], seen, length, where) if packed else None
    if row.get("position_ids") is not None:
        by_positions = _starts_by_positions(row["position_ids"], seen, length, where)
        if starts is not None and by_positions != starts:
            raise HeadnbError(f"{where}: seq_lengths and position_ids do not begin samples at the same tokens")
        starts = by_positions
    edges = [*(starts or [0]), len(seen)]
    parts = [seen[start:end] for start, end in itertools.pairwise(edges)]
    parts = [part for part in parts if len(part) > 1]
    return list(enumerate(parts)) if packed or len(parts) > 1 else [(None, part) for part in parts]


def _starts_by_lengths(lengths: Any, seen: list[int], length: int, where: str) -> list[int]:
    """Where in `seen` samples begin, by the number of tokens of each."""
    lengths = integers(lengths, f"{where}: seq_lengths")
    if min(lengths, default=0) < 0 or sum(lengths) != length:
        raise HeadnbError(f"{where}: {length} input_ids, but seq_lengths add up to {sum(lengths)}")
    sample = [number for number, tokens in enumerate(lengths) for _ in range(tokens)]
    return [at for at, place in enumerate(seen) if at == 0 or sample[place] != sample[seen[at - 1]]]


def _starts_by_positions(positions: Any, seen: list[int], length: int, where: str) -> list[int]:
    """Where in `seen` samples begin, by positions that begin again at 0; padding on the left may shift the first."""
    positions = integers(positions, f"{where}: position_ids")
    if len(positions) != length:
        raise HeadnbError(f"{where}: {length} input_ids but {len(positions)} position_ids")
    starts = []
    for at, place in enumerate(seen):
        if positions[place] == 0 or (at == 0 and positions[place] == place):
            starts.append(at)
        elif at == 0 or positions[place] != positions[seen[at - 1]] + 1:
            raise HeadnbError(
                f"{where}: position_ids neither count on nor begin again at 0 (token {place} has {positions[place]})"
            )
    return starts


def _check_tokens(segment: Segment, where: str) -> None:
    if any(token < 0 for token in segment.input_ids) or any(label < 0 and label != IGNORED for label in segment.labels):
        raise HeadnbError(f"{where}: token ids are 0 or more, and a label that is not scored is {IGNORED}")
    if any(token >= 2**31 for token in (*segment.input_ids, *segment.labels)):
        raise HeadnbError(f"{where}: a token id has more than 31 bits")
