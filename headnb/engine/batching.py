"""Batches of encoded samples: their grouping, their order and their tensors.

A batch holds samples of similar length, which avoids padding. Samples are shuffled into blocks and sorted by length
only inside a block; the batches of a block run in random order. So the samples scored at the end of any block are a
random subset of the task.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from headnb.errors import HeadnbError, unknown_name
from headnb.tasks.row_values import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from headnb.engine.tokenization import EncodedSample

SIDES = ("right", "left")
BLOCK = 256  # number of samples that are sorted by length together
MAX_PADDING = 0.05  # largest fraction of padding in a batch

Side: TypeAlias = Literal["right", "left"]


@dataclass(frozen=True)
class BatchPlan:
    """Processing order of the samples, and their grouping into batches.

    `order` (n,) holds the positions of the samples in processing order. `batch` (n,) holds the batch number of each
    entry of `order`; batches are numbered in processing order.
    """

    order: np.ndarray
    batch: np.ndarray

    def batches(self) -> list[np.ndarray]:
        """The indices into `order` (not the positions of samples) of each batch."""
        edges = np.flatnonzero(np.diff(self.batch)) + 1
        return np.split(np.arange(len(self.order)), edges)


def plan_batches(
    lengths: np.ndarray,
    *,
    batch_tokens: int,
    packed: bool = False,
    seed: int = 0,
    max_padding: float = MAX_PADDING,
    block: int = BLOCK,
) -> BatchPlan:
    """Group samples into batches of at most `batch_tokens` tokens and at most `max_padding` padding.

    A sample longer than the budget gets a batch of its own.

    Args:
        lengths: number of tokens of each sample, (n,).
        batch_tokens: token budget of a batch, padding included.
        packed: whether batches will be packed; then there is no padding, and samples are not sorted.
        seed: seed of the shuffles.
        max_padding: largest fraction of padding; a batch closes before a sample that would exceed it.
        block: number of samples that are sorted by length together.

    Raises:
        HeadnbError: `batch_tokens` is less than 1.
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
        batches += [grouped[index] for index in random.permutation(len(grouped))]
    sizes = [len(batch) for batch in batches]
    return BatchPlan(np.concatenate(batches), np.repeat(np.arange(len(batches)), sizes))


def split_at_budget(tokens: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Split indices 0 to n - 1 into consecutive groups of at most `batch_tokens` tokens; a longer sample is alone."""
    groups: list[list[int]] = []
    total = 0
    for index, length in enumerate(tokens.tolist()):
        if not groups or total + length > batch_tokens:
            groups.append([])
            total = 0
        groups[-1].append(index)
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
    """The N answer tokens of a batch, sample by sample."""

    token_indices: torch.Tensor
    """(N,): the position that predicts each answer token (one before it), in the flattened batch."""
    tokens: torch.Tensor
    """(N,): the id of each answer token."""
    samples: torch.Tensor
    """(N,): the sample of each answer token."""
    counts: torch.Tensor
    """(B,): number of answer tokens of each sample."""


@dataclass(frozen=True)
class Batch:
    """Tensors of some samples: padded, with one row per sample, or packed into a single row.

    Padding on the right needs no mask: a decoder's tokens never see later tokens, and padding has no loss. So attention
    runs unmasked, on the fast kernels. Padding on the left needs a mask and positions.
    """

    input_ids: torch.Tensor
    """(B, T), or (1, N) of a packed batch."""
    labels: torch.Tensor
    """Same shape; -100 outside the answer, and on a sample's first token, which no token predicts."""
    attention_mask: torch.Tensor | None = None
    """(B, T), 1 on tokens; None unless padding is on the left."""
    lengths: tuple[int, ...] | None = None
    """Number of tokens of each sample of a packed batch; None for a padded batch."""
    token_mask: torch.Tensor | None = None
    """(B, T), true on tokens of samples and false on padding; None for a packed batch."""

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.input_ids) if self.lengths is None else len(self.lengths)

    @cached_property
    def answers(self) -> Answers:
        """The tokens that the loss is a mean over; found on the CPU, because `nonzero` on a device waits for it."""
        labels = self.labels.flatten()
        indices = (labels != IGNORED).nonzero()[:, 0]
        samples = self.sample_of_token.flatten()[indices]
        return Answers(indices - 1, labels[indices], samples, samples.bincount(minlength=len(self)))

    @property
    def longest_sample(self) -> int:
        """Number of tokens of the longest sample."""
        return self.input_ids.shape[1] if self.lengths is None else max(self.lengths)

    def repeat_batch(self, copies: int) -> Batch:
        """Repeat the samples: padded as (copies * B, T), packed as (1, copies * N)."""
        tensors = (self.input_ids, self.labels, self.attention_mask, self.token_mask)
        ids, labels, mask, token_mask = (None if given is None else self.repeat(given, copies) for given in tensors)
        return Batch(ids, labels, mask, self.lengths and self.lengths * copies, token_mask)  # type: ignore[arg-type]

    def repeat(self, tensor: torch.Tensor, copies: int) -> torch.Tensor:
        """Repeat a tensor (B, T, ...) to (copies * B, T, ...), or (1, N, ...) to (1, copies * N, ...)."""
        times = (copies, 1) if self.lengths is None else (1, copies)
        return tensor.repeat(*times, *(1 for _ in tensor.shape[2:]))

    def expand_over_copies(self, factors: torch.Tensor) -> torch.Tensor:
        """Expand factors (copies, ...), one row per copy, to broadcast over a repeated tensor.

        Returns:
            (copies * B, 1, ...), or (1, copies * N, ...) of a packed batch.
        """
        if self.lengths is None:
            return factors.repeat_interleave(len(self.input_ids), 0)[:, None]
        return factors.repeat_interleave(self.input_ids.shape[1], 0)[None]

    @property
    def sample_of_token(self) -> torch.Tensor:
        """(B, T) or (1, N): index of the sample that each token belongs to."""
        import torch  # noqa: PLC0415

        if self.lengths is None:
            return torch.arange(len(self))[:, None].expand_as(self.input_ids)
        return torch.arange(len(self)).repeat_interleave(torch.tensor(self.lengths))[None]


def pack(samples: Sequence[EncodedSample]) -> Batch:
    """Pack samples into one row, for models whose `LossComputer.supports_packing` is true."""
    import torch  # noqa: PLC0415

    row = torch.from_numpy(np.concatenate([sample.input_ids for sample in samples]).astype(np.int64))
    labels = torch.from_numpy(np.concatenate([_predictable_labels(sample) for sample in samples]))
    return Batch(row[None], labels[None], lengths=tuple(map(len, samples)))


def collate(samples: Sequence[EncodedSample], *, side: Side = "right", pad: int = 0) -> Batch:
    """Pad samples to the length of the longest one.

    Raises:
        HeadnbError: unknown padding side.
    """
    import torch  # noqa: PLC0415

    if side not in SIDES:
        raise unknown_name("padding side", side, SIDES)
    length = max(map(len, samples))
    input_ids = np.full((len(samples), length), pad, np.int64)
    labels = np.full((len(samples), length), IGNORED, np.int64)
    mask = np.zeros((len(samples), length), np.int64)
    for row, sample in enumerate(samples):
        span = slice(0, len(sample)) if side == "right" else slice(length - len(sample), length)
        input_ids[row, span] = sample.input_ids
        labels[row, span] = _predictable_labels(sample)
        mask[row, span] = 1
    attention_mask = torch.from_numpy(mask) if side == "left" else None
    token_mask = torch.from_numpy(mask).bool()
    return Batch(torch.from_numpy(input_ids), torch.from_numpy(labels), attention_mask, token_mask=token_mask)


def _predictable_labels(sample: EncodedSample) -> np.ndarray:
    """The labels (T,), with the first token's set to -100."""
    return np.concatenate([[IGNORED], sample.labels[1:]])
