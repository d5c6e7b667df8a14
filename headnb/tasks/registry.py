r"""Registry of tasks: origin, licence, and the template that makes prompt and completion of a row.

Prompts have the form `Question: ...\nAnswer: ` of the script published with arXiv 2409.15820. Multiple-choice tasks
have the wording of Hu et al. 2023, *LLM-Adapters* (arXiv 2304.01933). MBPP and MathQA are functions to complete, as in
Athiwaratkun et al. 2022 (arXiv 2210.14868).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

from headnb.errors import HeadnbError

Row: TypeAlias = Mapping[str, Any]
Template: TypeAlias = Callable[[Row], dict[str, Any]]

MXEVAL = "https://raw.githubusercontent.com/amazon-science/mxeval/e09974f990eeaf0c0e8f2b5eaff4be66effb2c86/data"


@dataclasses.dataclass(frozen=True, slots=True)
class TaskCard:
    """Description of a task, available before it is loaded.

    Attributes:
        group: math, code, logic, language, reasoning or instructions.
        description: one line of text for display.
        origin: the hub id of the data set, or for generated samples reasoning-gym or headnb.
        licence: licence of the samples, as stated by their authors.
        config: the data set's configuration, if it has several.
        splits: the data set's splits that have answers.
        template: row -> `{"prompt": ..., "completion": ...}`; None for procedural tasks.
        url: address of a JSONL file, for a data set that the hub offers only with a loading script.
        large: whether the data set is too large to download for a few samples; then rows are streamed, and samples are
            taken from the first rows.
        answer: how answers are parsed and compared: a name in `answers.FORMS`; "none" if answers can only be judged by
            a person or by running code; None: inferred from the completions.
    """

    group: str
    description: str
    origin: str
    licence: str
    config: str | None = None
    splits: tuple[str, ...] = ("train", "validation", "test")
    template: Template | None = None
    url: str | None = None
    large: bool = False
    answer: str | None = None

    @property
    def procedural(self) -> bool:
        """Whether samples are generated instead of loaded."""
        return self.template is None

    @property
    def held_out(self) -> bool:
        """Whether the data set has one split; then every tenth row is in the test split, the other rows in train."""
        return len(self.splits) == 1

    def source_split(self, split: str) -> str | None:
        """The data set's split to load for a split of the task; None if there is none.

        Validation, or else the first split, replaces a test split without answers.
        """
        if split in self.splits:
            return split
        if split != "test":
            return None
        return "validation" if "validation" in self.splits else self.splits[0]


def question_answer(question: str, answer: str) -> dict[str, str]:
    """Prompt and completion of a question, for all tasks except code completion."""
    return {"prompt": f"Question: {question}\nAnswer: ", "completion": answer}


def _choices(question: str, label: str, texts: Sequence[str], correct: int) -> dict[str, str]:
    """A multiple-choice question; `label` is Answer, Ending or Option, and `correct` counts from 0."""
    listed = " ".join(f"{label}{number}: {text}" for number, text in enumerate(texts, 1))
    names = "/".join(f"{label.lower()}{number}" for number in range(1, len(texts) + 1))
    return question_answer(
        f"{question}\n\n{listed}\n\nAnswer format: {names}",
        f"the correct answer is {label.lower()}{correct + 1}",
    )


def _gsm8k(row: Row) -> dict[str, str]:
    return question_answer(row["question"], row["answer"])


def _svamp(row: Row) -> dict[str, str]:
    body = row["Body"].strip()
    if not body.endswith((".", "?", "!", ",")):
        body += "."
    # Format answers like %g in C: 8 instead of 8.0.
    return question_answer(f"{body} {row['Question'].strip()}", f"{row['Equation']} = {float(row['Answer']):g}")


def _function(row: Row) -> dict[str, str]:
    return {"prompt": row["prompt"].lstrip("\n"), "completion": row["canonical_solution"].rstrip() + "\n"}


def _arc(row: Row) -> dict[str, str]:
    question = row["question"] if "question" in row else row["question_stem"]
    correct = list(row["choices"]["label"]).index(row["answerKey"])
    return _choices(
        f"Please choose the correct answer to the question: {question}",
        "Answer",
        row["choices"]["text"],
        correct,
    )


def _boolq(row: Row) -> dict[str, str]:
    question = row["question"].strip().rstrip("?")
    return question_answer(
        f"Please answer the following question with true or false, question: {question}?\n\nAnswer format: true/false",
        f"the correct answer is {str(bool(row['answer'])).lower()}",
    )


def _hellaswag(row: Row) -> dict[str, str]:
    return _choices(
        f"Please choose the correct ending to complete the given sentence: {row['activity_label']}: {row['ctx']}",
        "Ending",
        row["endings"],
        int(row["label"]),
    )


def _winogrande(row: Row) -> dict[str, str]:
    return _choices(
        f"Please choose the correct answer to fill in the blank to complete the given sentence: {row['sentence']}",
        "Option",
        [row["option1"], row["option2"]],
        int(row["answer"]) - 1,
    )


def _code_search_net(row: Row) -> dict[str, str]:
    """Remove the docstring from the code, because it repeats the prompt: much of the answer would be copied text."""
    documentation, code = row["func_documentation_string"], row["func_code_string"]
    docstring = rf"""\n[ \t]*[rRuU]?(\"{{1,3}}|'{{1,3}})\s*{re.escape(documentation.strip())}\s*\1(?!\S)"""
    return question_answer(documentation, re.sub(docstring, "", code, count=1))


def _math(row: Row) -> dict[str, str]:
    return question_answer(row["problem"], row["solution"])


def _sgsm(row: Row) -> dict[str, str]:
    return question_answer(row["question"], row["solution"])


def _conversation(row: Row) -> dict[str, str]:
    """The first question and answer of a conversation; later questions refer to earlier text."""
    first = {"human": "", "gpt": ""}
    for turn in reversed(row["conversations"]):
        first[turn["from"]] = turn["value"]
    return question_answer(first["human"], first["gpt"])


def _hub(path: str, group: str, description: str, licence: str, template: Template, **more: Any) -> TaskCard:
    return TaskCard(group, description, path, licence, template=template, **more)


def fill_template(template: Template, row: Any, where: str) -> dict[str, Any] | None:
    """Prompt and completion of one row by a template, or None if the row has no answer.

    Raises:
        HeadnbError: the row lacks columns of the template, because the data set has changed.
    """
    try:
        filled = template(row)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        names = ", ".join(map(repr, row)) if isinstance(row, Mapping) else type(row).__name__
        raise HeadnbError(
            f"{where} does not fit the registry's template ({type(error).__name__}: {error}); it has {names};"
            " load the data set by its hub id, with fields={'prompt': ..., 'completion': ...}"
        ) from error
    return filled if filled["completion"].strip() else None


CARDS: Mapping[str, TaskCard] = MappingProxyType(
    {
        "gsm8k": _hub(
            "openai/gsm8k",
            "math",
            "grade-school math word problems with worked answers",
            "MIT",
            _gsm8k,
            config="main",
            splits=("train", "test"),
            answer="final-number",
        ),
        "svamp": _hub(
            "ChilleD/SVAMP",
            "math",
            "short math word problems; the answer is an equation",
            "MIT",
            _svamp,
            splits=("train", "test"),
            answer="equation",
        ),
        "math": _hub(
            "DigitalLearningGmbH/MATH-lighteval",
            "math",
            "competition problems with worked solutions (MATH, Hendrycks et al. 2021)",
            "MIT",
            _math,
            splits=("train", "test"),
            answer="boxed",
        ),
        "sgsm": _hub(
            "bryanchrist/SGSM",
            "math",
            "synthetic grade-school math solved by writing Python (math and code)",
            "GPL-3.0",
            _sgsm,
            splits=("train",),
            answer="none",
        ),
        "mbpp": _hub(
            "amazon-science/mxeval",
            "code",
            "Python functions, given their docstrings (MBPP as released in MBXP)",
            "CC BY 4.0",
            _function,
            url=f"{MXEVAL}/mbxp/mbpp_release_v1.jsonl",
            splits=("train",),
            answer="none",
        ),
        "mathqa_python": _hub(
            "amazon-science/mxeval",
            "code",
            "math problems solved by writing Python (math and code)",
            "CC BY 4.0",
            _function,
            url=f"{MXEVAL}/multilingual_mathqa/mathqa-test-python_v1.jsonl",
            splits=("train",),
            answer="code",
        ),
        "code_search_net": _hub(
            "code-search-net/code_search_net",
            "code",
            "Python functions from GitHub, given their documentation",
            "differs between functions",
            _code_search_net,
            config="python",
            large=True,
            answer="none",
        ),
        "arc_easy": _hub(
            "allenai/ai2_arc",
            "reasoning",
            "grade-school science questions, multiple choice",
            "CC BY-SA 4.0",
            _arc,
            config="ARC-Easy",
            answer="choice",
        ),
        "openbookqa": _hub(
            "allenai/openbookqa",
            "reasoning",
            "science facts and common knowledge, multiple choice",
            "not stated",
            _arc,
            config="main",
            answer="choice",
        ),
        "boolq": _hub(
            "google/boolq",
            "reasoning",
            "yes/no questions",
            "CC BY-SA 3.0",
            _boolq,
            splits=("train", "validation"),
            answer="truth",
        ),
        "hellaswag": _hub(
            "Rowan/hellaswag",
            "reasoning",
            "the most likely ending of a description, multiple choice",
            "MIT",
            _hellaswag,
            splits=("train", "validation"),
            answer="choice",
        ),
        "winogrande": _hub(
            "allenai/winogrande",
            "reasoning",
            "which of two options fills the blank in a sentence",
            "not stated",
            _winogrande,
            config="winogrande_xl",
            splits=("train", "validation"),
            answer="choice",
        ),
        "infinity_instruct": _hub(
            "BAAI/Infinity-Instruct",
            "instructions",
            "instructions of many kinds (accept the terms on the hub first)",
            "CC BY-SA 4.0",
            _conversation,
            config="0625",
            splits=("train",),
            large=True,
            answer="none",
        ),
    }
)
