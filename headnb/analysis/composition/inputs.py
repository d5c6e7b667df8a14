"""The tasks that enter a composition: reading what a caller hands over, and what evidence can be weighed from it."""

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
    from headnb.analysis.before_after import Change, Stages

MIN_RUNS = 3
MIN_LAYERS = 5  # with fewer a sign-flip test cannot reach p < 0.05


@dataclass(frozen=True)
class CompositionInputs:
    """The tasks of a composition.

    Attributes:
        target: name of the complex task.
        basics: names of the basic tasks; `others`: of tasks that are neither.
        own: task -> before and after fine-tuning on it, the target first, then the basics, then the others.
        shuffled: task -> before and after fine-tuning on its prompts with shuffled answers, as far as there is any.
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
        """Read and check them; `shuffled` that is no mapping is the target's.

        Raises:
            HeadnbError: no basics, a name that stands for two tasks or for none, or patterns of different heads.
        """
        if not basics:
            raise HeadnbError('there are no basic tasks to combine; give them by name: {"gsm8k": (before, after), ...}')
        if twice := set(basics) & set(others):
            raise HeadnbError(f"{', '.join(sorted(twice))} cannot be both a basic and another task")
        first = read_stages(target, "target")
        called = name or first.task or "target"
        for kind, names in (("a basic", basics), ("another", others)):
            if called in names:
                raise HeadnbError(f"{called!r} is both the target and {kind} task")
        own = {called: first} | {each: read_stages(change, each) for each, change in {**basics, **others}.items()}
        controls = shuffled if isinstance(shuffled, Mapping) else {} if shuffled is None else {called: shuffled}
        if unknown := [each for each in controls if each not in own]:
            raise unknown_name("task of the shuffled answers", unknown[0], own)
        labelled = {("own", each): one for each, one in own.items()}
        labelled |= {("shuffled", each): read_stages(one, f"shuffled {each}") for each, one in controls.items()}
        check_same_grid({_role(called, basics, *key): one for key, one in labelled.items()})
        common = on_common_samples(labelled)
        parts = {kind: {each: one for (k, each), one in common.items() if k == kind} for kind in ("own", "shuffled")}
        return cls(called, tuple(basics), tuple(others), parts["own"], parts["shuffled"])

    @property
    def comparable_others(self) -> list[str]:
        """Other tasks with samples and runs enough to compare with."""
        return [name for name in self.others if not self._too_few(self.own[name])]

    def changes(self, others: list[str], *, subtract_shuffled: bool = False) -> ComparisonInputs:
        """Patterns and changes of target, basics and some others: dAP, or own answers less shuffled answers."""
        names = (self.target, *self.basics, *others)
        own = [self.own[name] for name in names]
        controls = [self.shuffled[name] for name in names] if subtract_shuffled else []
        present = ~np.any([one.missing for one in (*own, *controls)], axis=0)
        before = [
            MeasuredPattern(one.required_before[None][..., present], None, (one.task, one.samples)) for one in own
        ]
        if subtract_shuffled:
            change = [_difference_from_control(*pair, present) for pair in zip(own, controls, strict=True)]
        else:
            change = [
                MeasuredPattern(one.after[..., present], one.required_before[:, present], (one.task, one.samples))
                for one in own
            ]
        return ComparisonInputs(names, len(self.basics), tuple(before), tuple(change), own[0].layers[present])

    def reason_untestable(self) -> str:
        """Why no evidence can be weighed; empty where it can."""
        needed = {name: self.own[name] for name in (self.target, *self.basics)}
        if bare := [name for name, one in needed.items() if one.before is None or not one.n]:
            return f"this needs scores per sample before and after fine-tuning, also of {join_names(bare)}"
        if few := [f"{name} ({one.n})" for name, one in needed.items() if one.n < MIN_SAMPLES]:
            return f"this needs {MIN_SAMPLES} samples of each task or more, also of {join_names(few)}"
        if few := [f"{name} ({one.runs})" for name, one in needed.items() if one.runs < MIN_RUNS]:
            needs = f"this needs {MIN_RUNS} training runs of each task or more, with different seeds"
            return f"{needs}; there are fewer of {join_names(few)}"
        changes = self.changes(self.comparable_others)
        layers, heads = len(np.unique(changes.layers)), len(changes.layers)
        if layers < MIN_LAYERS:
            return f"this needs {MIN_LAYERS} layers or more, not {layers}"
        if heads - 2 * layers < 2 * (len(changes.names) + len(self.basics)):
            return f"{heads} heads in {layers} layers are too few for {len(changes.names)} tasks"
        return ""

    def with_shuffled_controls(self) -> tuple[list[str], list[str]]:
        """Tasks that lack shuffled answers in enough runs on the same samples, and other tasks that have them."""

        def has(name: str) -> bool:
            one = self.shuffled.get(name)
            return one is not None and not self._too_few(one) and one.samples == self.own[name].samples

        return [name for name in (self.target, *self.basics) if not has(name)], [
            n for n in self.comparable_others if has(n)
        ]

    def _too_few(self, one: Stages) -> bool:
        return one.before is None or one.n < MIN_SAMPLES or one.runs < MIN_RUNS


def evaluate_evidence(inputs: CompositionInputs, level: float = 0.95, seed: int = 0) -> CompositionEvidence:
    """The evidence for composition that the tasks give; see `headnb.analysis.composition.evidence`."""
    if reason := inputs.reason_untestable():
        return CompositionEvidence(inputs.target, inputs.basics, unjudged=reason)
    change = compare(inputs.changes(inputs.comparable_others), level, seed)
    size, rivals = len(inputs.basics), inputs.comparable_others
    without, controlled = inputs.with_shuffled_controls()
    beyond, lacking = None, ""
    if len(rivals) < size:
        lacking = f"{_count_of_other_tasks(size)} with {MIN_RUNS} training runs each or more; there are {len(rivals)}"
    elif without:
        lacking = f"training on shuffled answers of {join_names(without)}, {MIN_RUNS} runs each or more"
    elif len(controlled) < size:
        lacking = f"training on shuffled answers of {_count_of_other_tasks(size)}; there are {len(controlled)}"
    else:
        beyond = compare(inputs.changes(controlled, subtract_shuffled=True), level, seed)
    return CompositionEvidence(inputs.target, inputs.basics, change, beyond, lacking=lacking)


def _difference_from_control(own: Stages, control: Stages, present: np.ndarray) -> MeasuredPattern:
    """AP(own) - AP(shuffled) of runs in their order: equal numbers stand for equal seeds."""
    runs = min(own.runs, control.runs)
    differences = own.after[:runs, :, present] - control.after[:runs, :, present]
    return MeasuredPattern(differences, None, (own.task, own.samples))


def _role(target: str, basics: Mapping[str, Change], kind: str, name: str) -> str:
    role = "target" if name == target else f"{'basic' if name in basics else 'other'} {name}"
    return role if kind == "own" else f"shuffled {role}"


def _count_of_other_tasks(size: int) -> str:
    return f"{size} other task{'s' if size > 1 else ''}"
