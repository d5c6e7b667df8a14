"""One sample of a task, and how a row of somebody's data becomes one, or a plain error that says where and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from headnb.errors import HeadnbError

Message: TypeAlias = dict[str, str]
Text: TypeAlias = str | list[Message]
Id: TypeAlias = int | str

IGNORED = -100  # the label of a token that is not part of the answer


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """A prompt and the completion that is scored: both text, or both chat messages (`role` and `content`)."""

    prompt: Text
    completion: Text


@dataclasses.dataclass(frozen=True, slots=True)
class TokenSample:
    """A sample that is encoded already: no tokenizer is needed.

    Attributes:
        input_ids: token ids of prompt and completion.
        labels: as long as `input_ids`: the token id where the token is part of the answer, else -100.
    """

    input_ids: list[int]
    labels: list[int]


def read_row(row: object, where: str, fields: Mapping[str, str] | None = None) -> Sample | TokenSample:
    r"""A sample from one row.

    Args:
        row: a (prompt, completion) pair, a `Sample` or `TokenSample`, or a mapping with `prompt` and
            `completion` (text or chat messages), with `messages` (the last one, of the assistant, is the
            completion), or with `input_ids` and `labels` (or TRL's `completion_mask`).
        where: names the row in errors, for instance "pairs.jsonl line 3".
        fields: which columns hold what, `{"prompt": "question", "completion": "answer"}`; a value with
            braces is a template, `"Question: {question}\nAnswer: "`.

    Raises:
        HeadnbError: the row is of another type, lacks a field, or holds something that is not text.
    """
    if isinstance(row, (Sample, TokenSample)):
        row = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    elif isinstance(row, (tuple, list)) and len(row) == 2:
        row = {"prompt": row[0], "completion": row[1]}
    if not isinstance(row, Mapping):
        raise HeadnbError(
            f"{where} is {_kind(row)}; a sample is a (prompt, completion) pair or a dict with those names"
        )
    if fields is not None:
        row = _mapped(row, where, fields)
    if "input_ids" in row:
        return _token_sample(row, where)
    if "messages" in row and "completion" not in row:
        row = _split_messages(row["messages"], where)
    missing = [name for name in ("prompt", "completion") if name not in row]
    if missing:
        raise HeadnbError(
            f"{where} lacks {' and '.join(map(repr, missing))}; it has {_names(row)}"
            ' (other names: fields={"prompt": ..., "completion": ...})'
        )
    return _text_sample(row["prompt"], row["completion"], where)


def _mapped(row: Mapping[str, Any], where: str, fields: Mapping[str, str]) -> dict[str, Any]:
    mapped = {}
    for name, column in fields.items():
        if column in row:
            mapped[name] = row[column]
            continue
        if "{" not in column:
            raise HeadnbError(f"{where} has no column {column!r} for {name!r}; it has {_names(row)}")
        try:
            mapped[name] = column.format_map(row)
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise HeadnbError(
                f"{where} does not fit the template {column!r} ({type(error).__name__}: {error}); it has {_names(row)}"
            ) from error
    return mapped


def _text_sample(prompt: object, completion: object, where: str) -> Sample:
    parts: list[Text] = []
    for name, value in (("prompt", prompt), ("completion", completion)):
        if isinstance(value, str):
            _check_text(value, f"{where}: {name}")
            parts.append(value)
        elif isinstance(value, Sequence) and value:
            parts.append([_message(message, f"{where}: {name}") for message in value])
        else:
            raise HeadnbError(f"{where}: {name} is {_kind(value)}, not text or a list of chat messages")
    if isinstance(parts[0], str) != isinstance(parts[1], str):
        raise HeadnbError(f"{where}: prompt and completion must both be text or both be chat messages")
    answer = parts[1] if isinstance(parts[1], str) else "".join(message["content"] for message in parts[1])
    if not answer.strip():
        raise HeadnbError(f"{where}: the completion is empty, so there is no answer to score")
    return Sample(parts[0], parts[1])


def _message(message: object, where: str) -> Message:
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        raise HeadnbError(f"{where}: a chat message is a dict with 'role' and 'content', not {_kind(message)}")
    for name in ("role", "content"):
        if not isinstance(message[name], str):
            raise HeadnbError(f"{where}: a message's {name} is {_kind(message[name])}, not text")
        _check_text(message[name], where)
    return {"role": message["role"], "content": message["content"]}


def _split_messages(messages: object, where: str) -> dict[str, Any]:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or len(messages) < 2:
        raise HeadnbError(f"{where}: messages must be a list of at least a question and its answer")
    last = messages[-1]
    if not isinstance(last, Mapping) or last.get("role") != "assistant":
        raise HeadnbError(f"{where}: the last message must be the assistant's: it is what is scored")
    return {"prompt": list(messages[:-1]), "completion": [last]}


def _token_sample(row: Mapping[str, Any], where: str) -> TokenSample:
    input_ids = _integers(row["input_ids"], f"{where}: input_ids")
    if "labels" in row:
        labels = _integers(row["labels"], f"{where}: labels")
    elif "completion_mask" in row:
        mask = _integers(row["completion_mask"], f"{where}: completion_mask")
        labels = [token if keep else IGNORED for token, keep in zip(input_ids, mask, strict=False)]
    else:
        raise HeadnbError(f"{where} has input_ids but neither 'labels' nor 'completion_mask'; it has {_names(row)}")
    if len(labels) != len(input_ids):
        raise HeadnbError(f"{where}: {len(input_ids)} input_ids but {len(labels)} labels")
    if any(token < 0 for token in input_ids) or any(label < 0 and label != IGNORED for label in labels):
        raise HeadnbError(f"{where}: token ids are 0 or more, and a label that is not scored is {IGNORED}")
    # The first token has nothing before it that could predict it, so its label is never used.
    if all(label == IGNORED for label in labels[1:]):
        raise HeadnbError(f"{where}: no token has a label, so there is no answer to score")
    return TokenSample(input_ids, labels)


def _integers(values: Any, where: str) -> list[int]:
    if hasattr(values, "tolist"):  # an array or a tensor
        values = values.tolist()
    if not isinstance(values, Sequence) or not all(type(value) in {int, bool} for value in values):
        raise HeadnbError(f"{where} must be a flat list of integers")
    return [int(value) for value in values]


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise HeadnbError(f"{where} holds half of a character pair (position {error.start})") from error


def _kind(value: object) -> str:
    if value is None:
        return "empty (None)"
    if isinstance(value, Mapping):
        return f"a dict with {_names(value)}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, row)) or "no names"
