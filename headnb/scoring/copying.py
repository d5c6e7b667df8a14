"""Copy scores of attention heads on a task: the attention to a token that the model is about to write.

`copy` is teacher-forced. For an answer token y at position t that also occurs in the prompt, the step's value is the
attention weight from position t - 1, which predicts y, to all prompt tokens equal to y. The score is the mean over the
steps of a sample, then over samples. It needs no generation and is also defined where the model fails.

`retrieval` is the score of arXiv 2404.15574. The needle is the answer where it occurs in the prompt. The model
generates a continuation greedily. A head copies a generated token w if the token with its largest weight lies in the
needle and equals w. The score is the share of the needle's distinct tokens that the head copies, averaged over samples
whose generated text has more than half of these tokens. (The published code uses ROUGE-L for this test.)

Special tokens are not copied. Steps at which mask or window hide all sources from a head are excluded for this head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from headnb.engine.attention_weights import observe_attention_rows
from headnb.engine.batching import collate, plan_batches
from headnb.engine.generation import continue_greedily
from headnb.engine.hooks import input_device
from headnb.engine.packing import max_batch_tokens
from headnb.engine.tokenization import EncodedSample
from headnb.errors import HeadnbError
from headnb.tasks.row_values import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.layout import HeadLayout
    from headnb.engine.losses import LossComputer

SOLVED = 0.5  # a sample is solved if the generated text has more than this share of the needle's tokens


class CopyScores(NamedTuple):
    """Scores of one role."""

    scores: np.ndarray
    """(L, H)"""
    samples: int
    """Number of samples that the scores are a mean over."""


@dataclass(frozen=True)
class Steps:
    """A sample of T tokens, and N steps at which one of its tokens may be copied from earlier tokens."""

    sample: EncodedSample
    queries: np.ndarray
    """(N,): the position that predicts the token."""
    tokens: np.ndarray
    """(N,): the token."""
    sources: np.ndarray
    """(N, T) bool: positions of the same token from which it may be copied."""


@dataclass(frozen=True)
class AttentionReader:
    """Reads the attention weights of a model's heads at some steps of samples."""

    model: PreTrainedModel
    layout: HeadLayout
    loss_computer: LossComputer
    batch_tokens: int

    def values(self, steps: Sequence[Steps], measure: Callable[[Tensor, Tensor], Tensor]) -> list[np.ndarray]:
        """Of each sample the values (N, L, H) of its steps; NaN where a head sees no source, and for absent heads.

        Args:
            steps: the samples and their steps.
            measure: maps weights (n, H, T) of the steps' queries, and sources (n, 1, T), to values (n, H).
        """
        found = [np.full((len(one.queries), *self.layout.shape), np.nan) for one in steps]
        lengths = np.array([len(one.sample) for one in steps])
        plan = plan_batches(lengths, batch_tokens=max_batch_tokens(self.model, self.batch_tokens))
        for rows in plan.batches():
            chosen = plan.order[rows].tolist()
            self._fill([steps[index] for index in chosen], [found[index] for index in chosen], measure)
        return found

    def _fill(self, steps: list[Steps], found: list[np.ndarray], measure: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Write the values of one batch into `found`."""
        batch, device = collate([one.sample for one in steps]), input_device(self.model)

        def read(layer: int, rows: slice, weights: Tensor, visible: Tensor) -> None:
            visible = visible.expand_as(weights)
            for row, one in enumerate(steps):
                places = np.flatnonzero((one.queries >= rows.start) & (one.queries < rows.stop))
                queries = torch.from_numpy(one.queries[places] - rows.start).to(weights.device)
                sources = torch.from_numpy(one.sources[places]).to(weights.device)[:, None]  # (n, 1, T)
                tokens = sources.shape[2]  # without padding
                its_weights, its_keys = (part[row, :, queries, :tokens].transpose(0, 1) for part in (weights, visible))
                values = measure(its_weights, sources).masked_fill(~(its_keys & sources).any(-1), torch.nan)  # (n, H)
                found[row][places, layer, : values.shape[1]] = values.double().cpu().numpy()

        token_mask = None if batch.token_mask is None else batch.token_mask.to(device)
        with observe_attention_rows(self.model, self.layout, read, token_mask):
            self.loss_computer.losses(batch, device)


def copy_scores(reader: AttentionReader, samples: Sequence[EncodedSample], special: Collection[int]) -> CopyScores:
    """Teacher-forced copy scores.

    Raises:
        HeadnbError: no answer token occurs in its prompt.
    """
    steps = [found for sample in samples if len((found := copy_steps(sample, special)).queries)]
    if not steps:
        raise HeadnbError("no answer token of this task occurs in its prompt, so there is nothing to copy")
    means = [_mean_over(values) for values in reader.values(steps, copied_weight)]
    return CopyScores(_mean_over(np.stack(means)), len(steps))


def retrieval_scores(
    reader: AttentionReader,
    samples: Sequence[EncodedSample],
    special: Collection[int],
    tokenizer: PreTrainedTokenizerBase,
) -> CopyScores:
    """Retrieval scores; NaN if the model solves no sample.

    Raises:
        HeadnbError: no answer occurs in its prompt.
    """
    found = [(sample.prompt, needle) for sample in samples if (needle := find_needle(sample, special))]
    if not found:
        raise HeadnbError(
            "no answer of this task occurs verbatim in its prompt, which copy='retrieval' needs; use copy='forced'"
        )
    most = [needle.stop - needle.start for _, needle in found]
    rows = continue_greedily(reader.model, tokenizer, [prompt for prompt, _ in found], max(most))
    # As many tokens as the sample's own needle has: a score does not depend on the other samples.
    texts = [row.tokens[:length] for row, length in zip(rows, most, strict=True)]
    steps = [retrieval_steps(prompt, text, needle) for (prompt, needle), text in zip(found, texts, strict=True)]
    needles = [np.unique(prompt[needle]) for prompt, needle in found]
    solved = [index for index, step in enumerate(steps) if np.isin(needles[index], step.tokens).mean() > SOLVED]
    if not solved:
        return CopyScores(np.full(reader.layout.shape, np.nan), 0)
    hits = reader.values([steps[index] for index in solved], largest_is_source)
    shares = [copied_share(hit, steps[index].tokens, needles[index]) for index, hit in zip(solved, hits, strict=True)]
    return CopyScores(_mean_over(np.stack(shares)), len(solved))


def copy_steps(sample: EncodedSample, special: Collection[int]) -> Steps:
    """The steps at which an answer token that occurs in the prompt is predicted."""
    answer = np.flatnonzero(sample.labels[1:] != IGNORED) + 1
    prompt = np.arange(len(sample)) < len(sample.prompt)
    tokens = sample.input_ids[answer]
    sources = (sample.input_ids == tokens[:, None]) & prompt  # (N, T)
    copied = sources.any(1) & ~np.isin(tokens, list(special))
    return Steps(sample, answer[copied] - 1, tokens[copied], sources[copied])


def find_needle(sample: EncodedSample, special: Collection[int]) -> slice | None:
    """The last place of the answer in the prompt, without special tokens; None if it does not stand there."""
    answer = sample.labels[sample.labels != IGNORED]
    answer = answer[~np.isin(answer, list(special))]
    if not 0 < len(answer) <= len(sample.prompt):
        return None
    windows = np.lib.stride_tricks.sliding_window_view(sample.prompt, len(answer))
    starts = np.flatnonzero((windows == answer).all(1))
    return slice(int(starts[-1]), int(starts[-1]) + len(answer)) if len(starts) else None


def retrieval_steps(prompt: np.ndarray, generated: list[int], needle: slice) -> Steps:
    """The steps at which the model generated a token of the needle."""
    tokens = np.array(generated, np.int64)
    ids = np.concatenate([prompt, tokens[:-1]])  # nothing attends from the last token
    in_needle = np.zeros(len(ids), bool)
    in_needle[needle] = True
    sources = (ids == tokens[:, None]) & in_needle  # (generated, T)
    chosen = sources.any(1)
    queries = np.arange(len(prompt) - 1, len(ids))[chosen]
    return Steps(EncodedSample(ids, ids), queries, tokens[chosen], sources[chosen])


def copied_weight(weights: Tensor, sources: Tensor) -> Tensor:
    """The attention weight on the sources, (N, H): A (N, H, T) of the steps' queries, and sources (N, 1, T)."""
    return (weights * sources).sum(-1)


def largest_is_source(weights: Tensor, sources: Tensor) -> Tensor:
    """1 where the token with the largest weight is a source, else 0, (N, H); arguments as for `copied_weight`."""
    return sources.expand_as(weights).gather(-1, weights.argmax(-1, keepdim=True))[..., 0].to(weights.dtype)


def copied_share(hits: np.ndarray, tokens: np.ndarray, needle: np.ndarray) -> np.ndarray:
    """The share of the needle's tokens that each head copies at some step, from hits (N, L, H); NaN without steps."""
    copied = [np.nan_to_num(hits[tokens == token]).max(0, initial=0) for token in needle]
    return np.where(np.isnan(hits).all(0), np.nan, np.mean(copied, 0))


def _mean_over(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis without NaN; NaN if there is no other value."""
    counts = (~np.isnan(values)).sum(0)
    mean: np.ndarray = np.where(counts, np.nansum(values, 0) / np.maximum(counts, 1), np.nan)
    return mean
