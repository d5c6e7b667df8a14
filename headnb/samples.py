"""One sample of a task, and how a row of somebody's data becomes one, or a plain error that says where and why."""

from __future__ import annotations

import dataclasses
import functools
import numbers
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from headnb.errors import HeadnbError, unknown_name

Message: TypeAlias = dict[str, str]
Text: TypeAlias = str | list[Message]
Id: TypeAlias = int | str

IGNORED = -100  # the label of a token that is not part of the answer
FIELDS = ("prompt", "completion", "messages", "input_ids", "labels", "completion_mask", "id")


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
            braces is a template, `"Question: {question}\nAnswer: "`. Numbers are taken as they are written in
            Python: the column's 72 is the text "72".

    Raises:
        HeadnbError: the row is of another type, lacks a field, or holds something that is not text.
    """
    row = named(row, where)
    if fields is not None:
        row = {name: read_field(row, name, column, where) for name, column in fields.items() if name != "id"}
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


def named(row: object, where: str) -> Mapping[str, Any]:
    """The row with a name for each of its parts.

    Raises:
        HeadnbError: it is no pair, no sample and no mapping.
    """
    if isinstance(row, (Sample, TokenSample)):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    if isinstance(row, (tuple, list)) and len(row) == 2:
        return {"prompt": row[0], "completion": row[1]}
    if isinstance(row, Mapping):
        return row
    raise HeadnbError(f"{where} is {_kind(row)}; a sample is a (prompt, completion) pair or a dict with those names")


def check_fields(fields: object) -> None:
    """Refuse what `read_row` cannot use as `fields`.

    Raises:
        HeadnbError: no mapping of the names in `FIELDS` to text.
    """
    if fields is None:
        return
    if not isinstance(fields, Mapping) or not fields:
        raise HeadnbError(
            f'fields must be a dict such as {{"prompt": "question", "completion": "answer"}}, not {fields!r:.60}'
        )
    for name, column in fields.items():
        if name not in FIELDS:
            raise unknown_name("field", str(name), FIELDS)
        if not isinstance(column, str):
            raise HeadnbError(f"fields: {name!r} must name a column or be a template, not {_kind(column)}")


def read_field(row: Mapping[str, Any], name: str, column: str, where: str) -> Any:
    """What `fields[name] = column` takes from a row: a column as it is, or a template filled.

    Raises:
        HeadnbError: no such column, or a template that names one without text or a number in this row.
    """
    if column in row:
        value = row[column]
        number = name in {"prompt", "completion"} and isinstance(value, numbers.Real)
        return _written(value, f"{where}: column {column!r}") if number else value
    if "{" not in column:
        raise HeadnbError(f"{where} has no column {column!r} for {name!r}; it has {_names(row)}")
    parts = []
    for literal, key in _template(column):
        parts.append(literal)
        if key is None:
            continue
        if key not in row:
            raise HeadnbError(f"{where} does not fit the template {column!r}: no column {key!r}; it has {_names(row)}")
        parts.append(_written(row[key], f"{where} does not fit the template {column!r}: column {key!r}"))
    return "".join(parts)


@functools.lru_cache
def _template(text: str) -> tuple[tuple[str, str | None], ...]:
    """Pieces of text, each with the column that follows it.

    Python's own format would also reach into attributes, and pad one letter to gigabytes.
    """
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError as error:
        raise HeadnbError(f"the template {text!r} cannot be read: {error}") from error
    for _, key, form, conversion in pieces:
        if key is not None and (form or conversion or not key or set(key) & set(".[]{}")):
            raise HeadnbError(f"the template {text!r} may hold names of columns only, such as {{question}}")
    return tuple((literal, key) for literal, key, _, _ in pieces)


def _written(value: object, where: str) -> str:
    """Text as it is, a number as Python writes it; True and False are neither."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bool) and isinstance(value, numbers.Real):
        try:
            written = str(value)
        except ValueError as error:  # more digits than Python writes
            raise HeadnbError(f"{where}: {error}") from error
        if written not in {"nan", "inf", "-inf"}:
            return written
    raise HeadnbError(f"{where} is {_kind(value)}, not text or a number")


def read_ids(ids: Iterable[object], where: str) -> tuple[Id, ...]:
    """The ids of a task's samples, one of a kind each.

    Raises:
        HeadnbError: not all text or all whole numbers of 64 bits; text that files cannot hold; or an id twice.
    """
    taken: dict[Id, None] = {}
    for place, held in enumerate(ids):
        key = held.item() if hasattr(held, "item") and getattr(held, "ndim", None) == 0 else held
        if not isinstance(key, (int, str)) or isinstance(key, bool):
            raise HeadnbError(f"{where}: the id of sample {place} is {_kind(key)}, not text or a whole number")
        if isinstance(key, str):
            check_text(key, f"{where}: the id of sample {place}")
            if "\0" in key:
                raise HeadnbError(f"{where}: the id of sample {place} holds a null character")
        elif not -(2**63) <= key < 2**63:
            raise HeadnbError(f"{where}: the id of sample {place} is a number of more than 64 bits; give it as text")
        if key in taken:
            raise HeadnbError(f"{where} has the sample id {key!r:.60} twice; ids must be unique")
        taken[key] = None
    if len({isinstance(key, str) for key in taken}) > 1:
        raise HeadnbError(f"{where}: some sample ids are text and some are numbers; use one kind")
    return tuple(taken)


def _text_sample(prompt: object, completion: object, where: str) -> Sample:
    parts: list[Text] = []
    for name, value in (("prompt", prompt), ("completion", completion)):
        if isinstance(value, str):
            check_text(value, f"{where}: {name}")
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
        check_text(message[name], where)
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
        if len(mask) != len(input_ids):
            raise HeadnbError(f"{where}: {len(input_ids)} input_ids but a completion_mask of {len(mask)}")
        labels = [token if keep else IGNORED for token, keep in zip(input_ids, mask, strict=True)]
    else:
        raise HeadnbError(f"{where} has input_ids but neither 'labels' nor 'completion_mask'; it has {_names(row)}")
    if len(labels) != len(input_ids):
        raise HeadnbError(f"{where}: {len(input_ids)} input_ids but {len(labels)} labels")
    if any(token < 0 for token in input_ids) or any(label < 0 and label != IGNORED for label in labels):
        raise HeadnbError(f"{where}: token ids are 0 or more, and a label that is not scored is {IGNORED}")
    if any(token >= 2**31 for token in (*input_ids, *labels)):
        raise HeadnbError(f"{where}: a token id has more than 31 bits")
    # The first token has nothing before it that could predict it, so its label is never used.
    if all(label == IGNORED for label in labels[1:]):
        raise HeadnbError(f"{where}: no token has a label, so there is no answer to score")
    return TokenSample(input_ids, labels)


def _integers(values: Any, where: str) -> list[int]:
    if hasattr(values, "tolist"):  # an array or a tensor
        values = values.tolist()
    if not isinstance(values, Sequence) or not set(map(type, values)) <= {int, bool}:
        raise HeadnbError(f"{where} must be a flat list of integers")
    return [int(value) for value in values]


def check_text(text: str, where: str) -> None:
    """Half a character pair can be in a str, but not in a file: raise HeadnbError."""
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
