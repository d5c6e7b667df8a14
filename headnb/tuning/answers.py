r"""What counts as the answer in a completion: read from the text, which is never executed.

The tasks of the registry name one of the forms below (`TaskCard.answer`). A completion is right if the same answer is
read from it as from the sample's own: `#### 1,200` and `#### 1200.0` agree, and so do an equation and one with its
operands exchanged.
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
_STATED_ANSWER = (
    r"answer\b[^.\n]{0,60}? is:?\s*[\"'(*]*"  # what is so stated comes before any answer mentioned on the way
)
_NEXT_QUESTION = re.compile(r"\n\s*Question:")  # a model that has not learnt to stop goes on in the prompt's form


@dataclass(frozen=True)
class AnswerForm:
    """How the answer is read from a completion."""

    name: str
    meaning: str
    """What is read and compared, for people."""
    read: Reader
    """The answer in a text, in one way of writing it; empty if there is none."""
    complete: str = r"(?!)"
    """A pattern that is found in a text once nothing behind it can matter."""

    def answer(self, text: str) -> str:
        """What is read from a text up to where the next question begins."""
        return self.read(_NEXT_QUESTION.split(text, maxsplit=1)[0])

    def is_complete(self, text: str) -> bool:
        """Whether the answer can be read from a text that ends like this."""
        return bool(re.search(self.complete, text, re.IGNORECASE) or _NEXT_QUESTION.search(text))


def _number(text: str, behind: str = "", *, first: bool = False) -> str:
    """The number behind a mark, the first or the last such one; the text's last number if nothing is so marked."""
    marked = re.findall(rf"{behind}\s*({_NUMBER})", text, re.ASCII) if behind else []
    found = marked or re.findall(_NUMBER, text, re.ASCII)
    if not found:
        return ""
    plain = re.sub(r"[$,]", "", found[0 if marked and first else -1]).replace("\u2212", "-")
    digits = format(Decimal(plain), "f")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return "0" if digits == "-0" else digits


def _choice(text: str) -> str:
    found = re.search(_STATED_ANSWER + _CHOICE, text, re.IGNORECASE) or re.search(_CHOICE, text, re.IGNORECASE)
    return f"{found[1].lower()}{found[2]}" if found else ""


def _truth(text: str) -> str:
    found = (
        re.search(_STATED_ANSWER + _TRUTH, text, re.IGNORECASE)
        or re.search(r"\b(true|false)\b", text, re.IGNORECASE)
        or re.match(r"\W*" + _TRUTH, text, re.IGNORECASE)
    )
    return {"yes": "true", "no": "false"}.get(found[1].lower(), found[1].lower()) if found else ""


def _function_body(text: str) -> str:
    """The indented lines that a text begins with, without blank ones and what stands behind a line."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    end = next((place for place, line in enumerate(lines) if not line[0].isspace()), len(lines))
    return textwrap.dedent("\n".join(lines[:end]))


def _collapse_whitespace(text: str) -> str:
    return " ".join(text.split())


ANSWER_FORMS = {
    form.name: form
    for form in (
        AnswerForm(
            "final-number",
            "the number behind ####, else the last number",
            partial(_number, behind="####", first=True),
            complete=r"####[^\n]*\d[^\n]*\n",
        ),
        AnswerForm("equation", "the number behind the last =, else the last number", partial(_number, behind="=")),
        AnswerForm("number", "the last number", _number),
        AnswerForm(
            "choice", "answer1, option2, ... as stated or first mentioned", _choice, complete=_STATED_ANSWER + _CHOICE
        ),
        AnswerForm(
            "truth",
            "true or false (yes or no), as stated or first mentioned",
            _truth,
            complete=_STATED_ANSWER + _TRUTH + r"\W",
        ),
        AnswerForm(
            "code",
            "the text of the function's body, blank lines aside; it is never run, so only the same text counts",
            _function_body,
            complete=r"\n(?=\S)",
        ),
        AnswerForm("text", "the whole text, white space folded", _collapse_whitespace),
    )
}


def find_answer_form(answer: str | Reader, task: str, completions: Sequence[str]) -> AnswerForm | None:
    """The form in which a task's answers are read; None if it has none.

    Args:
        answer: a name in `ANSWER_FORMS`, a function from a completion to its answer, "none", or "auto": what the task's
            card says, else "number" if all completions are numbers, else "text".
        task: the task's name.
        completions: its samples' own.

    Raises:
        HeadnbError: no such form.
    """
    if callable(answer):
        own = answer
        return AnswerForm("own", getattr(own, "__name__", "a function"), lambda text: str(own(text) or ""))
    if not isinstance(answer, str):
        raise HeadnbError(f"answer must be a name such as 'number' or a function, not a {type(answer).__name__}")
    if answer == "auto":
        answer = _usual_form(task, completions)
    if answer != NO_ANSWER and answer not in ANSWER_FORMS:
        raise unknown_name("form of answers", answer, ["auto", NO_ANSWER, *ANSWER_FORMS])
    return ANSWER_FORMS.get(answer)


def _usual_form(task: str, completions: Sequence[str]) -> str:
    card = registry.CARDS.get(task)
    if card is not None and card.answer is not None:
        return card.answer
    numbers = all(re.fullmatch(rf"\s*{_NUMBER}\s*", text, re.ASCII) for text in completions)
    return "number" if numbers else "text"
