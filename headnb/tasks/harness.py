"""Tasks of lm-evaluation-harness: prompts and gold targets by the task's own templates, where lm_eval is installed.

A prompt is what the harness sends to a model without a chat template, with the task's own number of few-shot examples.
A sample is never one of its own examples: the harness excludes it only when it reads the test split.
The completion is the text whose likelihood the harness computes for the right answer: the gold choice or target. In a
task that generates text it is the gold target, after the delimiter that the harness puts before the answers of few-shot
examples.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError, one_line, optional_import, unknown_name
from headnb.tasks.hub_data import one_line_failures
from headnb.tasks.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "lm_eval:"


def is_harness_task(value: object) -> bool:
    """Whether a value is a task object of lm_eval."""
    module = sys.modules.get("lm_eval.api.task")
    return module is not None and isinstance(value, module.Task)


def harness_rows(source: Any, split: str, seed: int) -> Rows:
    """The samples of a task of the harness.

    Args:
        source: the task's name after `PREFIX`, or a task object.
        split: train, validation or test; without a test split, test means validation, as in the harness.
        seed: of the choice of few-shot examples.

    Raises:
        HeadnbError: lm_eval is not installed, has no such task, or cannot load it; or the task is not text with gold
            answers.
    """
    task = _load(source) if isinstance(source, str) else source
    name = f"{PREFIX}{task.config.task}"
    if not hasattr(task, "build_qa_turn"):
        raise HeadnbError(f"{name} is defined by Python code, not by templates, which is not supported")
    if getattr(task, "MULTIMODAL", False):
        raise HeadnbError(f"{name} has images or audio, which are not supported: only text is scored")
    with one_line_failures(f"the split {split!r} of {name}", local=True):
        documents = _documents(task, name, split)
    return Rows(name, f"lm-evaluation-harness ({split})", _Prompts(task, documents, seed), range(len(documents)))


@functools.cache
def _manager() -> Any:
    """lm_eval's index of tasks; it reads thousands of files."""
    with optional_import("harness"):
        from lm_eval.tasks import TaskManager  # noqa: PLC0415

        return TaskManager()


def _load(name: str) -> Any:
    manager = _manager()
    # Names only: lm_eval would also load a path, and run the Python code that such a file names.
    if name in manager.all_groups or name in manager.all_tags:
        members = [task for task in manager.all_subtasks if task.startswith(f"{name}_")][:5]
        raise HeadnbError(f"{name!r} is a group of lm_eval tasks; give one task, such as {', '.join(members)}")
    if name not in manager.all_subtasks:
        raise unknown_name("lm_eval task", name, manager.all_subtasks)
    with one_line_failures(f"{PREFIX}{name}"):
        return manager.load(name)["tasks"][name]


def _documents(task: Any, name: str, split: str) -> Sequence[Any]:
    readers = {
        "train": task.training_docs if task.has_training_docs() else None,
        "validation": task.validation_docs if task.has_validation_docs() else None,
        "test": task.test_docs if task.has_test_docs() else None,
    }
    known = [name for name, read in readers.items() if read is not None]
    if split == "test" and "test" not in known and "validation" in known:
        split = "validation"
    read = readers.get(split)
    if read is None:
        raise HeadnbError(f"{name} has no split {split!r}; it has {', '.join(known)}")
    documents = read()
    return documents if hasattr(documents, "__len__") else list(documents)


class _Prompts(Sequence[Any]):
    """Prompt and completion of each document, made when they are read."""

    column_names = ("prompt", "completion")

    def __init__(self, task: Any, documents: Sequence[Any], seed: int) -> None:
        self._task, self._documents, self._seed = task, documents, seed

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, index: Any) -> Any:
        # Few-shot examples depend on the seed and the row, not on the order in which rows are read.
        self._task.set_fewshot_seed(hash((self._seed, index)))
        try:
            return _pair(self._task, self._documents[index], index)
        except Exception as error:
            where = f"{PREFIX}{self._task.config.task}: sample {index}"
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise HeadnbError(f"{where} has no prompt with a gold answer ({reason})") from error


def _pair(task: Any, document: Any, index: int) -> tuple[str, str]:
    prefix = task.doc_to_prefix(document)
    shots = task.config.num_fewshot or 0
    with _without_itself(task, document) if shots else contextlib.nullcontext():
        context = task.fewshot_context(document, num_fewshot=shots, gen_prefix=prefix)
    if task.OUTPUT_TYPE == "generate_until":
        return context, _answer(task, document, prefix)
    requests = task.construct_requests(document, context, metadata=(task.config.task, index, 1))
    if task.OUTPUT_TYPE == "multiple_choice":
        requests = requests[_gold_choice(task, document)]
    if task.OUTPUT_TYPE == "loglikelihood_rolling":  # a text without a prompt
        return "", requests.arguments[0]
    prompt, completion = requests.arguments[:2]
    return prompt, completion


@contextlib.contextmanager
def _without_itself(task: Any, document: Any) -> Iterator[None]:
    """Inside the block, few-shot examples that contain the document are drawn again without it."""
    sampler, draw = task.sampler, task.sampler.sample

    def draw_others(*args: Any, **options: Any) -> Sequence[Any]:
        examples: Sequence[Any] = draw(*args, **options)
        return draw(*args, **{**options, "eval_doc": document}) if document in examples else examples

    sampler.sample = draw_others
    try:
        yield
    finally:
        del sampler.sample


def _gold_choice(task: Any, document: Any) -> int:
    """The index of the right choice; of the first one, if several are right."""
    choices = task.doc_to_choice(document)
    gold = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    gold = gold[0] if isinstance(gold, list) else gold
    index = choices.index(gold) if isinstance(gold, str) else int(gold)
    if not 0 <= index < len(choices):
        raise ValueError(f"the gold choice is {index}, of {len(choices)} choices")
    return index


def _answer(task: Any, document: Any, prefix: str | None) -> str:
    """The gold target (the first one of several) with the delimiter before it."""
    gold = task.doc_to_target(document)
    gold = gold[0] if isinstance(gold, list) else gold
    if task.config.doc_to_choice is not None and isinstance(gold, int):
        gold = task.doc_to_choice(document)[gold]

    def turn(answer: str | None) -> str:
        messages = task.build_qa_turn(
            q="", a=answer, gen_prefix=prefix, tgt_delim=task.config.target_delimiter, few_delim=""
        )
        return "".join(message.to_text() for message in messages)

    return turn(str(gold)).removeprefix(turn(None))
