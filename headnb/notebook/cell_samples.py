"""Parser of samples typed into a cell: text -> pairs of prompt and completion.

Three forms, which may be mixed by blocks (an empty line ends a block):

    The capital of France is => Paris          prompt => completion

    Question: Tom has 3 pens and buys 2. How many?
    Answer: 5                                  the form of the registered tasks; both may span several lines

    {"prompt": "2 + 3 = ", "completion": "5"}  JSON, one object per line, for all other kinds (also chat messages)
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

from headnb.errors import HeadnbError
from headnb.tasks.loading import Task
from headnb.tasks.registry import question_answer
from headnb.tasks.row_values import parse_json
from headnb.tasks.samples import read_samples

if TYPE_CHECKING:
    from collections.abc import Iterator

Line: TypeAlias = tuple[int, str]  # line number in the cell, text

ARROW = "=>"
_FORMS = "prompt => completion, Question: and Answer: lines, or JSON with prompt and completion"


def parse_cell_task(text: str, *, first_line: int = 2, name: str = "typed") -> Task:
    """Parse the samples in a cell's text.

    Args:
        text: the cell below the `%%headscore` line.
        first_line: line number of the first line of `text` in the cell.
        name: of the task.

    Raises:
        HeadnbError: a line has none of the three forms (the message has its number), or there are no samples.
    """
    lines = list(enumerate(text.splitlines(), first_line))
    blocks = [list(block) for empty, block in groupby(lines, key=lambda line: not line[1].strip()) if not empty]
    rows = [row for block in blocks for row in _rows(block)]
    if not rows:
        raise HeadnbError(f"the cell has no samples; type them below the first line: {_FORMS}")
    samples = tuple(sample for number, row in rows for _, sample in read_samples(row, f"line {number}"))
    return Task(name, samples, tuple(range(len(samples))), "typed in a cell")


def _rows(block: list[Line]) -> Iterator[tuple[int, Any]]:
    """Samples of one block with their line numbers."""
    number, first = block[0]
    if first.lstrip().startswith("{"):
        yield from ((number, parse_json(line, f"line {number}")) for number, line in block)
    elif re.match(r"\s*(question|answer)\s*:", first, re.IGNORECASE):
        yield number, _parse_question_answer(block)
    else:
        yield from ((number, _parse_arrow(number, line)) for number, line in block)


def _parse_question_answer(block: list[Line]) -> dict[str, str]:
    starts = [index for index, (_, line) in enumerate(block) if re.match(r"\s*answer\s*:", line, re.IGNORECASE)]
    if starts and starts[0] == 0:
        raise HeadnbError(
            f"line {block[0][0]} is an answer without a question; remove the empty line between question and answer"
        )
    if not starts:
        raise HeadnbError(f"line {block[-1][0]}: the question has no line that starts with Answer:")
    if len(starts) > 1:
        raise HeadnbError(f"line {block[starts[1]][0]} is a second answer; separate samples with an empty line")
    parts = (block[: starts[0]], block[starts[0] :])
    question, answer = ("\n".join(line for _, line in part).partition(":")[2].strip() for part in parts)
    return question_answer(question, answer)


def _parse_arrow(number: int, line: str) -> tuple[str, str]:
    if line.count(ARROW) != 1:
        count = "no" if ARROW not in line else "more than one"
        raise HeadnbError(f"line {number} has {count} {ARROW}: {_shortened(line)!r}; write {_FORMS}")
    prompt, completion = (part.strip() for part in line.split(ARROW))
    # Keep the space as in running text: tokenizers encode a word and the space before it as one token.
    return prompt, f" {completion}" if completion else ""


def _shortened(line: str) -> str:
    return line if len(line) <= 40 else f"{line[:39]}…"
