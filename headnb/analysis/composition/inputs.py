"""Inputs of a composition: reads and checks the tasks' changes, and evaluates the evidence that they allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headnb.analysis.before_after import check_same_grid, on_common_samples, read_stages
from headnb.analysis.composition.comparison import ComparisonInputs, compare
from headnb.analysis.composition.evidence import CompositionEvidence
from headnb.analysis.composition.verdict import join_names
from headnb.analysis.debiased_products import MeasuredPattern
from headnb.errors import HeadnbError, unknown_name
from headnb.stats.reliability import MIN_SAMPLES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headnb.analysis.before_after import Change, Stages
    from headnb.stats.descriptive import Array

MIN_RUNS = 3
LAYER_TERMS = 2  # a shift and a scale are removed from each layer
MIN_LAYERS = 5  # with fewer layers a sign-flip test cannot reach p < 0.05


@dataclass(frozen=True)
class CompositionInputs:
    """The tasks of a composition.

    Attributes:
        target: name of the complex task.
        basics: names of the basic tasks.
        others: names of tasks that are neither target nor basic.
        own: task -> scores before and after fine-tuning on it; the target first, then the basics, then the others.
        shuffled: task -> scores before and after fine-tuning on its prompts with shuffled answers, where available.
    """

    target: str
    basics: tuple[str, ...]
    others: tuple[str, ...]
    own: dict[str, Stages]
    shuffled: dict[str, Stages]

    @classmethod
    def read(
        cls,
        target: Change,
        basics: Mapping[str, Change],
        others: Mapping[str, Change],
        shuffled: Change | Mapping[str, Change] | None,
        name: str | None = None,
    ) -> CompositionInputs:
        """Read and check the changes; `shuffled` that is not a mapping belongs to the target.

        Raises:
            HeadnbError: no basics, a name of two tasks, shuffled answers of an unknown task, or patterns of different
                heads.
        """
        if not basics:
            raise HeadnbError('there are no basic tasks to combine; give them by name: {"gsm8k": (before, after), ...}')
        if twice := set(basics) & set(others):
            raise HeadnbError(f"{', '.join(sorted(twice))} cannot be both a basic and another task")
        first = read_stages(target, "target")
        target_name = name or first.task or "target"
        for kind, names in (("a basic", basics), ("another", others)):
            if target_name in names:
                raise HeadnbError(f"{target_name!r} is both the target and {kind} task")
        own = {target_name: first} | {task: read_stages(change, task) for task, change in {**basics, **others}.items()}
        controls = shuffled if isinstance(shuffled, Mapping) else {} if shuffled is None else {target_name: shuffled}
        if unknown := [task for task in controls if task not in own]:
            raise unknown_name("task with shuffled answers", unknown[0], own)
        labelled = {("own", task): stages for task, stages in own.items()}
        labelled |= {("shuffled", task): read_stages(change, f"shuffled {task}") for task, change in controls.items()}
        check_same_grid({_role(target_name, basics, *key): stages for key, stages in labelled.items()})
        common = on_common_samples(labelled)
        own, shuffled_stages = (
            {task: stages for (k, task), stages in common.items() if k == kind} for kind in ("own", "shuffled")
        )
        return cls(target_name, tuple(basics), tuple(others), own, shuffled_stages)

    @property
    def comparable_others(self) -> list[str]:
        """Other tasks with enough samples and runs for a comparison."""
        return [name for name in self.others if not self._too_few(self.own[name])]

    def changes(self, others: list[str], *, subtract_shuffled: bool = False) -> ComparisonInputs:
        """Patterns and changes of target, basics and `others`: dAP, or AP(own answers) - AP(shuffled answers)."""
        names = (self.target, *self.basics, *others)
        own = [self.own[name] for name in names]
        controls = [self.shuffled[name] for name in names] if subtract_shuffled else []
        present = ~np.any([stages.missing for stages in (*own, *controls)], axis=0)
        present &= _in_usable_layers(own[0].layers, present)
        before = [MeasuredPattern(s.required_before[None][..., present], None, s.sample_set) for s in own]
        if subtract_shuffled:
            change = [_difference_from_control(*pair, present) for pair in zip(own, controls, strict=True)]
        else:
            change = [MeasuredPattern(s.after[..., present], s.required_before[:, present], s.sample_set) for s in own]
        return ComparisonInputs(names, len(self.basics), tuple(before), tuple(change), own[0].layers[present])

    def reason_untestable(self) -> str:
        """Why composition cannot be tested; empty if it can."""
        needed = {name: self.own[name] for name in (self.target, *self.basics)}
        if bare := [name for name, stages in needed.items() if stages.before is None or not stages.n]:
            return f"it needs scores per sample before and after fine-tuning, not available for {join_names(bare)}"
        if few := [f"{name} ({stages.n})" for name, stages in needed.items() if stages.n < MIN_SAMPLES]:
            return f"it needs at least {MIN_SAMPLES} samples of each task; too few for {join_names(few)}"
        if few := [f"{name} ({stages.runs})" for name, stages in needed.items() if stages.runs < MIN_RUNS]:
            needs = f"it needs at least {MIN_RUNS} training runs of each task, with different seeds"
            return f"{needs}; too few for {join_names(few)}"
        if signed := [name for name, stages in needed.items() if stages.signed]:
            return f"it needs activation levels (>= 0); the scores of {join_names(signed)} are signed"
        changes = self.changes(self.comparable_others)
        layers, heads = len(np.unique(changes.layers)), len(changes.layers)
        if layers < MIN_LAYERS:
            return f"it needs at least {MIN_LAYERS} layers of more than {LAYER_TERMS} heads, got {layers}"
        enough = heads - LAYER_TERMS * layers >= 2 * (len(changes.names) + len(self.basics))
        return "" if enough else f"{heads} heads in {layers} layers are too few for {len(changes.names)} tasks"

    def with_shuffled_controls(self) -> tuple[list[str], list[str]]:
        """Target and basics without usable controls by shuffled answers, and other tasks with them.

        A control is usable if it has enough runs and the same samples as the task's own scores.
        """

        def has(name: str) -> bool:
            control = self.shuffled.get(name)
            return control is not None and not self._too_few(control) and control.samples == self.own[name].samples

        without = [name for name in (self.target, *self.basics) if not has(name)]
        return without, [name for name in self.comparable_others if has(name)]

    def _too_few(self, stages: Stages) -> bool:
        return stages.before is None or stages.n < MIN_SAMPLES or stages.runs < MIN_RUNS


def _in_usable_layers(layers: Array, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(heads): which are in a layer with more heads than the terms that are removed from each layer."""
    _, index, counts = np.unique(np.where(present, layers, -1), return_inverse=True, return_counts=True)
    return np.asarray(counts[index] > LAYER_TERMS)


def evaluate_evidence(inputs: CompositionInputs, level: float = 0.95, seed: int = 0) -> CompositionEvidence:
    """Evaluate the evidence for composition; see `headnb.analysis.composition.evidence`."""
    if reason := inputs.reason_untestable():
        return CompositionEvidence(inputs.target, inputs.basics, reason_untested=reason)
    change = compare(inputs.changes(inputs.comparable_others), level, seed)
    size, available = len(inputs.basics), len(inputs.comparable_others)
    without, controlled = inputs.with_shuffled_controls()
    beyond_format, missing = None, ""
    if available < size:
        missing = f"at least {MIN_RUNS} training runs each of {_count_of_other_tasks(size)}; {available} available"
    elif without:
        missing = f"training on shuffled answers of {join_names(without)}, at least {MIN_RUNS} runs each"
    elif len(controlled) < size:
        missing = f"training on shuffled answers of {_count_of_other_tasks(size)}; {len(controlled)} available"
    else:
        beyond_format = compare(inputs.changes(controlled, subtract_shuffled=True), level, seed)
    return CompositionEvidence(inputs.target, inputs.basics, change, beyond_format, missing=missing)


def _difference_from_control(own: Stages, control: Stages, present: np.ndarray) -> MeasuredPattern:
    """AP(own) - AP(shuffled), run by run: run i of both has the same seed."""
    runs = min(own.runs, control.runs)
    differences = own.after[:runs, :, present] - control.after[:runs, :, present]
    return MeasuredPattern(differences, None, own.sample_set)


def _role(target: str, basics: Mapping[str, Change], kind: str, name: str) -> str:
    role = "target" if name == target else f"{'basic' if name in basics else 'other'} {name}"
    return role if kind == "own" else f"shuffled {role}"


def _count_of_other_tasks(size: int) -> str:
    return f"{size} other task{'s' if size > 1 else ''}"
