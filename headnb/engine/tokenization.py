"""Tokenization of text samples: token ids and labels.

In the encoding "official", prompt and completion are tokenized separately and joined, as in the paper's script. The
labels are the completion's tokens and the end-of-sequence token, and -100 elsewhere. If the prompt already begins with
the beginning-of-sequence token, or the completion ends with the end-of-sequence token, it is not added again, in either
encoding. (TRL would add it.)
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from headnb.engine.chat_template import render_chat, rendered_texts
from headnb.errors import HeadnbError, unknown_name
from headnb.tasks.row_values import IGNORED
from headnb.tasks.samples import Sample, TokenSample

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

    from headnb.tasks.loading import Task

ENCODINGS = ("official", "trl")

EncodingName: TypeAlias = Literal["official", "trl"]


@dataclass(frozen=True)
class EncodedSample:
    """Token ids of prompt and completion (T,), and labels (T,): the completion's ids, -100 on the prompt."""

    input_ids: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def answer_tokens(self) -> int:
        """Number of tokens that the loss of this sample is a mean over. The first token is never predicted."""
        return int((self.labels[1:] != IGNORED).sum())

    @property
    def fingerprint(self) -> int:
        """A hash of tokens and labels, in the range of int64."""
        content = self.input_ids.astype("<i8").tobytes() + self.labels.astype("<i8").tobytes()
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)

    @property
    def prompt(self) -> np.ndarray:
        """The tokens before the answer's first token, (t,)."""
        answer = np.flatnonzero(self.labels != IGNORED)
        return self.input_ids[: answer[0] if len(answer) else len(self.input_ids)]

    def truncate(self, length: int) -> EncodedSample:
        """The first `length` tokens."""
        return EncodedSample(self.input_ids[:length], self.labels[:length])


@dataclass(frozen=True)
class EncodedTask:
    """The scored samples of a task: those with at least one answer token."""

    samples: tuple[EncodedSample, ...]
    ids: tuple[int | str, ...]
    left_out: tuple[int | str, ...]
    """Ids of samples without an answer token (after truncation)."""
    truncated: int
    """Number of samples truncated to `max_length`."""
    notices: Mapping[str, int] = field(default_factory=dict)
    """Unusual properties of the samples' texts and their counts: see `stats.patterns.NOTICES`."""

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each sample, (samples,)."""
        return np.array([len(sample) for sample in self.samples])

    @cached_property
    def answer_tokens(self) -> np.ndarray:
        """Number of answer tokens of each sample, (samples,)."""
        return np.array([sample.answer_tokens for sample in self.samples])

    @cached_property
    def fingerprints(self) -> np.ndarray:
        """Hash of each sample's tokens and labels, (samples,) int64: equal samples have equal hashes everywhere."""
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
        task: the samples; already encoded samples are used unchanged.
        tokenizer: may be None only for encoded samples.
        encoding: "official" tokenizes prompt and completion separately, "trl" together, as TRL's trainers do. With
            "trl" the answer begins at the first token that differs from the tokens of the prompt alone.
        max_length: truncate longer samples at the end to this number of tokens. None: no truncation.
        context: the model's context length in tokens; None if it has no limit.

    Raises:
        HeadnbError: an unknown encoding, `max_length` less than 1 or more than the context, no tokenizer for text
            samples, a sample longer than the context while `max_length` is None, or no sample with an answer token.
    """
    if encoding not in ENCODINGS:
        raise unknown_name("encoding", encoding, ENCODINGS)
    if max_length is not None and max_length < 1:
        raise HeadnbError(f"max_length must be at least 1 token, not {max_length}")
    if max_length is not None and context is not None and max_length > context:
        raise HeadnbError(f"max_length={max_length} is more than the model's context of {context} tokens")
    encoded = _encode_samples(task, tokenizer, encoding)
    whole = [sample for sample, _ in encoded]
    for key, sample in zip(task.ids, whole, strict=True):
        if max_length is None and context is not None and len(sample) > context:
            raise HeadnbError(
                f"sample {key!r} of {task.name} has {len(sample)} tokens, more than the model's context of {context}; "
                f"max_length={context} truncates such samples"
            )
    truncated = [sample if max_length is None else sample.truncate(max_length) for sample in whole]
    scored = [index for index, sample in enumerate(truncated) if sample.answer_tokens]
    if not scored:
        where = f" within max_length={max_length} tokens" if max_length else ""
        raise HeadnbError(f"no sample of {task.name} has an answer token{where}, so there is nothing to score")
    return EncodedTask(
        samples=tuple(truncated[index] for index in scored),
        ids=tuple(task.ids[index] for index in scored),
        left_out=tuple(key for key, sample in zip(task.ids, truncated, strict=True) if not sample.answer_tokens),
        truncated=sum(len(whole[index]) > len(truncated[index]) for index in scored),
        notices=_count_notices([encoded[index][1] for index in scored]),
    )


@dataclass(frozen=True)
class _RenderedText:
    """A sample as text; one rendered by a chat template (`chat`) already contains all special tokens."""

    prompt: str
    completion: str
    chat: bool
    loses_text: bool = False
    special: int = 0
    """Number of special tokens in the texts of the chat messages."""


@dataclass
class _Notice:
    """Unusual properties of the text of one sample: special tokens in it, and text that the chat template omits."""

    bos: bool = False
    eos: bool = False
    special: int = 0
    loses_text: bool = False


def _count_notices(notices: Sequence[_Notice]) -> dict[str, int]:
    counts = Counter(
        bos_in_text=sum(notice.bos for notice in notices),
        eos_in_text=sum(notice.eos for notice in notices),
        special_tokens_in_text=sum(notice.special for notice in notices),
        samples_with_special_tokens=sum(notice.special > 0 for notice in notices),
        samples_losing_text=sum(notice.loses_text for notice in notices),
    )
    return dict(+counts)


def _encode_samples(
    task: Task, tokenizer: PreTrainedTokenizerBase | None, encoding: EncodingName
) -> list[tuple[EncodedSample, _Notice]]:
    encoded, texts = [], []
    special = None if tokenizer is None else _any_of(special_tokens(tokenizer).values())
    for key, sample in zip(task.ids, task.samples, strict=True):
        if isinstance(sample, TokenSample):
            tokens = EncodedSample(np.array(sample.input_ids, np.int64), np.array(sample.labels, np.int64))
            encoded.append((tokens, _Notice()))
        elif tokenizer is None:
            raise HeadnbError(f"the samples of {task.name} are text and need a tokenizer")
        else:
            texts.append(_render(sample, tokenizer, special, f"sample {key!r:.60} of {task.name}"))
    if not texts or tokenizer is None:
        return encoded
    return _Tokenization(tokenizer).encoded(texts, together=encoding == "trl")


def _any_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern that matches any of these texts, the longest first."""
    ordered = sorted(filter(None, texts), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def _render(
    sample: Sample, tokenizer: PreTrainedTokenizerBase, special: re.Pattern[str] | None, where: str
) -> _RenderedText:
    if isinstance(sample.prompt, str) and isinstance(sample.completion, str):
        return _RenderedText(sample.prompt, sample.completion, chat=False)
    chat = render_chat(sample, tokenizer, where)
    count = sum(len(special.findall(text)) for text in rendered_texts(sample)) if special else 0
    return _RenderedText(chat.prompt, chat.completion, chat=True, loses_text=chat.loses_text, special=count)


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """Id and text of every special token, except an unknown token that has no other use (in GPT-2 it ends texts)."""
    added: dict[int, str] = {}
    with contextlib.suppress(NotImplementedError, AttributeError):  # mistral_common's tokenizers have no such list
        added = {key: token.content for key, token in tokenizer.added_tokens_decoder.items() if token.special}
    named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    used = {getattr(tokenizer, f"{use}_token_id", None) for use in ("bos", "eos", "pad", "sep", "cls", "mask")}
    return {key: text for key, text in (added | named).items() if key != tokenizer.unk_token_id or key in used}


class _Tokenization:
    """Tokenizes texts and adds the tokenizer's special tokens once.

    A prompt that the user rendered may begin with the beginning-of-sequence token, and a completion may end with the
    end-of-sequence token; neither is added again.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._prefix = prefix_tokens(tokenizer)
        self._special = special_tokens(tokenizer).keys()

    def encoded(self, texts: Sequence[_RenderedText], *, together: bool) -> list[tuple[EncodedSample, _Notice]]:
        """Tokens, labels and notices of each text, with prompt and completion tokenized together or separately."""
        prompts = self._ids([text.prompt for text in texts])
        if together:
            wholes = self._ids([text.prompt + text.completion for text in texts])
            pairs = [_split_at_common_prefix(prompt, whole) for prompt, whole in zip(prompts, wholes, strict=True)]
        else:
            pairs = list(zip(prompts, self._ids([text.completion for text in texts]), strict=True))
        return [self._add_special_tokens(*pair, text) for pair, text in zip(pairs, texts, strict=True)]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def _add_special_tokens(
        self, prompt: list[int], answer: list[int], text: _RenderedText
    ) -> tuple[EncodedSample, _Notice]:
        """The sample with beginning and end tokens added, unless a chat template has already written them."""
        front, end, ids = self._prefix, self._tokenizer.eos_token_id, prompt + answer
        notice = _Notice(special=text.special, loses_text=text.loses_text)
        if not text.chat:
            notice.bos = bool(front) and ids[:1] == front[:1]
            notice.eos = self._ends_with_eos(answer)
            within = ids[_common_prefix_length(ids, front) :] if notice.bos else ids
            notice.special = sum(token in self._special for token in within) - notice.eos
            prompt = prompt if notice.bos else front + prompt
            answer = answer if notice.eos or end is None else [*answer, end]
        labels = np.array([IGNORED] * len(prompt) + answer, np.int64)
        return EncodedSample(np.array(prompt + answer, np.int64), labels), notice

    def _ends_with_eos(self, answer: list[int]) -> bool:
        """Whether an answer ends with the end-of-sequence token, ignoring white space after it."""
        end = self._tokenizer.eos_token_id
        if end is None or end not in answer:
            return False
        rest = answer[len(answer) - answer[::-1].index(end) :]
        return not rest or not str(self._tokenizer.decode(rest)).strip()


def _split_at_common_prefix(prompt: list[int], whole: list[int]) -> tuple[list[int], list[int]]:
    """Split the tokens of a whole text at the first one that differs from the prompt's tokens."""
    length = _common_prefix_length(prompt, whole)
    return whole[:length], whole[length:]


def _common_prefix_length(first: list[int], second: list[int]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(first), len(second)))


def prefix_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that the tokenizer puts before a text."""
    bare, full = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    return list(full[: full.index(bare[0])]) if bare and bare[0] in full else []
