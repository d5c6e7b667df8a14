"""Chat messages of a row: kept with all their fields, since chat templates read tool calls, reasoning and others.

What of a message a template has written is found by its texts: `missing_text`.
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
# Arguments of `apply_chat_template` that are no variables of a template.
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
    """A chat message with all its fields, without those that are None; None as content is known to templates.

    Raises:
        HeadnbError: no role; no content, reasoning or tool calls; parts of the content that are not text.
    """
    if not isinstance(message, Mapping) or "role" not in message:
        raise HeadnbError(f"{where}: a chat message is a dict with 'role' and 'content', not {describe_type(message)}")
    if not isinstance(message["role"], str):
        raise HeadnbError(f"{where}: a message's role is {describe_type(message['role'])}, not text")
    others = [name for name in (*REASONING, "tool_calls") if message.get(name)]
    if "content" not in message and not others:
        raise HeadnbError(f"{where}: a chat message is a dict with 'role' and 'content', not {describe_type(message)}")
    content = message.get("content")
    if isinstance(content, (list, tuple)) and content:
        for place, part in enumerate(content):
            _check_part(part, f"{where}: part {place} of a message's content")
    elif not isinstance(content, str) and not (content is None and others):
        raise HeadnbError(f"{where}: a message's content is {describe_type(content)}, not text or a list of parts")
    for name in REASONING:
        if not isinstance(message.get(name), (str, type(None))):
            raise HeadnbError(f"{where}: a message's {name} is {describe_type(message[name])}, not text")
    calls = message.get("tool_calls") or []
    if not isinstance(calls, (list, tuple)) or not all(isinstance(call, Mapping) for call in calls):
        raise HeadnbError(f"{where}: a message's tool_calls are {describe_type(calls)}, not a list of dicts")
    kept = {name: value for name, value in message.items() if value is not None or name == "content"}
    found: Message = json_value(kept, where)
    return found


def _check_part(part: object, where: str) -> None:
    if not isinstance(part, Mapping) or not isinstance(part.get("text"), str) or part.get("type", "text") != "text":
        said = f"of type {part['type']!r:.40}" if isinstance(part, Mapping) and "type" in part else describe_type(part)
        raise HeadnbError(f'{where} is {said}; only text is read: {{"type": "text", "text": ...}}')


def read_extras(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a row of chat messages gives its template beside them: tools, documents and variables.

    Raises:
        HeadnbError: one of another form, or pictures and sounds, which are not read.
    """
    for name in MEDIA:
        value = row.get(name)
        if not (
            value is None or isinstance(value, (str, int, float)) or (hasattr(value, "__len__") and not len(value))
        ):
            raise HeadnbError(f"{where} has {name!r}, which is not read: only text is scored; remove it")
    found: dict[str, Any] = {}
    for name in EXTRAS:
        value = row.get(name)
        if name == "tools" and isinstance(value, str):  # as TRL reads it
            value = parse_json(value, f"{where}: tools")
        if value is None:
            continue
        found[name] = json_value(value, f"{where}: {name}")
        listed = found[name] if name != "chat_template_kwargs" else [found[name]]
        if not isinstance(listed, list) or not all(isinstance(part, dict) for part in listed):
            form = "a dict" if name == "chat_template_kwargs" else "a list of dicts"
            raise HeadnbError(f"{where}: {name} is {describe_type(value)}, not {form}")
    if reserved := _NOT_VARIABLES & found.get("chat_template_kwargs", {}).keys():
        raise HeadnbError(f"{where}: chat_template_kwargs holds {min(reserved)!r}, which is not a template's variable")
    return found


def message_texts(message: Message) -> list[str]:
    """Content (of each part) and reasoning."""
    content = message.get("content") or ""
    parts = [content] if isinstance(content, str) else [part["text"] for part in content]
    return [*parts, *(message[name] for name in REASONING if name in message)]


def message_text(message: Message) -> str:
    """All that a message says, its tool calls as JSON."""
    calls = [json.dumps(call.get("function", call), ensure_ascii=False) for call in message.get("tool_calls", ())]
    return "\n".join([*message_texts(message), *calls])


def missing_text(message: Message, has: Callable[[str], bool]) -> list[str]:
    """The texts of a message that are not in a rendered text, which `has` looks into."""
    missing = [text for text in message_texts(message) if not has(text)]
    for call in message.get("tool_calls", ()):
        function = call.get("function", call)
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            # A template may have read the text, and written it again.
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
    """The texts in a JSON value, keys included; numbers may be written in several ways."""
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
    """Whether a text is there as it is or as JSON writes it."""
    return has(text) or any(has(json.dumps(text, ensure_ascii=ascii_only)[1:-1]) for ascii_only in (False, True))
