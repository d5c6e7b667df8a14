"""From samples of text to token ids and labels.

Prompt and completion are tokenized apart and joined, as the paper's script does; the labels are the completion's
tokens and the end-of-sequence token, -100 elsewhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import numpy as np
from jinja2 import TemplateError

from headnb.errors import HeadnbError, unknown_name
from headnb.samples import IGNORED, Sample, TokenSample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from headnb.tasks import Task

ENCODINGS = ("official", "trl")

EncodingName: TypeAlias = Literal["official", "trl"]


@dataclass(frozen=True)
class EncodedSample:
    """Token ids of prompt and completion, and the labels: the completion's ids, -100 on the prompt. Both (T,)."""

    input_ids: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def answer_tokens(self) -> int:
        """How many tokens the loss of this sample is a mean over. The first token is never predicted."""
        return int((self.labels[1:] != IGNORED).sum())

    @property
    def fingerprint(self) -> int:
        """A hash of tokens and labels, in the range of int64."""
        content = self.input_ids.astype("<i8").tobytes() + self.labels.astype("<i8").tobytes()
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)

    def cut(self, length: int) -> EncodedSample:
        """The first `length` tokens."""
        return EncodedSample(self.input_ids[:length], self.labels[:length])


@dataclass(frozen=True)
class EncodedTask:
    """What is scored of a task: samples with at least one answer token."""

    samples: tuple[EncodedSample, ...]
    ids: tuple[int | str, ...]
    left_out: tuple[int | str, ...]
    """Ids of samples that have no answer token (left)."""
    truncated: int
    """How many samples were cut to `max_length`."""

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each sample, (samples,)."""
        return np.array([len(sample) for sample in self.samples])

    @cached_property
    def answer_tokens(self) -> np.ndarray:
        """Answer tokens of each sample, (samples,)."""
        return np.array([sample.answer_tokens for sample in self.samples])

    @cached_property
    def fingerprints(self) -> np.ndarray:
        """A hash of each sample's tokens and labels, (samples,) int64: the same sample has the same everywhere."""
        return np.array([sample.fingerprint for sample in self.samples], np.int64)


def encode_task(
    task: Task,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    encoding: EncodingName = "official",
    max_length: int | None = None,
    context: int | None = None,
) -> EncodedTask:
    """Encode every sample of a task.

    Args:
        task: the samples; those that are encoded already are taken as they are.
        tokenizer: may be None only for encoded samples.
        encoding: "official" tokenizes prompt and completion apart; "trl" together, as TRL's trainers do: there the
            answer begins where the tokens of the prompt alone and of the whole text part.
        max_length: cut longer samples at the end to so many tokens. None: cut nothing.
        context: the model's longest sequence in tokens, None if it has no limit.

    Raises:
        HeadnbError: no tokenizer for samples of text, a sample longer than the context while `max_length` is
            None, or no sample with an answer token.
    """
    if encoding not in ENCODINGS:
        raise unknown_name("encoding", encoding, ENCODINGS)
    if max_length is not None and max_length < 1:
        raise HeadnbError(f"max_length must be at least 1 token, not {max_length}")
    if max_length is not None and context is not None and max_length > context:
        raise HeadnbError(f"max_length={max_length} is more than the model's context of {context} tokens")
    whole = _encode_samples(task, tokenizer, encoding)
    for key, sample in zip(task.ids, whole, strict=True):
        if max_length is None and context is not None and len(sample) > context:
            raise HeadnbError(
                f"sample {key!r} of {task.name} has {len(sample)} tokens, more than the model's context of {context}; "
                f"max_length={context} cuts such samples"
            )
    cut = [sample if max_length is None else sample.cut(max_length) for sample in whole]
    kept = [place for place, sample in enumerate(cut) if sample.answer_tokens]
    if not kept:
        where = f" within max_length={max_length} tokens" if max_length else ""
        raise HeadnbError(f"no sample of {task.name} has an answer token{where}: there is nothing to score")
    return EncodedTask(
        samples=tuple(cut[place] for place in kept),
        ids=tuple(task.ids[place] for place in kept),
        left_out=tuple(key for key, sample in zip(task.ids, cut, strict=True) if not sample.answer_tokens),
        truncated=sum(len(whole[place]) > len(cut[place]) for place in kept),
    )


def _encode_samples(
    task: Task, tokenizer: PreTrainedTokenizerBase | None, encoding: EncodingName
) -> list[EncodedSample]:
    encoded, texts = [], []
    for sample in task.samples:
        if isinstance(sample, TokenSample):
            encoded.append(EncodedSample(np.array(sample.input_ids, np.int64), np.array(sample.labels, np.int64)))
        elif tokenizer is None:
            raise HeadnbError(f"the samples of {task.name} are text: a tokenizer is needed")
        else:
            texts.append(_render(sample, tokenizer))
    if not texts or tokenizer is None:
        return encoded
    tokenize = _tokenize_apart if encoding == "official" else _tokenize_together
    return [
        EncodedSample(np.array(prompt + answer, np.int64), np.array([IGNORED] * len(prompt) + answer, np.int64))
        for prompt, answer in tokenize(texts, tokenizer)
    ]


@dataclass(frozen=True)
class _Text:
    """A sample as text, and whether a chat template wrote it (then all special tokens are in it already)."""

    prompt: str
    completion: str
    chat: bool


def _render(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> _Text:
    if isinstance(sample.prompt, str) and isinstance(sample.completion, str):
        return _Text(sample.prompt, sample.completion, chat=False)
    if not tokenizer.chat_template:
        raise HeadnbError("these samples are chat messages, and the tokenizer has no chat template")
    messages = cast("list[dict[str, str]]", [*sample.prompt, *sample.completion])
    prompt = messages[: len(sample.prompt)]
    try:
        start = cast("str", tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))
        whole = cast("str", tokenizer.apply_chat_template(messages, tokenize=False))
    except TemplateError as error:
        roles = ", ".join(str(message.get("role")) for message in messages)
        raise HeadnbError(f"the chat template refuses messages with the roles {roles}: {error}") from error
    if not whole.startswith(start):
        raise HeadnbError("the chat template writes the prompt in another way when an answer follows it")
    return _Text(start, whole[len(start) :], chat=True)


def _tokenize_apart(texts: Sequence[_Text], tokenizer: PreTrainedTokenizerBase) -> list[tuple[list[int], list[int]]]:
    prompts = _prompt_ids(texts, tokenizer)
    answers = tokenizer([text.completion for text in texts], add_special_tokens=False)["input_ids"]
    return [
        (prompt, _closed(answer, text, tokenizer)) for prompt, answer, text in zip(prompts, answers, texts, strict=True)
    ]


def _tokenize_together(texts: Sequence[_Text], tokenizer: PreTrainedTokenizerBase) -> list[tuple[list[int], list[int]]]:
    prompts = _prompt_ids(texts, tokenizer)
    joined = [_Text(text.prompt + text.completion, "", text.chat) for text in texts]
    pairs = []
    for prompt, whole, text in zip(prompts, _prompt_ids(joined, tokenizer), texts, strict=True):
        common = next((place for place, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
        pairs.append((whole[:common], _closed(whole[common:], text, tokenizer)))
    return pairs


def _prompt_ids(texts: Sequence[_Text], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Tokens of the prompts with the special tokens that the tokenizer puts in front, but none behind."""
    tokens = tokenizer([text.prompt for text in texts], add_special_tokens=False)["input_ids"]
    front = _front_tokens(tokenizer)
    return [prompt if text.chat else front + prompt for prompt, text in zip(tokens, texts, strict=True)]


def _front_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    bare, full = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    return list(full[: full.index(bare[0])]) if bare and bare[0] in full else []


def _closed(answer: list[int], text: _Text, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The answer with the end-of-sequence token behind it; a chat template has closed it already."""
    end = tokenizer.eos_token_id
    if text.chat or end is None or (answer and answer[-1] == end):
        return answer
    return [*answer, end]
