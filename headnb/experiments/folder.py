"""Run folder of one model: typed access to the files that its notebooks share."""

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

MAX_SAMPLES = 100_000  # per task
FORMAT = 1
FIRST = "01_patterns"  # the notebook that creates a run
_VERSIONS = ("headnb", "torch", "transformers")


class Run:
    """One run folder.

    A method that reads a missing file raises HeadnbError, which names the notebook to run.

    Attributes:
        folder: path of the run folder.
        paths: paths of the files in it.
        findings: results of the notebooks 03 to 13.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = user_path(folder)
        self.paths = Paths(self.folder)
        self.findings = Findings(self.paths)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @classmethod
    def create(cls, folder: str | Path, settings: Settings) -> Run:
        """Create a run in a folder, or open the existing one if its settings are the same.

        Raises:
            HeadnbError: the folder contains a run with other settings, or cannot be written.
        """
        run = cls(folder)
        revision = {REVISION: SCORING_REVISION}
        wanted = dataclasses.asdict(settings)
        if run.paths.settings.exists():
            check_revision(run.folder, read_json(run.paths.settings, FIRST), revision, "a run")
            stored = dataclasses.asdict(run.settings)
            differing = [
                f"{name} {stored[name]!r}, not {wanted[name]!r}" for name in stored if stored[name] != wanted[name]
            ]
            if differing:
                raise HeadnbError(
                    f"{run.folder} contains a run with {'; '.join(differing)}; choose another folder or remove it"
                )
            return run
        versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
        write_json(run.paths.settings, {"format": FORMAT, **revision, **wanted, "versions": versions})
        return run

    @property
    def settings(self) -> Settings:
        """Settings stored in run.json."""
        stored = read_json(self.paths.settings, FIRST)
        if stored.get("format") != FORMAT:
            raise HeadnbError(f"{self.folder} has format {stored.get('format')}; this version of headnb reads {FORMAT}")
        with report_corruption(self.paths.settings):
            values = {field.name: stored[field.name] for field in dataclasses.fields(Settings)}
            settings = Settings(**(values | {"tasks": tuple(map(str, stored["tasks"]))}))
            numbers = (settings.n, settings.max_length, settings.seed)
            if not isinstance(settings.model, str) or not all(type(number) is int for number in numbers):
                raise TypeError("model must be text; n, max_length and seed whole numbers")
            if not 0 < settings.n <= MAX_SAMPLES:
                raise ValueError(f"n must be from 1 to {MAX_SAMPLES}")
            return settings

    @property
    def versions(self) -> dict[str, str]:
        """Package -> version with which the run was created."""
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
        """Score a task's samples (at most n) with the run's settings into a store; an existing store is resumed."""
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
        """Generate answers to n of the scored samples and save them at `paths.answers(task, seed)`."""
        from headnb.tuning.evaluation import evaluate  # noqa: PLC0415

        samples, length = self.samples.scored(task, n), self.settings.max_length
        answers = evaluate(model, tokenizer, samples, max_new_tokens=max_new_tokens, max_length=length)
        write_dataset(self.paths.answers(task, seed), answers)
        return answers

    def answers(self, task: str, seed: int | None = None) -> xr.Dataset | None:
        """Answers saved by `answer`; None if there are none."""
        path = self.paths.answers(task, seed)
        return load_dataset(path, FIRST) if path.exists() else None

    def before(self, task: str) -> xr.Dataset:
        """Scores of the base model."""
        return scores_at(self.paths.before(task), FIRST)

    def after(self, trained: str, seed: int, evaluated: str) -> xr.Dataset:
        """Scores on the task `evaluated` of the model fine-tuned on `trained` with `seed`."""
        return scores_at(self.paths.after(trained, seed, evaluated), _finetuning_of(trained, seed))

    def pairs(self, trained: str, evaluated: str | None = None) -> list[tuple[xr.Dataset, xr.Dataset]]:
        """(before, after) scores on `evaluated` (default: the trained task), for each training seed."""
        on = evaluated or trained
        before = self.before(on)
        return [(before, self.after(trained, seed, on)) for seed in self.seeds(trained)]

    def after_shuffled(self, task: str, seed: int) -> xr.Dataset:
        """Scores on a task of the model fine-tuned on the task's shuffled answers."""
        return scores_at(self.paths.shuffled(task, seed) / "after.zarr", f"02_shuffled_answers for {task}, seed {seed}")

    def shuffled_pairs(self, task: str) -> list[tuple[xr.Dataset, xr.Dataset]]:
        """(before, after) scores of training on shuffled answers, for each complete seed; empty if there are none."""
        seeds = complete_seeds(self.paths.shuffled(task, 0).parent)
        return [(self.before(task), self.after_shuffled(task, seed)) for seed in seeds]

    def tuned(self, trained: str, seed: int) -> FineTuned:
        """Result of one fine-tuning: study, tracked scores, adapter."""
        from headnb.tuning.result import open_study  # noqa: PLC0415

        folder = self.paths.finetuning(trained, seed)
        if not folder.exists():
            raise missing_file_error(folder, _finetuning_of(trained, seed))
        return open_study(folder)

    def study(self, trained: str, seed: int) -> xr.Dataset:
        """Values tracked during one fine-tuning."""
        return self.tuned(trained, seed).study

    def result(self, trained: str, seed: int) -> dict[str, Any]:
        """Content of result.json of one fine-tuning."""
        return read_json(self.paths.finetuning(trained, seed) / "result.json", _finetuning_of(trained, seed))

    @property
    def trained(self) -> dict[str, tuple[int, ...]]:
        """Task -> seeds of its complete fine-tunings, in the order of the run's tasks."""
        seeds_of = {task: complete_seeds(self.paths.finetuning(task, 0).parent) for task in self.settings.tasks}
        return {task: seeds for task, seeds in seeds_of.items() if seeds}

    def seeds(self, trained: str) -> tuple[int, ...]:
        """Seeds of the complete fine-tunings on a task."""
        complete = self.trained
        if trained not in complete:
            raise HeadnbError(f"{self.folder} has no fine-tuning on {trained}; run notebook 02_finetune first")
        return complete[trained]


def _finetuning_of(trained: str, seed: int) -> str:
    return f"02_finetune for {trained}, seed {seed}"


def scores_at(path: Path, notebook_name: str) -> xr.Dataset:
    """Open scores that the notebook `notebook_name` writes.

    Raises:
        HeadnbError: the scores are missing or incomplete.
    """
    from headnb.storage.reading import open_scores  # noqa: PLC0415

    if not path.exists():
        raise missing_file_error(path, notebook_name)
    scores = open_scores(path)
    if not scores.attrs.get("complete", 1):
        raise HeadnbError(f"{path} is incomplete; run notebook {notebook_name} again to resume")
    return scores
