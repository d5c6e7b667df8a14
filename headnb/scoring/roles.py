"""Roles of attention heads: what a head attends to on repeated random tokens, and whether it copies a task's answers.

The sequences are [BOS, r, r] with r of L random ordinary tokens, all different. With A (T, T) the attention weights of
a head and positions counted from 0:

    induction          mean over the queries i of the second r of A[i, i - L + 1], the token after the same token
    duplicate-token    mean over the same queries of A[i, i - L], the same token
    previous-token     mean over the same queries of A[i, i - 1]
    sink               mean over the first 64 queries of A[i, 0] + (1 - sum_k A[i, k])

The first three are from Olsson et al. 2022 ("In-context learning and induction heads") and Wang et al. 2022 (arXiv
2211.00593). The sink score and its threshold are from arXiv 2410.10781. The second term of the sink score is not zero
only where the model's attention has a sink column that is not a token (gpt-oss).

A mean is over the queries from which mask and window let the head see the key; without such a query the score is NaN.
Heads are query heads: heads that share keys and values have scores of their own. See `headnb.scoring.copying` for the
roles that need a task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from headnb.call_checks import check_arguments, checked_seed
from headnb.engine.attention_weights import observe_attention_rows
from headnb.engine.batching import collate
from headnb.engine.hooks import input_device
from headnb.engine.losses import find_heads_and_loss_computer
from headnb.engine.model_contexts import frozen
from headnb.engine.tokenization import EncodedSample, prefix_tokens, special_tokens
from headnb.errors import HeadnbError, unknown_name
from headnb.models.checks import context_length
from headnb.models.locks import model_lock
from headnb.scoring.checks import check_loaded, checked_task
from headnb.scoring.copying import AttentionReader, copy_scores, retrieval_scores
from headnb.scoring.run import model_attributes
from headnb.stats.results import as_result
from headnb.tasks.row_values import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.layout import HeadLayout
    from headnb.engine.losses import LossComputer
    from headnb.scoring.copying import CopyScores
    from headnb.stats.labelled import Scores
    from headnb.tasks.loading import Task

CopyName: TypeAlias = Literal["forced", "retrieval"]

SINK_QUERIES = 64
LEAST_LENGTH = 4
# Scores above the threshold mark a head. Those of sink and retrieval are published; the others are conventions.
THRESHOLDS = {
    "induction": 0.4,
    "previous-token": 0.4,
    "duplicate-token": 0.4,
    "sink": 0.3,
    "copy": 0.1,
    "retrieval": 0.1,
}


@check_arguments
def head_roles(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | Any = None,
    *,
    copy: CopyName = "forced",
    sequences: int = 4,
    length: int = 64,
    batch_tokens: int = 4096,
    max_length: int | None = None,
    seed: int = 0,
) -> Scores:
    """Score the roles of every attention head: induction, previous token, duplicate token, sink, and copying.

    Without a task this takes one forward pass over repeated random tokens. The model is not changed.

        roles = headnb.head_roles(model, tokenizer)
        roles.heads.top(5)                        # the strongest heads of each role
        roles.score.sel(role="induction")
        headnb.grid(scores, roles=roles)          # marks the heads above `roles.threshold`

    Args:
        model: as for `score_heads`.
        tokenizer: the model's tokenizer; None: all token ids count as ordinary, and sequences begin without BOS.
        task: a task (anything that `load_task` accepts) adds a role, `copy` or `retrieval`.
        copy: "forced" (role `copy`): mean attention weight from the position that predicts an answer token to the same
            token in the prompt, with the task's answers as input. "retrieval" (role `retrieval`): the published score
            of arXiv 2404.15574, for which the model generates text; answers must occur verbatim in their prompts.
        sequences: number of random sequences.
        length: L, number of random tokens that each sequence repeats once.
        batch_tokens: maximum number of tokens per batch of the task.
        max_length: truncate the task's samples to this number of tokens.
        seed: seed of the random tokens.

    Returns:
        Dataset with `score` (role, layer, head) float32, attention weights from 0 to 1 (of `retrieval`: share of the
        answer's tokens), and the coordinate `threshold` (role). NaN for layers without softmax attention, and for heads
        whose window is too short for the role. `attrs` has model, seed, units and `begins_with`, the text of the
        tokens before r; it is empty if the tokenizer adds none, and then the sink is the first random token.

    Raises:
        HeadnbError: the model is an encoder; its attention weights are not available; the sequences do not fit the
            model's context; too few ordinary tokens; or no answer token of the task can be copied.
    """
    if copy not in ("forced", "retrieval"):
        raise unknown_name("copy score", copy, ("forced", "retrieval"))
    if copy == "retrieval" and task is not None and tokenizer is None:
        raise HeadnbError("copy='retrieval' generates text and needs the model's tokenizer")
    seed = checked_seed(seed)
    check_loaded(model, tokenizer)
    checked = None if task is None else checked_task(model, tokenizer, task, max_length=max_length)
    with model_lock(model), frozen(model), torch.no_grad():
        layout, loss_computer = find_heads_and_loss_computer(model)
        made = repeated_tokens(model, tokenizer, sequences, length, seed)
        scores = _sequence_scores(model, layout, loss_computer, made)
        attrs = model_attributes(model, layout) | _ROLE_ATTRS
        attrs |= {"seed": seed, "sequences": sequences, "length": length, "begins_with": _text(tokenizer, made.prefix)}
        if checked is not None:
            reader = AttentionReader(model, layout, loss_computer, batch_tokens)
            copied = _copied(reader, checked.encoded.samples, tokenizer, copy)
            scores["copy" if copy == "forced" else copy] = copied.scores
            attrs |= {"task": checked.task.name, "copy_samples": copied.samples}
    return _labelled(scores, attrs)


def _copied(
    reader: AttentionReader,
    samples: Sequence[EncodedSample],
    tokenizer: PreTrainedTokenizerBase | None,
    copy: CopyName,
) -> CopyScores:
    special = special_tokens(tokenizer).keys() if tokenizer is not None else ()
    if copy == "forced" or tokenizer is None:
        return copy_scores(reader, samples, special)
    return retrieval_scores(reader, samples, special, tokenizer)


_ROLE_ATTRS = {"method": "roles", "method_label": "role score", "units": "attention weight", "reduction": "mean-abs"}


class RepeatedTokens(NamedTuple):
    """Sequences [prefix, r, r] of random tokens."""

    ids: np.ndarray
    """(sequences, P + 2 L)"""
    prefix: list[int]
    """The P tokens that the tokenizer adds before a text."""
    length: int
    """L"""


def repeated_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, sequences: int, length: int, seed: int
) -> RepeatedTokens:
    """Random sequences in which every token of r is different, so that each has one earlier occurrence.

    Raises:
        HeadnbError: there are too few sequences, tokens or positions.
    """
    if sequences < 1 or length < LEAST_LENGTH:
        raise HeadnbError(f"at least 1 sequence of {LEAST_LENGTH} tokens is needed; got {sequences} of {length}")
    prefix = prefix_tokens(tokenizer) if tokenizer is not None else []
    tokens, context = len(prefix) + 2 * length, context_length(model)
    if context is not None and tokens > context:
        longest = (context - len(prefix)) // 2
        raise HeadnbError(
            f"length={length} needs {tokens} tokens, more than the model's context of {context}; use length={longest}"
        )
    ordinary = _ordinary_tokens(model, tokenizer)
    if len(ordinary) < length:
        raise HeadnbError(f"length={length} needs as many different tokens, and the model has {len(ordinary)}")
    random = np.random.default_rng(seed)
    repeated = np.stack([random.choice(ordinary, length, replace=False) for _ in range(sequences)])
    before = np.tile(np.array(prefix, np.int64), (sequences, 1))
    return RepeatedTokens(np.concatenate([before, repeated, repeated], 1), prefix, length)


def _ordinary_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> np.ndarray:
    """Ids of all tokens that the model and the tokenizer have, without special tokens."""
    vocabulary = model.config.get_text_config().vocab_size
    if tokenizer is None:
        return np.arange(vocabulary)
    known = np.arange(min(vocabulary, len(tokenizer)))
    return np.setdiff1d(known, list(special_tokens(tokenizer)))


def role_weights(weights: Tensor, visible: Tensor, first: int, prefix: int, length: int) -> dict[str, Tensor]:
    """For each role the attention weights (B, H, n) that its score is the mean of; NaN where the head cannot see.

    Args:
        weights: A (B, H, R, T) of R queries.
        visible: whether a query may see a key, (B or 1, H or 1, R, T).
        first: position of the first of the R queries.
        prefix: P, number of tokens before r.
        length: L, number of tokens of r.
    """
    seen = weights.masked_fill(~visible, torch.nan)
    queries = torch.arange(first, first + weights.shape[2], device=weights.device)
    second = queries[queries >= prefix + length]
    back = {"induction": length - 1, "previous-token": 1, "duplicate-token": length}
    values = {role: seen[:, :, second - first, second - distance] for role, distance in back.items()}
    early = slice(0, max(0, min(len(queries), SINK_QUERIES - first)))
    removed = (1 - weights[:, :, early].sum(-1)).clamp(min=0)  # weight of a sink column that is not a token
    return values | {"sink": seen[:, :, early, 0] + removed}


def _sequence_scores(
    model: PreTrainedModel, layout: HeadLayout, loss_computer: LossComputer, made: RepeatedTokens
) -> dict[str, np.ndarray]:
    """Role -> scores (L, H)."""
    labels = np.full_like(made.ids, IGNORED)
    labels[:, -1] = made.ids[:, -1]  # a loss needs an answer token
    batch = collate([EncodedSample(*row) for row in zip(made.ids, labels, strict=True)])
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, np.ndarray] = {}

    def add(layer: int, rows: slice, weights: Tensor, visible: Tensor) -> None:
        for role, values in role_weights(weights, visible, rows.start, len(made.prefix), made.length).items():
            for total, part in ((sums, values.nansum((0, 2))), (counts, (~values.isnan()).sum((0, 2)))):
                grid = total.setdefault(role, np.zeros(layout.shape))
                grid[layer, : len(part)] += part.double().cpu().numpy()

    with observe_attention_rows(model, layout, add):
        loss_computer.losses(batch, input_device(model))
    return {role: np.where(counts[role] > 0, sums[role] / np.maximum(counts[role], 1), np.nan) for role in sums}


def _labelled(scores: dict[str, np.ndarray], attrs: dict[str, Any]) -> Scores:
    if "retrieval" in scores:
        attrs |= {"units": "attention weight; retrieval: share of tokens"}
    grid = next(iter(scores.values()))
    roles = xr.Dataset(
        {"score": (("role", "layer", "head"), np.stack(list(scores.values())).astype(np.float32))},
        coords={
            "role": list(scores),
            "threshold": ("role", [THRESHOLDS[role] for role in scores]),
            "layer": np.arange(grid.shape[0]),
            "head": np.arange(grid.shape[1]),
        },
        attrs=attrs,
    )
    return cast("Scores", as_result(roles))


def _text(tokenizer: PreTrainedTokenizerBase | None, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens)) if tokenizer is not None and tokens else ""
