"""Scored samples and training samples of a run."""

from __future__ import annotations

from dataclasses import dataclass

from headnb.errors import HeadnbError, unknown_name
from headnb.storage.files import check_file_names
from headnb.tasks.loading import Task, known_tasks, load_task
from headnb.tasks.samples import Sample


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
        card = known_tasks().get(task)
        endless = card is not None and card.procedural
        source = load_task(task, split="train", n=2 * n if endless else None, seed=seed)
        scored = {(str(sample.prompt), str(sample.completion)) for sample in _texts(self.scored(task))}
        unscored = [
            index
            for index, sample in enumerate(_texts(source))
            if (str(sample.prompt), str(sample.completion)) not in scored
        ]
        if not unscored:
            raise HeadnbError(f"all {len(source)} training samples of {task} are also scored samples; none is left")
        available = Task(
            source.name,
            tuple(source.samples[index] for index in unscored),
            tuple(source.ids[index] for index in unscored),
            source.source,
        )
        return load_task(available, n=len(available) if whole and not endless else min(n, len(available)), seed=seed)


def _texts(task: Task) -> list[Sample]:
    texts = [sample for sample in task.samples if isinstance(sample, Sample)]
    if len(texts) < len(task):
        raise HeadnbError(f"{task.name} has encoded samples; the notebooks fine-tune on text samples only")
    return texts
