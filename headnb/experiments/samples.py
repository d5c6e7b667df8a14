"""Scored samples and training samples of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headnb.errors import HeadnbError, unknown_name
from headnb.storage.files import check_file_names
from headnb.tasks.loading import is_endless, load_task, subset
from headnb.tasks.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headnb.tasks.loading import Task


@dataclass(frozen=True)
class Settings:
    """Settings shared by all notebooks of a run, so that the same samples are scored before and after fine-tuning.

    Attributes:
        model: id or folder, as for `load_model`.
        tasks: every task that is scored, as for `load_task`; their file names must differ.
        n: scored samples per task.
        max_length: samples are truncated to this number of tokens.
        seed: seed of the random subset of scored samples and of the scoring order.
    """

    model: str
    tasks: tuple[str, ...]
    n: int = 64
    max_length: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_file_names(self.tasks, "tasks")


@dataclass(frozen=True)
class Samples:
    """Samples of a run; every call returns the same ones."""

    settings: Settings

    def scored(self, task: str, n: int | None = None) -> Task:
        """Samples of a task that are scored before and after fine-tuning, or a fixed subset of n of them."""
        if task not in self.settings.tasks:
            raise unknown_name("task of this run", task, self.settings.tasks)
        whole = load_task(task, split="test", n=self.settings.n, seed=self.settings.seed)
        return whole if n is None else load_task(whole, n=min(n, len(whole)), seed=self.settings.seed)

    def training(self, task: str, seed: int, n: int, *, whole: bool = False) -> Task:
        """At most n samples of the training split, without those that are scored.

        With `whole`, all of them; for a procedural task, whose split has no end, still n.
        """
        endless = is_endless(task)
        source = load_task(task, split="train", n=2 * n if endless else None, seed=seed)
        available = without_texts(source, texts_of(self.scored(task)))
        return load_task(available, n=len(available) if whole and not endless else min(n, len(available)), seed=seed)


def texts_of(task: Task) -> list[tuple[str, str]]:
    """Prompt and completion of each sample.

    Raises:
        HeadnbError: encoded samples.
    """
    texts = [(str(one.prompt), str(one.completion)) for one in task.samples if isinstance(one, Sample)]
    if len(texts) < len(task):
        raise HeadnbError(f"{task.name} has encoded samples; the notebooks fine-tune on text samples only")
    return texts


def without_texts(task: Task, scored: Iterable[tuple[str, str]]) -> Task:
    """The samples of a task whose prompt and completion are not among those of scored samples.

    Raises:
        HeadnbError: none is left, or encoded samples.
    """
    known = set(scored)
    unscored = [index for index, text in enumerate(texts_of(task)) if text not in known]
    if not unscored:
        raise HeadnbError(f"all {len(task)} samples of {task.name} ({task.source}) are also scored; none is left")
    return subset(task, unscored)
