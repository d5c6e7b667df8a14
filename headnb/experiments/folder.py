"""The run folder: what the notebooks of one model write for each other, with typed access.

    run.json                        model, tasks, how their samples are drawn and cut, versions
    before/<task>.zarr              scores of the model as it came
    before/<task>.answers.nc        what it answers
    before/<task>.layers.nc         what it makes of the samples in each layer: see headnb/experiments/layers.py
    sft/<task>/seed<k>/             one fine-tuning: study.nc, scores/, adapter/, answers.nc, result.json (written last)
                                    and layers.nc, as before/ has it
    sft/<task>/seed<k>/after/<evaluated task>.zarr
    shuffled/<task>/seed<k>/        one on answers that belong to other questions: study.nc, after.zarr, result.json
    selection/, selective/          what chosen instructions and heads are worth: see selection_trials.py
    mixture/<task>/seed<k>/         ones that begin with a mixture of basic tasks: see headnb/experiments/mixtures.py
    continual/seed<k>/              one on all tasks in turn: see headnb/experiments/continual.py
    findings/<name>.json, .nc       what the notebooks from 03 on found
    notebooks/                      the executed notebooks, where the suite ran them
    report.html

A file is written beside its place and moved there, so it is whole or not there at all.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headnb.call_checks import LARGEST_TRAINING_SEED
from headnb.errors import HeadnbError, unknown_name
from headnb.hub import user_path
from headnb.stats.scoring_revision import REVISION, SCORING_REVISION, refuse_other_revision
from headnb.stats.seeds import seed_of_task
from headnb.storage.checksums import damage_named
from headnb.storage.files import file_name, load, not_made, read_json, write_dataset, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.tasks.loading import Task
    from headnb.tasks.samples import Sample
    from headnb.tuning.tuned import FineTuned

RUN_FILE = "run.json"
MOST_SAMPLES = 100_000  # of a task
FORMAT = 1
FINDINGS = {
    "selectivity": "03_selectivity",
    "composition": "04_composition",
    "rapid_change": "05_rapid_change",
    "mixture": "07_mixture",
    "instruction_selection": "08_instruction_selection",
    "selective_tuning": "09_selective_tuning",
    "methods_agree": "10_methods_agree",
    "layers": "11_layers",
    "continual": "12_continual",
}
_VERSIONS = ("headnb", "torch", "transformers")


@dataclass(frozen=True)
class Settings:
    """What all notebooks of a run share, so that scores before and after are of the same samples.

    Attributes:
        model: id or folder, as `load_model` takes it.
        tasks: every task that is scored, as `load_task` takes them.
        n: samples scored of each task.
        max_length: longer samples are cut to so many tokens.
        seed: of the draw of the scored samples and of the order of work.
    """

    model: str
    tasks: tuple[str, ...]
    n: int = 64
    max_length: int = 256
    seed: int = 0


class Run:
    """One run folder.

    Every method that reads raises HeadnbError where something is not there yet, and says which notebook makes it.

    Attributes:
        folder: where it lies.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = user_path(folder)

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
        if (run.folder / RUN_FILE).exists():
            refuse_other_revision(run.folder, run._json(Path(RUN_FILE), "01_patterns"), revision, "a run")
            differing = [
                f"{name} {there!r}, not {wanted!r}"
                for (name, there), wanted in zip(
                    dataclasses.asdict(run.settings).items(), dataclasses.asdict(settings).values(), strict=True
                )
                if there != wanted
            ]
            if differing:
                raise HeadnbError(
                    f"{run.folder} holds a run with {'; '.join(differing)}; choose another folder or remove it"
                )
            return run
        versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
        begun = {"format": FORMAT, **revision, **dataclasses.asdict(settings), "versions": versions}
        write_json(run.folder / RUN_FILE, begun)
        return run

    @property
    def settings(self) -> Settings:
        """What run.json says."""
        stored = self._json(Path(RUN_FILE), "01_patterns")
        if stored.get("format") != FORMAT:
            raise HeadnbError(f"{self.folder} has format {stored.get('format')}; this version of headnb reads {FORMAT}")
        with damage_named(self.folder / RUN_FILE):
            values = {field.name: stored[field.name] for field in dataclasses.fields(Settings)}
            found = Settings(**(values | {"tasks": tuple(map(str, stored["tasks"]))}))
            numbers = (found.n, found.max_length, found.seed)
            if not isinstance(found.model, str) or not all(type(number) is int for number in numbers):
                raise TypeError("model must be text; n, max_length and seed whole numbers")
            if not 0 < found.n <= MOST_SAMPLES:
                raise ValueError(f"n must be from 1 to {MOST_SAMPLES}")
            return found

    @property
    def versions(self) -> dict[str, str]:
        """Package -> version that began the run."""
        with damage_named(self.folder / RUN_FILE):
            return dict(self._json(Path(RUN_FILE), "01_patterns").get("versions", {}))

    def task(self, name: str, n: int | None = None) -> Task:
        """The samples of a task that are scored before and after; n of them, always the same."""
        from headnb.tasks.loading import load_task  # noqa: PLC0415

        settings = self.settings
        if name not in settings.tasks:
            raise unknown_name("task of this run", name, settings.tasks)
        whole = load_task(name, split="test", n=settings.n, seed=settings.seed)
        return whole if n is None else load_task(whole, n=min(n, len(whole)), seed=settings.seed)

    def training_task(self, name: str, seed: int, n: int, *, whole: bool = False) -> Task:
        """Samples to train on: of the training split, without those that are scored; n of them where there are.

        `whole`: all of them instead; of a procedural task, which has no end, n all the same.
        """
        from headnb.tasks.loading import Task, known_tasks, load_task  # noqa: PLC0415

        card = known_tasks().get(name)
        endless = card is not None and card.procedural
        source = load_task(name, split="train", n=2 * n if endless else None, seed=seed)
        scored = {(str(sample.prompt), str(sample.completion)) for sample in _texts(self.task(name))}
        kept = [
            place
            for place, sample in enumerate(_texts(source))
            if (str(sample.prompt), str(sample.completion)) not in scored
        ]
        if not kept:
            raise HeadnbError(f"all {len(source)} training samples of {name} are among those that are scored")
        fresh = Task(
            source.name,
            tuple(source.samples[place] for place in kept),
            tuple(source.ids[place] for place in kept),
            source.source,
        )
        return load_task(fresh, n=len(fresh) if whole and not endless else min(n, len(fresh)), seed=seed)

    def score(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        task: str,
        out: Path,
        *,
        n: int | None = None,
    ) -> xr.Dataset:
        """Score `task(task, n)` with the run's settings into a store; one that is there already goes on or is done."""
        from headnb.scoring.run import score_heads  # noqa: PLC0415

        settings = self.settings
        return score_heads(
            model, tokenizer, self.task(task, n), max_length=settings.max_length, seed=settings.seed, out=out
        )

    def answers_path(self, task: str, seed: int | None = None) -> Path:
        """Where answers to a task are: of the model as it came, or of the one fine-tuned on it with a seed."""
        folder = self.folder / "before" / f"{file_name(task)}.answers.nc"
        return folder if seed is None else self.sft_folder(task, seed) / "answers.nc"

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
        """Let a model answer n of the scored samples, and keep that at `answers_path(task, seed)`."""
        from headnb.tuning.evaluation import evaluate  # noqa: PLC0415

        asked = self.task(task, n)
        found = evaluate(model, tokenizer, asked, max_new_tokens=max_new_tokens, max_length=self.settings.max_length)
        write_dataset(self.answers_path(task, seed), found)
        return found

    def answers(self, task: str, seed: int | None = None) -> xr.Dataset | None:
        """What `answer` kept; None if nothing was asked."""
        path = self.answers_path(task, seed)
        return load(path, "01_patterns") if path.exists() else None

    def before_path(self, task: str) -> Path:
        """Where scores of the model as it came are."""
        return self.folder / "before" / f"{file_name(task)}.zarr"

    def before(self, task: str) -> xr.Dataset:
        """Scores of the model as it came."""
        return self._scores(self.before_path(task), "01_patterns")

    def sft_folder(self, trained: str, seed: int) -> Path:
        """The folder of one fine-tuning."""
        return self.folder / "sft" / file_name(trained) / f"seed{seed}"

    def after_path(self, trained: str, seed: int, evaluated: str) -> Path:
        """Where the scores of a fine-tuned model on a task are."""
        return self.sft_folder(trained, seed) / "after" / f"{file_name(evaluated)}.zarr"

    def after(self, trained: str, seed: int, evaluated: str) -> xr.Dataset:
        """Scores of the model fine-tuned on `trained` with `seed`, on the task `evaluated`."""
        return self._scores(self.after_path(trained, seed, evaluated), f"02_finetune for {trained}, seed {seed}")

    def pairs(self, trained: str, evaluated: str | None = None) -> list[tuple[xr.Dataset, xr.Dataset]]:
        """(before, after) on `evaluated`, by default the trained task itself, for every seed it was trained with."""
        on = evaluated or trained
        before = self.before(on)
        return [(before, self.after(trained, seed, on)) for seed in self.seeds(trained)]

    def training_seed(self, task: str, seed: int) -> int:
        """The seed that a task's training number `seed` takes: another one for each task.

        The same noise in the runs of two tasks would look like something that their changes have in common.
        """
        return seed_of_task(seed, task) % (LARGEST_TRAINING_SEED + 1)

    def tuned(self, trained: str, seed: int) -> FineTuned:
        """What one fine-tuning gave: study, tracked scores, adapter."""
        from headnb.tuning.tuned import open_study  # noqa: PLC0415

        folder = self.sft_folder(trained, seed)
        if not folder.exists():
            raise not_made(folder, f"02_finetune for {trained}, seed {seed}")
        return open_study(folder)

    def shuffled_folder(self, task: str, seed: int) -> Path:
        """The folder of one fine-tuning on a task with shuffled answers."""
        return self.folder / "shuffled" / file_name(task) / f"seed{seed}"

    def shuffled_pairs(self, task: str) -> list[tuple[xr.Dataset, xr.Dataset]]:
        """(before, after) of fine-tuning on shuffled answers, for every seed that is complete; empty if none is."""
        maker = f"02_shuffled_answers for {task}"
        seeds = _seeds_in(self.shuffled_folder(task, 0).parent)
        before = self.before(task) if seeds else None
        after = [self._scores(self.shuffled_folder(task, seed) / "after.zarr", maker) for seed in seeds]
        return [(before, one) for one in after if before is not None]

    def finish_shuffled(self, task: str, seed: int, tuned: FineTuned) -> dict[str, Any]:
        """Write result.json of a fine-tuning on shuffled answers; returns what it holds."""
        folder = self.shuffled_folder(task, seed)
        after = self._scores(folder / "after.zarr", f"02_shuffled_answers for {task}, seed {seed}")
        result = {"task": task, "seed": seed, **_of_training(tuned), "loss": _losses(self.before(task), after)}
        write_json(folder / "result.json", result)
        return result

    def study(self, trained: str, seed: int) -> xr.Dataset:
        """What was tracked during one fine-tuning."""
        return self.tuned(trained, seed).study

    def studies(self, trained: str) -> dict[int, xr.Dataset]:
        """Seed -> what was tracked."""
        return {seed: self.study(trained, seed) for seed in self.seeds(trained)}

    def result(self, trained: str, seed: int) -> dict[str, Any]:
        """The numbers of one fine-tuning: result.json."""
        path = self.sft_folder(trained, seed).relative_to(self.folder) / "result.json"
        return self._json(path, f"02_finetune for {trained}, seed {seed}")

    def finish(self, trained: str, seed: int, tuned: FineTuned) -> dict[str, Any]:
        """Write result.json from a fine-tuning, its scores on every task and its answers; returns what it holds."""
        losses = {task: _losses(self.before(task), self.after(trained, seed, task)) for task in self.settings.tasks}
        result = {"task": trained, "seed": seed, **_of_training(tuned), "loss": losses}
        for stage, answers in (("before", self.answers(trained)), ("after", self.answers(trained, seed))):
            if answers is not None:
                result |= {f"accuracy_{stage}": float(answers["accuracy"]), "answers": answers.sizes["sample"]}
        self.save_result(trained, seed, result)
        return result

    def save_result(self, trained: str, seed: int, result: Mapping[str, Any]) -> Path:
        """Write result.json, which says that this fine-tuning is complete."""
        return write_json(self.sft_folder(trained, seed) / "result.json", result)

    @property
    def trained(self) -> dict[str, tuple[int, ...]]:
        """Task -> seeds of the fine-tunings that are complete, in the order of the run's tasks."""
        found = {task: _seeds_in(self.sft_folder(task, 0).parent) for task in self.settings.tasks}
        return {task: seeds for task, seeds in found.items() if seeds}

    def seeds(self, trained: str) -> tuple[int, ...]:
        """The seeds that a task was trained with."""
        complete = self.trained
        if trained not in complete:
            raise HeadnbError(f"{self.folder} has no fine-tuning on {trained}; notebook 02_finetune makes one")
        return complete[trained]

    def finding(self, name: str) -> dict[str, Any]:
        """The numbers of a finding: one of `FINDINGS`."""
        return self._json(self._finding_path(name, "json"), FINDINGS[name])

    def finding_arrays(self, name: str) -> xr.Dataset:
        """The labelled arrays of a finding."""
        return load(self.folder / self._finding_path(name, "nc"), FINDINGS[name])

    def has_arrays(self, name: str) -> bool:
        """Whether a finding with arrays is there."""
        return (self.folder / self._finding_path(name, "nc")).exists()

    def save_finding(self, name: str, values: Mapping[str, Any], arrays: xr.Dataset | None = None) -> Path:
        """Write what a notebook found: numbers as JSON, and arrays as netCDF."""
        if arrays is not None:
            write_dataset(self.folder / self._finding_path(name, "nc"), arrays)
        return write_json(self.folder / self._finding_path(name, "json"), values)

    def _finding_path(self, name: str, ending: str) -> Path:
        if name not in FINDINGS:
            raise unknown_name("finding", name, FINDINGS)
        return Path("findings") / f"{name}.{ending}"

    def _scores(self, path: Path, maker: str) -> xr.Dataset:
        from headnb.storage.score_store import open_scores  # noqa: PLC0415

        if not path.exists():
            raise not_made(path, maker)
        scores = open_scores(path)
        if not scores.attrs.get("complete", 1):
            raise HeadnbError(f"{path} is not complete; run notebook {maker} again, it goes on")
        return scores

    def _json(self, path: Path, maker: str) -> dict[str, Any]:
        return read_json(self.folder / path, maker)


def _seeds_in(folder: Path) -> tuple[int, ...]:
    """Seeds of the fine-tunings that are complete."""
    named = (path.parent.name.removeprefix("seed") for path in folder.glob("seed*/result.json"))
    return tuple(sorted(int(seed) for seed in named if seed.isdecimal()))


def _of_training(tuned: FineTuned) -> dict[str, Any]:
    """How a model was tuned, and how far its parameters moved."""
    known = ("kind_of_tuning", "steps", "batch_size", "learning_rate")
    settings = {name: tuned.study.attrs[name] for name in known}
    return {**settings, "movement": float(tuned.study["movement"].isel(step=-1).mean())}


def _losses(before: xr.Dataset, after: xr.Dataset) -> dict[str, float]:
    """Mean loss before and after, of the samples that were scored both times."""
    same = before["loss"].sel(sample=after["sample"])
    return {"before": float(same.mean()), "after": float(after["loss"].mean())}


def _texts(task: Task) -> list[Sample]:
    from headnb.tasks.samples import Sample  # noqa: PLC0415

    texts = [sample for sample in task.samples if isinstance(sample, Sample)]
    if len(texts) < len(task):
        raise HeadnbError(f"{task.name} holds encoded samples; notebooks fine-tune on text")
    return texts
