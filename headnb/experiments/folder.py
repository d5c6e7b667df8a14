"""The run folder: what the notebooks of one model write for each other, with typed access."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError
from headnb.experiments.finding_files import Findings
from headnb.experiments.paths import Paths, complete_seeds
from headnb.experiments.samples import Samples, Settings
from headnb.hub import user_path
from headnb.stats.scoring_revision import REVISION, SCORING_REVISION, check_revision
from headnb.storage.checksums import report_corruption
from headnb.storage.files import load_dataset, missing_file_error, read_json, write_dataset, write_json

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.tuning.result import FineTuned

MAX_SAMPLES = 100_000  # of a task
FORMAT = 1
FIRST = "01_patterns"  # the notebook that begins a run
_VERSIONS = ("headnb", "torch", "transformers")


class Run:
    """One run folder.

    Every method that reads raises HeadnbError where something is not there yet, and says which notebook makes it.

    Attributes:
        folder: where it lies.
        paths: where everything lies in it.
        findings: what the notebooks from 03 on found.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = user_path(folder)
        self.paths = Paths(self.folder)
        self.findings = Findings(self.paths)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @classmethod
    def create(cls, folder: str | Path, settings: Settings) -> Run:
        """Begin a run in a folder, or go on with the one that is there.

        Raises:
            HeadnbError: the folder holds a run with other settings, or cannot be written.
        """
        run = cls(folder)
        revision = {REVISION: SCORING_REVISION}
        wanted = dataclasses.asdict(settings)
        if run.paths.settings.exists():
            check_revision(run.folder, read_json(run.paths.settings, FIRST), revision, "a run")
            there = dataclasses.asdict(run.settings)
            differing = [
                f"{name} {there[name]!r}, not {wanted[name]!r}" for name in there if there[name] != wanted[name]
            ]
            if differing:
                raise HeadnbError(
                    f"{run.folder} holds a run with {'; '.join(differing)}; choose another folder or remove it"
                )
            return run
        versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
        write_json(run.paths.settings, {"format": FORMAT, **revision, **wanted, "versions": versions})
        return run

    @property
    def settings(self) -> Settings:
        """What run.json says."""
        stored = read_json(self.paths.settings, FIRST)
        if stored.get("format") != FORMAT:
            raise HeadnbError(f"{self.folder} has format {stored.get('format')}; this version of headnb reads {FORMAT}")
        with report_corruption(self.paths.settings):
            values = {field.name: stored[field.name] for field in dataclasses.fields(Settings)}
            found = Settings(**(values | {"tasks": tuple(map(str, stored["tasks"]))}))
            numbers = (found.n, found.max_length, found.seed)
            if not isinstance(found.model, str) or not all(type(number) is int for number in numbers):
                raise TypeError("model must be text; n, max_length and seed whole numbers")
            if not 0 < found.n <= MAX_SAMPLES:
                raise ValueError(f"n must be from 1 to {MAX_SAMPLES}")
            return found

    @property
    def versions(self) -> dict[str, str]:
        """Package -> version that began the run."""
        with report_corruption(self.paths.settings):
            return dict(read_json(self.paths.settings, FIRST).get("versions", {}))

    @property
    def samples(self) -> Samples:
        """The samples that the run scores and trains on."""
        return Samples(self.settings)

    def score(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        task: str,
        out: Path,
        *,
        n: int | None = None,
    ) -> xr.Dataset:
        """Score n of the scored samples with the run's settings into a store; one that is there already goes on."""
        from headnb.scoring.run import score_heads  # noqa: PLC0415

        settings, samples = self.settings, self.samples.scored(task, n)
        return score_heads(model, tokenizer, samples, max_length=settings.max_length, seed=settings.seed, out=out)

    def answer(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        task: str,
        n: int,
        *,
        seed: int | None = None,
        max_new_tokens: int = 64,
    ) -> xr.Dataset:
        """Let a model answer n of the scored samples, and keep that at `paths.answers(task, seed)`."""
        from headnb.tuning.evaluation import evaluate  # noqa: PLC0415

        asked = self.samples.scored(task, n)
        found = evaluate(model, tokenizer, asked, max_new_tokens=max_new_tokens, max_length=self.settings.max_length)
        write_dataset(self.paths.answers(task, seed), found)
        return found

    def answers(self, task: str, seed: int | None = None) -> xr.Dataset | None:
        """What `answer` kept; None if nothing was asked."""
        path = self.paths.answers(task, seed)
        return load_dataset(path, FIRST) if path.exists() else None

    def before(self, task: str) -> xr.Dataset:
        """Scores of the model as it came."""
        return scores_at(self.paths.before(task), FIRST)

    def after(self, trained: str, seed: int, evaluated: str) -> xr.Dataset:
        """Scores of the model fine-tuned on `trained` with `seed`, on the task `evaluated`."""
        return scores_at(self.paths.after(trained, seed, evaluated), _finetuning_of(trained, seed))

    def pairs(self, trained: str, evaluated: str | None = None) -> list[tuple[xr.Dataset, xr.Dataset]]:
        """(before, after) on `evaluated`, by default the trained task itself, for every seed it was trained with."""
        on = evaluated or trained
        before = self.before(on)
        return [(before, self.after(trained, seed, on)) for seed in self.seeds(trained)]

    def after_shuffled(self, task: str, seed: int) -> xr.Dataset:
        """Scores on a task of the model fine-tuned on its shuffled answers."""
        return scores_at(self.paths.shuffled(task, seed) / "after.zarr", f"02_shuffled_answers for {task}, seed {seed}")

    def shuffled_pairs(self, task: str) -> list[tuple[xr.Dataset, xr.Dataset]]:
        """(before, after) of fine-tuning on shuffled answers, for every seed that is complete; empty if none is."""
        seeds = complete_seeds(self.paths.shuffled(task, 0).parent)
        return [(self.before(task), self.after_shuffled(task, seed)) for seed in seeds]

    def tuned(self, trained: str, seed: int) -> FineTuned:
        """What one fine-tuning gave: study, tracked scores, adapter."""
        from headnb.tuning.result import open_study  # noqa: PLC0415

        folder = self.paths.finetuning(trained, seed)
        if not folder.exists():
            raise missing_file_error(folder, _finetuning_of(trained, seed))
        return open_study(folder)

    def study(self, trained: str, seed: int) -> xr.Dataset:
        """What was tracked during one fine-tuning."""
        return self.tuned(trained, seed).study

    def result(self, trained: str, seed: int) -> dict[str, Any]:
        """The numbers of one fine-tuning: result.json."""
        return read_json(self.paths.finetuning(trained, seed) / "result.json", _finetuning_of(trained, seed))

    @property
    def trained(self) -> dict[str, tuple[int, ...]]:
        """Task -> seeds of the fine-tunings that are complete, in the order of the run's tasks."""
        found = {task: complete_seeds(self.paths.finetuning(task, 0).parent) for task in self.settings.tasks}
        return {task: seeds for task, seeds in found.items() if seeds}

    def seeds(self, trained: str) -> tuple[int, ...]:
        """The seeds that a task was trained with."""
        complete = self.trained
        if trained not in complete:
            raise HeadnbError(f"{self.folder} has no fine-tuning on {trained}; notebook 02_finetune makes one")
        return complete[trained]


def _finetuning_of(trained: str, seed: int) -> str:
    return f"02_finetune for {trained}, seed {seed}"


def scores_at(path: Path, notebook_name: str) -> xr.Dataset:
    """Scores that the notebook `notebook_name` writes.

    Raises:
        HeadnbError: they are not there, or not complete.
    """
    from headnb.storage.score_store import open_scores  # noqa: PLC0415

    if not path.exists():
        raise missing_file_error(path, notebook_name)
    scores = open_scores(path)
    if not scores.attrs.get("complete", 1):
        raise HeadnbError(f"{path} is not complete; run notebook {notebook_name} again, it goes on")
    return scores
