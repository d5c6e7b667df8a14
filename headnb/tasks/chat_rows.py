"""Chat messages of a row, with all their fields, because chat templates read tool calls, reasoning and other fields.

`missing_text` finds the texts of a message that a rendered chat lacks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from headnb.errors import HeadnbError
from headnb.tasks.row_values import describe_type, json_value, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Message: TypeAlias = dict[str, Any]

REASONING = ("reasoning_content", "reasoning", "thinking")
EXTRAS = ("tools", "documents", "chat_template_kwargs")
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
# Arguments of `apply_chat_template` that are not template variables.
_NOT_VARIABLES = {
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "max_length",
    "padding",
    "return_assistant_tokens_mask",
    "return_dict",
    "return_tensors",
    "sanitize_control_tokens",
    "tokenize",
    "tokenizer_kwargs",
    "truncation",
}


def read_message(message: object, where: str) -> Message:
    """A chat message without the fields that are None, except `content`: templates handle None as content.

    Raises:
        HeadnbError: no role; no content, reasoning or tool calls; a field of the wrong type; content that is not text.
    """
    if not isinstance(message, Mapping) or "role" not in message:
        raise HeadnbError(f"{where}: a chat message is a dict with 'role' and 'content', not {describe_type(message)}")
    if not isinstance(message["role"], str):
        raise HeadnbError(f"{where}: a message's role is {describe_type(message['role'])}, not text")
    has_other_text = any(message.get(name) for name in (*REASONING, "tool_calls"))
    if "content" not in message and not has_other_text:
        raise HeadnbError(f"{where}: a chat message is a dict with 'role' and 'content', not {describe_type(message)}")
    content = message.get("content")
    if isinstance(content, (list, tuple)) and content:
        for index, part in enumerate(content):
            _check_part(part, f"{where}: part {index} of a message's content")
    elif not isinstance(content, str) and not (content is None and has_other_text):
        raise HeadnbError(f"{where}: a message's content is {describe_type(content)}, not text or a list of parts")
    for name in REASONING:
        if not isinstance(message.get(name), (str, type(None))):
            raise HeadnbError(f"{where}: a message's {name} is {describe_type(message[name])}, not text")
    calls = message.get("tool_calls") or []
    if not isinstance(calls, (list, tuple)) or not all(isinstance(call, Mapping) for call in calls):
        raise HeadnbError(f"{where}: a message's tool_calls are {describe_type(calls)}, not a list of dicts")
    fields = {name: value for name, value in message.items() if value is not None or name == "content"}
    result: Message = json_value(fields, where)
    return result


def _check_part(part: object, where: str) -> None:
    if not isinstance(part, Mapping) or not isinstance(part.get("text"), str) or part.get("type", "text") != "text":
        typed = isinstance(part, Mapping) and "type" in part
        actual = f"of type {part['type']!r:.40}" if typed else describe_type(part)  # type: ignore[index]
        raise HeadnbError(f'{where} is {actual}; only text is supported: {{"type": "text", "text": ...}}')


def read_extras(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The other template inputs of a row of chat messages: tools, documents and template variables.

    Raises:
        HeadnbError: an input of the wrong form, or images, video or audio, which are not supported.
    """
    for name in MEDIA:
        value = row.get(name)
        if not (
            value is None or isinstance(value, (str, int, float)) or (hasattr(value, "__len__") and not len(value))
        ):
            raise HeadnbError(f"{where} has {name!r}, which is not supported: only text is scored; remove it")
    extras: dict[str, Any] = {}
    for name in EXTRAS:
        value = row.get(name)
        if name == "tools" and isinstance(value, str):  # TRL accepts a JSON text as well
            value = parse_json(value, f"{where}: tools")
        if value is None:
            continue
        extras[name] = json_value(value, f"{where}: {name}")
        listed = extras[name] if name != "chat_template_kwargs" else [extras[name]]
        if not isinstance(listed, list) or not all(isinstance(part, dict) for part in listed):
            form = "a dict" if name == "chat_template_kwargs" else "a list of dicts"
            raise HeadnbError(f"{where}: {name} is {describe_type(value)}, not {form}")
    if reserved := _NOT_VARIABLES & extras.get("chat_template_kwargs", {}).keys():
        raise HeadnbError(f"{where}: chat_template_kwargs has {min(reserved)!r}, which is not a template variable")
    return extras


def message_texts(message: Message) -> list[str]:
    """The content (each part) and the reasoning of a message."""
    content = message.get("content") or ""
    parts = [content] if isinstance(content, str) else [part["text"] for part in content]
    return [*parts, *(message[name] for name in REASONING if name in message)]


def message_text(message: Message) -> str:
    """The full text of a message, with its tool calls as JSON."""
    calls = [json.dumps(call.get("function", call), ensure_ascii=False) for call in message.get("tool_calls", ())]
    return "\n".join([*message_texts(message), *calls])


def missing_text(message: Message, has: Callable[[str], bool]) -> list[str]:
    """The texts of a message that a rendered chat lacks; `has` tells whether the chat contains a text."""
    missing = [text for text in message_texts(message) if not has(text)]
    for call in message.get("tool_calls", ()):
        function = call.get("function", call)
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            # A template may have parsed the JSON text and written it in another form.
            arguments = None if has(arguments) else _parse_or_keep(arguments)
        called = {name: value for name, value in (("name", function.get("name")), ("arguments", arguments)) if value}
        missing += [text for value in called.values() for text in _leaves(value) if not _is_written(text, has)]
    return missing


def _parse_or_keep(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _leaves(value: Any) -> Iterator[str]:
    """The texts in a JSON value, including keys. Numbers are omitted: templates may format them differently."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from _leaves(part)


def _is_written(text: str, has: Callable[[str], bool]) -> bool:
    """Whether the chat contains a text, either literally or in JSON's escaped form."""
    return has(text) or any(has(json.dumps(text, ensure_ascii=ascii_only)[1:-1]) for ascii_only in (False, True))
