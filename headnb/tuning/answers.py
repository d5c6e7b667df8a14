r"""Extraction of the answer from a completion. The text is parsed and never executed.

Each task of the registry names one of the answer forms below (`TaskCard.answer`). A completion is correct if its
extracted answer equals the answer extracted from the sample's completion. `#### 1,200` and `#### 1200.0` are equal, and
so are two equations that differ in the order of their operands.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from headnb.errors import HeadnbError, unknown_name
from headnb.tasks import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Reader = Callable[[str], str]

NO_ANSWER = "none"
_NUMBER = r"(?:(?<![\w)])[-\u2212])?\$?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:e[+-]?\d\d?\b)?"
_CHOICE = r"(answer|ending|option)\s?([1-9])"
_TRUTH = r"(true|false|yes|no)\b"
# An answer in this form has priority over answers that the text mentions earlier.
_STATED_ANSWER = r"answer\b[^.\n]{0,60}? is:?\s*[\"'(*]*"
_NEXT_QUESTION = re.compile(r"\n\s*Question:")  # a model that has not learnt to stop writes another question


@dataclass(frozen=True)
class AnswerForm:
    """Rule that extracts the answer from a completion."""

    name: str
    meaning: str
    """Description of the compared text, shown to users."""
    read: Reader
    """Function from a text to its answer in normalised form; empty if there is no answer."""
    complete: str = r"(?!)"
    """Regular expression that matches a text once further text cannot change the answer."""

    def answer(self, text: str) -> str:
        """The answer in a text, which ends where the next question begins."""
        return self.read(_NEXT_QUESTION.split(text, maxsplit=1)[0])

    def is_complete(self, text: str) -> bool:
        """Whether further text cannot change the answer."""
        return bool(re.search(self.complete, text, re.IGNORECASE) or _NEXT_QUESTION.search(text))


def _number(text: str, mark: str = "", *, first: bool = False) -> str:
    """The first or the last number that follows `mark`; the text's last number if none follows it."""
    marked = re.findall(rf"{mark}\s*({_NUMBER})", text, re.ASCII) if mark else []
    numbers = marked or re.findall(_NUMBER, text, re.ASCII)
    if not numbers:
        return ""
    plain = re.sub(r"[$,]", "", numbers[0 if marked and first else -1]).replace("\u2212", "-")
    digits = format(Decimal(plain), "f")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return "0" if digits == "-0" else digits


def _choice(text: str) -> str:
    match = re.search(_STATED_ANSWER + _CHOICE, text, re.IGNORECASE) or re.search(_CHOICE, text, re.IGNORECASE)
    return f"{match[1].lower()}{match[2]}" if match else ""


def _truth(text: str) -> str:
    match = (
        re.search(_STATED_ANSWER + _TRUTH, text, re.IGNORECASE)
        or re.search(r"\b(true|false)\b", text, re.IGNORECASE)
        or re.match(r"\W*" + _TRUTH, text, re.IGNORECASE)
    )
    return {"yes": "true", "no": "false"}.get(match[1].lower(), match[1].lower()) if match else ""


def _boxed(text: str) -> str:
    r"""The content of the last \boxed{...} without white space, up to the brace that closes it."""
    _, mark, rest = text.rpartition("\\boxed{")
    depth = 1
    for end, letter in enumerate(rest if mark else ""):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if not depth:
            return re.sub(r"\s", "", rest[:end])
    return ""


def _function_body(text: str) -> str:
    """The indented lines at the start of a text, without blank lines and trailing white space."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    end = next((index for index, line in enumerate(lines) if not line[0].isspace()), len(lines))
    return textwrap.dedent("\n".join(lines[:end]))


def _collapse_whitespace(text: str) -> str:
    return " ".join(text.split())


ANSWER_FORMS = {
    form.name: form
    for form in (
        AnswerForm(
            "final-number",
            "the number after ####, else the last number",
            partial(_number, mark="####", first=True),
            complete=r"####[^\n]*\d[^\n]*\n",
        ),
        AnswerForm("equation", "the number after the last =, else the last number", partial(_number, mark="=")),
        AnswerForm("number", "the last number", _number),
        AnswerForm("boxed", r"the content of the last \boxed{}, compared as text without white space", _boxed),
        AnswerForm(
            "choice", "answer1, option2, ... stated or first mentioned", _choice, complete=_STATED_ANSWER + _CHOICE
        ),
        AnswerForm(
            "truth",
            "true or false (yes or no), stated or first mentioned",
            _truth,
            complete=_STATED_ANSWER + _TRUTH + r"\W",
        ),
        AnswerForm(
            "code",
            "the text of the function's body without blank lines; the code is compared as text and never run",
            _function_body,
            complete=r"\n(?=\S)",
        ),
        AnswerForm("text", "the whole text with collapsed white space", _collapse_whitespace),
    )
}


def find_answer_form(answer: str | Reader, task: str, completions: Sequence[str]) -> AnswerForm | None:
    """The answer form of a task; None if its answers are not compared.

    Args:
        answer: a name in `ANSWER_FORMS`, a function from a completion to its answer, "none", or "auto". "auto" takes
            the form of the task's card if it finds an answer in any completion; else "number" if all completions are
            numbers, else "text".
        task: the task's name.
        completions: the completions of the task's samples.

    Raises:
        HeadnbError: the form is unknown.
    """
    if callable(answer):
        own = answer
        return AnswerForm("own", getattr(own, "__name__", "a function"), lambda text: str(own(text) or ""))
    if not isinstance(answer, str):
        raise HeadnbError(f"answer must be a name such as 'number' or a function, not {type(answer).__name__}")
    if answer == "auto":
        answer = _usual_form(task, completions)
    if answer != NO_ANSWER and answer not in ANSWER_FORMS:
        raise unknown_name("answer form", answer, ["auto", NO_ANSWER, *ANSWER_FORMS])
    return ANSWER_FORMS.get(answer)


def _usual_form(task: str, completions: Sequence[str]) -> str:
    card = registry.CARDS.get(task)
    if card is not None and card.answer is not None:
        form = ANSWER_FORMS.get(card.answer)
        # The user's own data can have the name of a registered task, and answers in another form.
        if form is None or not completions or any(map(form.answer, completions)):
            return card.answer
    numbers = all(re.fullmatch(rf"\s*{_NUMBER}\s*", text, re.ASCII) for text in completions)
    return "number" if numbers else "text"
