"""Chat samples rendered as text by the chat template, with a check that the template drops no text.

A chat template is a program from an untrusted source. It may fail in any way, and may omit fields that it does not
know. It runs in a separate process: see `template_process`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from headnb.engine.template_process import TemplateRefusedError, render_apart
from headnb.errors import HeadnbError, one_line
from headnb.tasks.chat_rows import message_text, missing_text
from headnb.tasks.row_values import check_text, type_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase

    from headnb.tasks.chat_rows import Message
    from headnb.tasks.samples import Sample

# A trusted template that returns the messages as transformers prepares them for a template.
_PREPARED_INPUTS = "{{ [messages, tools, documents] | tojson }}"


@dataclass(frozen=True)
class RenderedChat:
    """A sample of chat messages as text."""

    prompt: str
    completion: str
    loses_text: bool
    """Whether the template omits text of the prompt, such as the reasoning of earlier turns, or tools."""


def render_chat(sample: Sample, tokenizer: PreTrainedTokenizerBase, where: str) -> RenderedChat:
    """Prompt and completion of a chat sample, rendered by the tokenizer's chat template.

    Raises:
        HeadnbError: no template; the template fails, renders the prompt differently before an answer, or omits text
            of the completion, so that the scored tokens would differ from the data.
    """
    if not tokenizer.chat_template:
        raise HeadnbError("the samples are chat messages, but the tokenizer has no chat template")
    prompt: list[Message] = list(sample.prompt)  # type: ignore[arg-type]  # checked by the caller
    completion: list[Message] = list(sample.completion)  # type: ignore[arg-type]
    start = _apply_template(sample, prompt, tokenizer, where, add_generation_prompt=True)
    whole = _apply_template(sample, [*prompt, *completion], tokenizer, where, add_generation_prompt=False)
    if not whole.startswith(start):
        raise HeadnbError(f"{where}: the chat template renders the prompt differently when an answer follows it")
    squeezed, begin = _strip_whitespace(whole), len(_strip_whitespace(start))
    _check_no_python_repr([*prompt, *completion], squeezed, where)
    in_answer = _text_finder(squeezed, begin)
    for message in completion:
        if missing := missing_text(message, in_answer):
            raise HeadnbError(one_line(f"{where}: the chat template omits text of the answer: {missing[0]!r:.80}"))
    anywhere = _text_finder(squeezed, 0)
    loses = any(missing_text(message, anywhere) for message in prompt) or _loses_extras(sample, anywhere)
    return RenderedChat(start, whole[len(start) :], loses)


def _apply_template(
    sample: Sample,
    messages: list[Message],
    tokenizer: PreTrainedTokenizerBase,
    where: str,
    *,
    add_generation_prompt: bool,
) -> str:
    extras: dict[str, Any] = {"tools": sample.tools, "documents": sample.documents}
    extras = {name: value for name, value in extras.items() if value is not None} | (sample.chat_template_kwargs or {})
    roles = ", ".join(str(message["role"]) for message in messages)
    failure = f"{where}: the chat template fails on messages with the roles {roles:.80}: "
    apply = partial(
        tokenizer.apply_chat_template,
        messages,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        **extras,
    )
    try:
        if not _has_a_template(tokenizer):
            text = apply()
        else:
            values = json.loads(str(apply(chat_template=_PREPARED_INPUTS)))
            prepared = dict(zip(("messages", "tools", "documents"), values, strict=True))
            variables = {**tokenizer.special_tokens_map, **extras, **prepared}
            template = tokenizer.get_chat_template(tools=sample.tools)
            text = render_apart(template, variables | {"add_generation_prompt": add_generation_prompt})
    except TemplateRefusedError as error:
        advice = "" if error.failed else "; render the samples yourself and pass them as text"
        raise HeadnbError(one_line(failure + one_line(error)) + advice) from None
    except HeadnbError:
        raise
    except Exception as error:
        raise HeadnbError(one_line(f"{failure}{type(error).__name__}: {one_line(error)}")) from error
    if not isinstance(text, str):
        raise HeadnbError(f"{where}: the chat template returns {type_name(text)}, not text")
    check_text(text, f"{where}: the output of the chat template")
    return text


def _has_a_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer renders chats by a template; the tokenizers of mistral_common use their own code."""
    from transformers import PreTrainedTokenizerBase  # noqa: PLC0415

    return type(tokenizer).apply_chat_template is PreTrainedTokenizerBase.apply_chat_template


def _strip_whitespace(text: str) -> str:
    """The text without white space, because templates trim and add it."""
    return "".join(text.split())


def _text_finder(squeezed: str, begin: int) -> Callable[[str], bool]:
    """A function that tells whether `squeezed` contains a text that ends after `begin`, ignoring white space."""

    def has(text: str) -> bool:
        wanted = _strip_whitespace(text)
        position = squeezed.rfind(wanted)
        return not wanted or (position >= 0 and position + len(wanted) > begin)

    return has


def _check_no_python_repr(messages: list[Message], squeezed: str, where: str) -> None:
    """A template for text content only renders a list of content parts as Python's repr of the list."""
    for message in messages:
        content = message.get("content")
        if isinstance(content, list) and _strip_whitespace(str(content)) in squeezed:
            raise HeadnbError(
                f"{where}: the chat template does not support content in parts, and renders it as "
                f"{str(content)!r:.60}; give the content as text"
            )


def _loses_extras(sample: Sample, has: Callable[[str], bool]) -> bool:
    """Whether the name of a tool or a text of a document is missing."""
    tools = [tool.get("function", tool) for tool in sample.tools or ()]
    named = [str(tool.get("name", "")) for tool in tools if isinstance(tool, dict)]
    texts = [value for document in sample.documents or () for value in document.values() if isinstance(value, str)]
    return not all(map(has, [*named, *texts]))


def rendered_texts(sample: Sample) -> list[str]:
    """The texts of all messages of a sample."""
    return [message_text(message) for part in (sample.prompt, sample.completion) for message in part]  # type: ignore[arg-type]
