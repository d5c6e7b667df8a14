"""Greedy decoding of several prompts at a time.

Prompts of different lengths are padded on the left and masked, so that the batch does not change a continuation. A
batch stops when half of its rows are finished, and the others join a later batch. This limits the time that is spent on
finished rows.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headnb.engine.hooks import input_device
from headnb.errors import HeadnbError
from headnb.models.checks import context_length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TAIL_TOKENS = 48  # number of last tokens that `is_complete` is given as text


@dataclass
class Continuation:
    """The tokens that a model generates after a prompt."""

    prompt: np.ndarray
    """Token ids, (T,)."""
    room: int
    """Maximum number of new tokens."""
    tokens: list[int] = field(default_factory=list)
    """The new tokens, including the end-of-sequence token."""
    ended: bool = False
    """Whether the text ended by itself; otherwise it was truncated at `room` tokens."""

    @property
    def done(self) -> bool:
        """Whether no further token is generated."""
        return self.ended or len(self.tokens) >= self.room

    @property
    def ids(self) -> np.ndarray:
        """Token ids of the prompt and of the new tokens so far."""
        return np.concatenate([self.prompt, np.array(self.tokens, np.int64)])


@torch.no_grad()
def continue_greedily(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[np.ndarray],
    most: int,
    *,
    batch_size: int = 16,
    is_complete: Callable[[str], bool] | None = None,
    on_token: Callable[[int], None] | None = None,
) -> list[Continuation]:
    """Continue each prompt greedily. The caller locks and freezes the model.

    The generation settings of the checkpoint, such as sampling or a repetition penalty, are ignored. Only their
    end-of-sequence tokens are used, in addition to the tokenizer's.

    Args:
        model: a causal decoder.
        tokenizer: its tokenizer.
        prompts: token ids of each prompt, (T,), not empty.
        most: maximum number of new tokens, `max_new_tokens` in errors.
        batch_size: number of prompts in a batch; halved when memory runs out.
        is_complete: whether a text is complete, given its last tokens as text.
        on_token: called after every token with the number of finished prompts; an exception in it stops the generation.

    Raises:
        HeadnbError: `most` is less than 1, a prompt is longer than the model's context, or memory is too small for one
            prompt.
    """
    if most < 1:
        raise HeadnbError(f"max_new_tokens must be at least 1, not {most}")
    context = context_length(model)
    if context is not None and (longest := max(map(len, prompts), default=0)) > context:
        raise HeadnbError(f"a prompt has {longest} tokens, more than the model's context of {context}")
    rows = [
        Continuation(prompt, most if context is None else max(1, min(most, context - len(prompt))))
        for prompt in prompts
    ]
    ends = _end_tokens(model, tokenizer)

    def take(row: Continuation, token: int) -> None:
        row.tokens.append(token)
        row.ended = token in ends or (
            is_complete is not None and is_complete(continuation_text(tokenizer, row, TAIL_TOKENS))
        )

    def report() -> None:
        if on_token is not None:
            on_token(sum(row.done for row in rows))

    waiting = sorted(rows, key=lambda row: len(row.prompt), reverse=True)
    with _ignore_generation_config(model):
        while waiting:
            batch, waiting = waiting[:batch_size], waiting[batch_size:]
            if not _generate_batch(model, batch, tokenizer.pad_token_id or 0, take, report):
                batch_size = max(1, len(batch) // 2)
            waiting += [row for row in batch if not row.done]
    return rows


def continuation_text(tokenizer: PreTrainedTokenizerBase, row: Continuation, last: int = 0) -> str:
    """The text of a continuation, or of its `last` tokens."""
    return str(tokenizer.decode(row.tokens[-last:], skip_special_tokens=True))


def _generate_batch(
    model: PreTrainedModel,
    rows: list[Continuation],
    pad: int,
    take: Callable[[Continuation, int], None],
    report: Callable[[], None],
) -> bool:
    """Continue rows until half are done or one has no room. False if memory ran out; new tokens so far are kept."""
    from transformers import GenerationConfig  # noqa: PLC0415

    def stop(ids: Tensor, _: object, **__: object) -> Tensor:
        for row, token in zip(rows, ids[:, -1].tolist(), strict=True):
            if not row.done:  # the tokens after the end are not kept
                take(row, token)
        report()
        left = sum(not row.done for row in rows)
        return torch.full((len(rows),), left <= len(rows) // 2, device=ids.device)

    ids, mask = _padded_left([row.ids for row in rows], pad)
    room = min(row.room - len(row.tokens) for row in rows)
    device = input_device(model)
    try:
        model.generate(  # type: ignore[operator]
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            generation_config=GenerationConfig(max_new_tokens=room, do_sample=False, use_cache=True, pad_token_id=pad),  # type: ignore[no-untyped-call]
            stopping_criteria=[stop],
        )
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise HeadnbError(f"one text of {ids.shape[1]} tokens does not fit in memory") from None
        return False
    return True


def _padded_left(texts: Sequence[np.ndarray], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, (B, T) each."""
    length = max(map(len, texts))
    ids = np.full((len(texts), length), pad, np.int64)
    mask = np.zeros((len(texts), length), np.int64)
    for row, tokens in enumerate(texts):
        ids[row, length - len(tokens) :] = tokens
        mask[row, length - len(tokens) :] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = named if isinstance(named, (list, tuple)) else [named]
    return {int(end) for end in (*several, tokenizer.eos_token_id) if end is not None}


@contextmanager
def _ignore_generation_config(model: nn.Module) -> Iterator[None]:
    """Empty the model's generation settings, which `generate` would use for every argument that is not given."""
    from transformers import GenerationConfig  # noqa: PLC0415

    original: dict[nn.Module, Any] = {
        module: vars(module)["generation_config"] for module in model.modules() if "generation_config" in vars(module)
    }
    try:
        for module in original:
            vars(module)["generation_config"] = GenerationConfig()  # type: ignore[no-untyped-call]
        yield
    finally:
        for module, settings in original.items():
            vars(module)["generation_config"] = settings
