"""From encoded samples to batches: which samples together, in which order, and their tensors.

Batches hold samples of nearly one length, so that no pass is spent on padding; yet the order of work stays fair:
samples are shuffled into blocks, sorted by length inside a block only, and a block's batches run in random order, so
that what is done at a block's end is a random part of the task.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from headnb.errors import HeadnbError, unknown_name
from headnb.tasks.samples import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from headnb.engine.tokenization import EncodedSample

SIDES = ("right", "left")
BLOCK = 256  # samples that are sorted by length together

Side: TypeAlias = Literal["right", "left"]


@dataclass(frozen=True)
class BatchPlan:
    """In which order samples are scored, and together with which others.

    `order` (n,) holds the positions of the samples in the order of work, `batch` (n,) the number of the batch that
    each place of `order` belongs to; batches are numbered in the order of work.
    """

    order: np.ndarray
    batch: np.ndarray

    def batches(self) -> list[np.ndarray]:
        """The places in the order of work (not the samples' positions) of each batch."""
        edges = np.flatnonzero(np.diff(self.batch)) + 1
        return np.split(np.arange(len(self.order)), edges)


def plan_batches(
    lengths: np.ndarray,
    *,
    batch_tokens: int,
    packed: bool = False,
    seed: int = 0,
    max_padding: float = 0.05,
    block: int = BLOCK,
) -> BatchPlan:
    """Group samples into batches of at most `batch_tokens` tokens and at most `max_padding` padding.

    A sample longer than the budget gets a batch of its own.

    Args:
        lengths: tokens of each sample, (n,).
        batch_tokens: the token budget of a batch, padding included.
        packed: batches will be packed: there is no padding to avoid, and so nothing is sorted.
        seed: of the shuffles.
        max_padding: a batch closes when another sample would push its share of padding over this.
        block: samples that are sorted by length together.
    """
    if batch_tokens < 1:
        raise HeadnbError(f"batch_tokens must be at least 1, not {batch_tokens}")
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(lengths))
    if packed:
        groups = split_at_budget(lengths[shuffled], batch_tokens)
        return BatchPlan(shuffled, np.repeat(np.arange(len(groups)), [len(group) for group in groups]))
    batches: list[list[int]] = []
    for start in range(0, len(lengths), block):
        members = shuffled[start : start + block]
        grouped = _group(members[np.argsort(lengths[members], kind="stable")], lengths, batch_tokens, max_padding)
        batches += [grouped[place] for place in random.permutation(len(grouped))]
    sizes = [len(batch) for batch in batches]
    return BatchPlan(np.concatenate(batches), np.repeat(np.arange(len(batches)), sizes))


def split_at_budget(tokens: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Places 0 to n - 1 in consecutive groups of at most `batch_tokens` tokens, or of one place that has more."""
    groups: list[list[int]] = []
    total = 0
    for place, length in enumerate(tokens.tolist()):
        if not groups or total + length > batch_tokens:
            groups.append([])
            total = 0
        groups[-1].append(place)
        total += length
    return [np.array(group) for group in groups]


def _group(by_length: np.ndarray, lengths: np.ndarray, batch_tokens: int, max_padding: float) -> list[list[int]]:
    batches: list[list[int]] = []
    tokens = 0
    for position in by_length:
        length = int(lengths[position])
        computed = length * (len(batches[-1]) + 1) if batches else 0
        if not batches or computed > batch_tokens or computed - tokens - length > max_padding * computed:
            batches.append([])
            tokens = 0
        batches[-1].append(int(position))
        tokens += length
    return batches


class Answers(NamedTuple):
    """The answer tokens of a batch, N in all, sample by sample."""

    token_indices: torch.Tensor
    """(N,): where each is predicted, one token before it, in the batch's tokens one behind the other."""
    tokens: torch.Tensor
    """(N,): what each is."""
    samples: torch.Tensor
    """(N,): the sample of each."""
    counts: torch.Tensor
    """(B,): how many each sample has."""


@dataclass(frozen=True)
class Batch:
    """Tensors of some samples: padded to a row each, or packed one behind the other into one row.

    Padding on the right needs no mask: a decoder's tokens never see what comes after them, and no loss is taken on
    padding. So attention runs unmasked, on the fast kernels. Padding on the left needs mask and positions.
    """

    input_ids: torch.Tensor
    """(B, T), or (1, N) of a packed batch."""
    labels: torch.Tensor
    """Of the same shape; -100 outside the answer, and on a sample's first token, which nothing predicts."""
    attention_mask: torch.Tensor | None = None
    """(B, T), 1 on tokens; None without padding on the left."""
    lengths: tuple[int, ...] | None = None
    """Tokens of each sample of a packed batch; None of a padded one."""
    token_mask: torch.Tensor | None = None
    """(B, T), true on the samples' tokens and false on padding; None where there is none."""

    def __len__(self) -> int:
        """How many samples."""
        return len(self.input_ids) if self.lengths is None else len(self.lengths)

    @cached_property
    def answers(self) -> Answers:
        """What the loss is a mean over; found here once, since looking for it on a device would wait for the device."""
        labels = self.labels.flatten()
        places = (labels != IGNORED).nonzero()[:, 0]
        samples = self.sample_of_token.flatten()[places]
        return Answers(places - 1, labels[places], samples, samples.bincount(minlength=len(self)))

    @property
    def longest_sample(self) -> int:
        """Tokens of the longest sample."""
        return self.input_ids.shape[1] if self.lengths is None else max(self.lengths)

    def repeat_batch(self, copies: int) -> Batch:
        """The same samples again and again: in rows of their own, (copies * B, T), or packed, (1, copies * N)."""
        tensors = (self.input_ids, self.labels, self.attention_mask, self.token_mask)
        ids, labels, mask, token_mask = (None if given is None else self.repeat(given, copies) for given in tensors)
        return Batch(ids, labels, mask, self.lengths and self.lengths * copies, token_mask)  # type: ignore[arg-type]

    def repeat(self, tensor: torch.Tensor, copies: int) -> torch.Tensor:
        """A tensor (B, T, ...) or (1, N, ...) as in `repeat_batch`: (copies * B, T, ...) or (1, copies * N, ...)."""
        times = (copies, 1) if self.lengths is None else (1, copies)
        return tensor.repeat(*times, *(1 for _ in tensor.shape[2:]))

    def expand_over_copies(self, factors: torch.Tensor) -> torch.Tensor:
        """One row (copies, ...) for each copy as what multiplies a repeated tensor: (copies * B, 1, ...) or alike."""
        if self.lengths is None:
            return factors.repeat_interleave(len(self.input_ids), 0)[:, None]
        return factors.repeat_interleave(self.input_ids.shape[1], 0)[None]

    @property
    def sample_of_token(self) -> torch.Tensor:
        """(B, T) or (1, N): which of the batch's samples a token belongs to."""
        import torch  # noqa: PLC0415

        if self.lengths is None:
            return torch.arange(len(self))[:, None].expand_as(self.input_ids)
        return torch.arange(len(self)).repeat_interleave(torch.tensor(self.lengths))[None]


def pack(samples: Sequence[EncodedSample]) -> Batch:
    """Samples one behind the other in a row, for models that `Readout.packs` says can keep them apart."""
    import torch  # noqa: PLC0415

    row = torch.from_numpy(np.concatenate([sample.input_ids for sample in samples]).astype(np.int64))
    labels = torch.from_numpy(np.concatenate([_predictable_labels(sample) for sample in samples]))
    return Batch(row[None], labels[None], lengths=tuple(map(len, samples)))


def collate(samples: Sequence[EncodedSample], *, side: Side = "right", pad: int = 0) -> Batch:
    """Pad samples to one length."""
    import torch  # noqa: PLC0415

    if side not in SIDES:
        raise unknown_name("padding side", side, SIDES)
    length = max(map(len, samples))
    input_ids = np.full((len(samples), length), pad, np.int64)
    labels = np.full((len(samples), length), IGNORED, np.int64)
    mask = np.zeros((len(samples), length), np.int64)
    for row, sample in enumerate(samples):
        place = slice(0, len(sample)) if side == "right" else slice(length - len(sample), length)
        input_ids[row, place] = sample.input_ids
        labels[row, place] = _predictable_labels(sample)
        mask[row, place] = 1
    attention_mask = torch.from_numpy(mask) if side == "left" else None
    token_mask = torch.from_numpy(mask).bool()
    return Batch(torch.from_numpy(input_ids), torch.from_numpy(labels), attention_mask, token_mask=token_mask)


def _predictable_labels(sample: EncodedSample) -> np.ndarray:
    """The labels (T,) without the first token's."""
    return np.concatenate([[IGNORED], sample.labels[1:]])
