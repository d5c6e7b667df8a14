"""The samples that a run scores, and those that it trains on."""

from __future__ import annotations

from dataclasses import dataclass

from headnb.errors import HeadnbError, unknown_name
from headnb.storage.files import check_file_names
from headnb.tasks.loading import Task, known_tasks, load_task
from headnb.tasks.samples import Sample


@dataclass(frozen=True)
class Settings:
    """What all notebooks of a run share, so that scores before and after are of the same samples.

    Attributes:
        model: id or folder, as `load_model` takes it.
        tasks: every task that is scored, as `load_task` takes them; no two whose files would be called the same.
        n: samples scored of each task.
        max_length: longer samples are cut to so many tokens.
        seed: of the draw of the scored samples and of the order of work.
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
    """Draws the samples of a run: the same ones each time."""

    settings: Settings

    def scored(self, task: str, n: int | None = None) -> Task:
        """The samples of a task that are scored before and after, or the same n of them."""
        if task not in self.settings.tasks:
            raise unknown_name("task of this run", task, self.settings.tasks)
        whole = load_task(task, split="test", n=self.settings.n, seed=self.settings.seed)
        return whole if n is None else load_task(whole, n=min(n, len(whole)), seed=self.settings.seed)

    def training(self, task: str, seed: int, n: int, *, whole: bool = False) -> Task:
        """Samples to train on: of the training split, without those that are scored; n of them where there are.

        `whole`: all of them instead; of a procedural task, which has no end, n all the same.
        """
        card = known_tasks().get(task)
        endless = card is not None and card.procedural
        source = load_task(task, split="train", n=2 * n if endless else None, seed=seed)
        scored = {(str(sample.prompt), str(sample.completion)) for sample in _texts(self.scored(task))}
        kept = [
            place
            for place, sample in enumerate(_texts(source))
            if (str(sample.prompt), str(sample.completion)) not in scored
        ]
        if not kept:
            raise HeadnbError(f"all {len(source)} training samples of {task} are among those that are scored")
        fresh = Task(
            source.name,
            tuple(source.samples[place] for place in kept),
            tuple(source.ids[place] for place in kept),
            source.source,
        )
        return load_task(fresh, n=len(fresh) if whole and not endless else min(n, len(fresh)), seed=seed)


def _texts(task: Task) -> list[Sample]:
    texts = [sample for sample in task.samples if isinstance(sample, Sample)]
    if len(texts) < len(task):
        raise HeadnbError(f"{task.name} holds encoded samples; notebooks fine-tune on text")
    return texts
