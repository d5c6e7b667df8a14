"""Chat samples as text: what a chat template makes of prompt and completion, and whether all of it is there.

Templates are programs of strangers. They may fail in any way, and leave out what they do not know. They run in a
process of their own: see `template_process`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from headnb.engine.template_process import TemplateRefusedError, render_apart
from headnb.errors import HeadnbError, one_line
from headnb.tasks.chat_rows import message_text, missing_text
from headnb.tasks.row_values import check_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase

    from headnb.tasks.chat_rows import Message
    from headnb.tasks.samples import Sample

# What transformers makes of the messages before a template sees them, written down by a template that can be trusted.
_GIVEN = "{{ [messages, tools, documents] | tojson }}"


@dataclass(frozen=True)
class RenderedChat:
    """A sample of chat messages as text."""

    prompt: str
    completion: str
    loses_text: bool
    """Whether the template leaves out text of the prompt, such as the reasoning of earlier turns, or tools."""


def render_chat(sample: Sample, tokenizer: PreTrainedTokenizerBase, where: str) -> RenderedChat:
    """Prompt and completion as the chat template writes them.

    Raises:
        HeadnbError: no template, one that fails, that writes the prompt differently before an answer, or that leaves
            out text of the completion: then other tokens would be scored than the data has.
    """
    if not tokenizer.chat_template:
        raise HeadnbError("these samples are chat messages, and the tokenizer has no chat template")
    prompt: list[Message] = list(sample.prompt)  # type: ignore[arg-type]  # who calls has looked
    completion: list[Message] = list(sample.completion)  # type: ignore[arg-type]
    start = _apply_template(sample, prompt, tokenizer, where, add_generation_prompt=True)
    whole = _apply_template(sample, [*prompt, *completion], tokenizer, where, add_generation_prompt=False)
    if not whole.startswith(start):
        raise HeadnbError(f"{where}: the chat template writes the prompt in another way when an answer follows it")
    squeezed, begin = _strip_whitespace(whole), len(_strip_whitespace(start))
    _check_no_python_repr([*prompt, *completion], squeezed, where)
    in_answer = _text_finder(squeezed, begin)
    for message in completion:
        if missing := missing_text(message, in_answer):
            raise HeadnbError(one_line(f"{where}: the chat template leaves out text of the answer: {missing[0]!r:.80}"))
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
    refused = f"{where}: the chat template refuses messages with the roles {roles:.80}: "
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
            seen = json.loads(str(apply(chat_template=_GIVEN)))
            given = dict(zip(("messages", "tools", "documents"), seen, strict=True))
            variables = {**tokenizer.special_tokens_map, **extras, **given}
            template = tokenizer.get_chat_template(tools=sample.tools)
            text = render_apart(template, variables | {"add_generation_prompt": add_generation_prompt})
    except TemplateRefusedError as error:
        advice = "" if error.failed else "; samples that you render yourself, as text, are scored as they are"
        raise HeadnbError(one_line(refused + one_line(error)) + advice) from None
    except HeadnbError:
        raise
    except Exception as error:
        raise HeadnbError(one_line(f"{refused}{type(error).__name__}: {one_line(error)}")) from error
    if not isinstance(text, str):
        raise HeadnbError(f"{where}: the chat template gives a {type(text).__name__}, not text")
    check_text(text, f"{where}: what the chat template writes")
    return text


def _has_a_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether it writes chats as a template says; the tokenizers of mistral_common do it by themselves."""
    from transformers import PreTrainedTokenizerBase  # noqa: PLC0415

    return type(tokenizer).apply_chat_template is PreTrainedTokenizerBase.apply_chat_template


def _strip_whitespace(text: str) -> str:
    """A text without white space, which templates trim and add."""
    return "".join(text.split())


def _text_finder(squeezed: str, begin: int) -> Callable[[str], bool]:
    """Whether a text is in `squeezed` and ends behind `begin`, white space aside."""

    def has(text: str) -> bool:
        wanted = _strip_whitespace(text)
        place = squeezed.rfind(wanted)
        return not wanted or (place >= 0 and place + len(wanted) > begin)

    return has


def _check_no_python_repr(messages: list[Message], squeezed: str, where: str) -> None:
    """A template made for text alone writes content in parts as Python writes a list."""
    for message in messages:
        content = message.get("content")
        if isinstance(content, list) and _strip_whitespace(str(content)) in squeezed:
            raise HeadnbError(
                f"{where}: the chat template does not read content in parts, but writes it as {str(content)!r:.60}; "
                "give the content as text"
            )


def _loses_extras(sample: Sample, has: Callable[[str], bool]) -> bool:
    tools = [tool.get("function", tool) for tool in sample.tools or ()]
    named = [str(tool.get("name", "")) for tool in tools if isinstance(tool, dict)]
    texts = [value for document in sample.documents or () for value in document.values() if isinstance(value, str)]
    return not all(map(has, [*named, *texts]))


def rendered_texts(sample: Sample) -> list[str]:
    """The texts of all messages, in which control tokens are looked for."""
    return [message_text(message) for part in (sample.prompt, sample.completion) for message in part]  # type: ignore[arg-type]
