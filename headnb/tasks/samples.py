"""Samples of a task, and their conversion from rows of data, with errors that name the row and the cause."""

from __future__ import annotations

import dataclasses
import functools
import numbers
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias, TypeGuard

from headnb.errors import HeadnbError, unknown_name
from headnb.tasks.chat_rows import EXTRAS, MEDIA, Message, message_text, read_extras, read_message
from headnb.tasks.encoded_rows import MASK_COLUMNS, SEQUENCE_COLUMNS, is_other_input, read_segments
from headnb.tasks.row_values import check_text, column_names, describe_type

Text: TypeAlias = str | list[Message]
Id: TypeAlias = int | str

LONGEST_ID = 1000  # characters


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """A prompt and the completion that is scored: both text, or both chat messages (`role` and `content`).

    Attributes:
        prompt: text, or messages with all their fields (`tool_calls`, `reasoning_content`, content in parts of text).
        completion: text or messages, like the prompt.
        tools: tools for `apply_chat_template`, as JSON; None: no tools.
        documents: documents for `apply_chat_template`, as JSON; None: no documents.
        chat_template_kwargs: variables of the chat template, such as `{"enable_thinking": False}`.
    """

    prompt: Text
    completion: Text
    tools: list[dict[str, Any]] | None = None
    documents: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class TokenSample:
    """An encoded sample, which needs no tokenizer.

    Attributes:
        input_ids: token ids of prompt and completion.
        labels: same length: the token id where the token is part of the answer, else -100.
    """

    input_ids: list[int]
    labels: list[int]


Read: TypeAlias = list[tuple[int | None, Sample | TokenSample]]
"""The samples of one row, each with its index in the row if the row is packed, else with None."""


def read_row(row: object, where: str, fields: Mapping[str, str] | None = None) -> Sample | TokenSample:
    r"""The sample of one row.

    Args:
        row: a (prompt, completion) pair, a `Sample` or `TokenSample`, or a mapping, named tuple or dataclass with
            `prompt` and `completion` (text or chat messages), with `messages` (the last one, of the assistant, is the
            completion), or with `input_ids` and `labels` (or TRL's `completion_mask` and `assistant_masks`).
            The chat template gets the messages with all their fields, and the row's `tools`, `documents` and
            `chat_template_kwargs`. Encoded rows may have an `attention_mask`, `position_ids` and `seq_lengths`.
        where: name of the row in errors, for example "pairs.jsonl line 3".
        fields: columns of the prompt and the completion, `{"prompt": "question", "completion": "answer"}`; a value
            with braces is a template, `"Question: {question}\nAnswer: "`. Numbers are converted by `str`: the number 72
            becomes the text "72".

    Raises:
        HeadnbError: the row has another type, lacks a field, has a value that is not text, or has several samples.
    """
    samples = read_samples(row, where, fields)
    if len(samples) > 1:
        raise HeadnbError(f"{where} has {len(samples)} packed samples, expected one; load_task splits such rows")
    return samples[0][1]


def read_samples(row: object, where: str, fields: Mapping[str, str] | None = None) -> Read:
    """The samples of one row (see `read_row`), without the samples of a packed row that have no answer."""
    row = as_named_row(row, where)
    if fields is not None:
        row = _rename_columns(row, fields, where)
    read = next((kind.read for kind in KINDS if kind.columns[0] in row), _read_pair)
    return read(row, where)


def _read_encoded(row: Mapping[str, Any], where: str) -> Read:
    return [(part.number, TokenSample(part.input_ids, part.labels)) for part in read_segments(row, where)]


def _read_pair(row: Mapping[str, Any], where: str) -> Read:
    missing = [name for name in ("prompt", "completion") if name not in row]
    if missing:
        raise HeadnbError(
            f"{where} lacks {' and '.join(map(repr, missing))}; it has {column_names(row)}"
            '; name the columns with fields={"prompt": ..., "completion": ...}'
        )
    return [(None, _text_sample(row, where))]


def _read_chat(row: Mapping[str, Any], where: str) -> Read:
    return [(None, _text_sample({**row, **_split_messages(row["messages"], where)}, where))]


class RowKind(NamedTuple):
    """A kind of row in task files and data sets."""

    columns: tuple[str, ...]
    """The columns of the sample; a row that has the first one is of this kind."""
    optional: tuple[str, ...]
    """Other columns that are read if a row has them."""
    read: Callable[[Mapping[str, Any], str], Read]
    """Reads a row; the second argument is the name of the row in errors."""


KINDS = (  # the first matching kind is used
    RowKind(("input_ids", "labels", *MASK_COLUMNS), SEQUENCE_COLUMNS, _read_encoded),
    RowKind(("completion", "prompt"), EXTRAS, _read_pair),
    RowKind(("messages",), EXTRAS, _read_chat),
)
FIELDS = (*dict.fromkeys(name for kind in KINDS for name in (*kind.columns, *kind.optional)), "id")
_ANSWERS = {"labels", *MASK_COLUMNS}
_OPTIONAL = {*MEDIA, *(name for kind in KINDS for name in kind.optional)}


def _rename_columns(row: Mapping[str, Any], fields: Mapping[str, str], where: str) -> dict[str, Any]:
    """The columns of `fields` under their new names, the columns that complete the sample, and the optional columns."""
    renamed = {name: read_field(row, name, column, where) for name, column in fields.items() if name != "id"}
    used = set(fields.values())
    for name, value in row.items():
        if name in _OPTIONAL or is_other_input(name):
            renamed.setdefault(name, None if name in used else value)
    named = fields.keys() & {name for kind in KINDS for name in kind.columns}
    completing = {name for kind in KINDS if named <= set(kind.columns) for name in kind.columns} - used
    if named & _ANSWERS:  # labels and masks are alternatives
        completing -= _ANSWERS
    return {**{name: row[name] for name in completing & row.keys()}, **renamed}


def as_mapping(row: object) -> Mapping[str, Any] | None:
    """A mapping, named tuple or dataclass as a mapping of its names; None for other types."""
    if isinstance(row, Mapping):
        return row
    if isinstance(row, tuple) and hasattr(row, "_asdict"):
        values: dict[str, Any] = row._asdict()
        return values
    if dataclasses.is_dataclass(row) and not isinstance(row, type):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    return None


def as_named_row(row: object, where: str) -> Mapping[str, Any]:
    """A row as a mapping; the parts of a pair are named `prompt` and `completion`.

    Raises:
        HeadnbError: the row is not a pair, a sample or a mapping.
    """
    mapping = as_mapping(row)
    if mapping is not None:
        return mapping
    if isinstance(row, (tuple, list)) and len(row) == 2:
        return {"prompt": row[0], "completion": row[1]}
    raise HeadnbError(
        f"{where} is {describe_type(row)}; a sample is a (prompt, completion) pair or a dict with those names"
    )


def sample_line(sample: Sample | TokenSample) -> dict[str, Any]:
    """A sample as JSON without fields that are None, so that new optional fields do not change existing hashes."""
    return {name: value for name, value in dataclasses.asdict(sample).items() if value is not None}


def check_fields(fields: object) -> None:
    """Check the argument `fields` of `read_row`.

    Raises:
        HeadnbError: `fields` is not a mapping from names in `FIELDS` to text.
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
            raise HeadnbError(f"fields: {name!r} must name a column or be a template, not {describe_type(column)}")


def read_field(row: Mapping[str, Any], name: str, column: str, where: str) -> Any:
    """The value that `fields[name] = column` selects from a row: a column, or a filled template.

    Raises:
        HeadnbError: the row has no such column, or a column of the template has neither text nor a number.
    """
    if column in row:
        value = row[column]
        number = name in {"prompt", "completion"} and isinstance(value, (numbers.Real, Decimal))
        return _as_text(value, f"{where}: column {column!r}") if number else value
    if "{" not in column:
        raise HeadnbError(f"{where} has no column {column!r} for {name!r}; it has {column_names(row)}")
    parts = []
    for literal, key in _template(column):
        parts.append(literal)
        if key is None:
            continue
        if key not in row:
            raise HeadnbError(
                f"{where} does not fit the template {column!r}: no column {key!r}; it has {column_names(row)}"
            )
        parts.append(_as_text(row[key], f"{where} does not fit the template {column!r}: column {key!r}"))
    return "".join(parts)


@functools.lru_cache
def _template(text: str) -> tuple[tuple[str, str | None], ...]:
    """Pieces of literal text, each with the column that follows it.

    `str.format` is not used: it would give access to attributes, and could pad one letter to gigabytes.
    """
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError as error:
        raise HeadnbError(f"the template {text!r} is not valid: {error}") from error
    for _, key, form, conversion in pieces:
        if key is not None and (form or conversion or not key or set(key) & set(".[]{}")):
            raise HeadnbError(f"the template {text!r} may contain only column names, such as {{question}}")
    return tuple((literal, key) for literal, key, _, _ in pieces)


def _as_text(value: object, where: str) -> str:
    """Text unchanged, or a number converted by `str`; True and False are not numbers."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bool) and isinstance(value, (numbers.Real, Decimal)):
        try:
            text = str(value)
        except ValueError as error:  # more digits than Python converts
            raise HeadnbError(f"{where}: {error}") from error
        if value.is_finite() if isinstance(value, Decimal) else text not in {"nan", "inf", "-inf"}:
            return text
    raise HeadnbError(f"{where} is {describe_type(value)}, not text or a number")


def read_ids(ids: Iterable[object], where: str) -> tuple[Id, ...]:
    """Check the ids of a task's samples; convert NumPy scalars, and floats and decimals such as 1.0 to whole numbers.

    Raises:
        HeadnbError: the ids are not all text or all 64-bit integers, are not unique, contain characters that files
            cannot store, or are longer than `LONGEST_ID` (in an array of ids each takes the space of the longest).
    """
    unique: dict[Id, None] = {}
    for index, value in enumerate(ids):
        key = value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value
        if _is_whole(key):
            key = int(key)
        if not isinstance(key, (int, str)) or isinstance(key, bool):
            raise HeadnbError(f"{where}: the id of sample {index} is {describe_type(key)}, not text or a whole number")
        if isinstance(key, str):
            check_text(key, f"{where}: the id of sample {index}")
            if len(key) > LONGEST_ID:
                raise HeadnbError(f"{where}: the id of sample {index} has more than {LONGEST_ID} characters")
            if "\0" in key:
                raise HeadnbError(f"{where}: the id of sample {index} contains a null character")
        elif not -(2**63) <= key < 2**63:
            raise HeadnbError(f"{where}: the id of sample {index} is a number of more than 64 bits; give it as text")
        if key in unique:
            raise HeadnbError(f"{where} has the sample id {key!r:.60} twice; ids must be unique")
        unique[key] = None
    if len({isinstance(key, str) for key in unique}) > 1:
        raise HeadnbError(f"{where}: some sample ids are text and some are numbers; use one kind")
    return tuple(unique)


def _is_whole(key: object) -> TypeGuard[float | Decimal]:
    """Whether a float or a decimal is a whole number, as pandas and databases may store whole numbers."""
    if isinstance(key, Decimal):
        return key.is_finite() and abs(key) < 2**64 and key == int(key)
    return isinstance(key, float) and key.is_integer() and abs(key) < 2**53


def _text_sample(row: Mapping[str, Any], where: str) -> Sample:
    parts: list[Text] = []
    for name in ("prompt", "completion"):
        value = row[name]
        if isinstance(value, str):
            check_text(value, f"{where}: {name}")
            parts.append(value)
        elif isinstance(value, Sequence) and value:
            parts.append([read_message(message, f"{where}: {name}") for message in value])
        else:
            raise HeadnbError(f"{where}: {name} is {describe_type(value)}, not text or a list of chat messages")
    prompt, completion = parts
    if isinstance(prompt, str) != isinstance(completion, str):
        raise HeadnbError(f"{where}: prompt and completion must both be text or both be chat messages")
    answer = completion if isinstance(completion, str) else "".join(map(message_text, completion))
    if not answer.strip():
        raise HeadnbError(f"{where}: the completion is empty, so there is no answer to score")
    return Sample(prompt, completion, **({} if isinstance(prompt, str) else read_extras(row, where)))


def _split_messages(messages: object, where: str) -> dict[str, Any]:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or len(messages) < 2:
        raise HeadnbError(f"{where}: messages must be a list of at least two messages, a question and its answer")
    last = messages[-1]
    if not isinstance(last, Mapping) or last.get("role") != "assistant":
        raise HeadnbError(f"{where}: the last message is scored and must be from the assistant")
    return {"prompt": list(messages[:-1]), "completion": [last]}
