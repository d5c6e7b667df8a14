"""Registered designs of the fair experiment (docs/experiment.md): tasks, controls, and lengths of trainings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Tuning = Literal["lora", "full"]


@dataclass(frozen=True)
class Family:
    """The registered tasks of one test.

    Attributes:
        target: the complex task.
        basics: the basic tasks.
        others: the other tasks, whose best pair the basics must beat.
        positive: positive control, in which composition must be found; "" for none.
        negative: negative control, in which it must not be found; "" for none.
        least_match: least exact match on the target in every run.
    """

    target: str
    basics: tuple[str, ...]
    others: tuple[str, ...]
    positive: str = ""
    negative: str = ""
    least_match: float = 0.0

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task that must be trained."""
        return (self.target, *self.basics, *((self.positive,) if self.positive else ()), *self.others)


PRIMARY = Family(
    "mathqa_python",
    ("gsm8k", "mbpp"),
    ("boolq", "svamp", "arc_easy", "openbookqa"),
    positive="gsm8k+mbpp",
    negative="boolq",
)
PROCEDURAL = Family("lcm", ("gcd", "products"), ("leg_counting", "syllogism"), least_match=0.5)
SMALL = replace(PRIMARY, others=("boolq", "svamp", "arc_easy"))

WORDS = Family(
    "last_word_in_capitals",
    ("last_word", "capital_letters"),
    ("word_count", "longest_word"),
    positive="last_word+capital_letters",
    negative="word_count",
    least_match=0.5,
)
EARLY = replace(WORDS, others=("chain_sum", "basic_arithmetic", "longest_word"), negative="chain_sum", least_match=0.0)


@dataclass(frozen=True)
class Design:
    """One registered study; the profile of suite.yaml and the folder of docs/results have its name.

    Attributes:
        name: name of the study.
        families: tests of composition; the target of the first has the long trainings.
        steps: length of a training.
        prefixes: lengths in steps of a long training's prefixes.
        tunings: kinds of tuning of the long trainings.
    """

    name: str
    families: tuple[Family, ...]
    steps: int
    prefixes: tuple[int, ...]
    tunings: tuple[Tuning, ...] = ("lora",)

    @property
    def results(self) -> Path:
        """Folder of compact results in a clone of headnb."""
        return Path("docs/results") / self.name

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of every family."""
        return tuple(dict.fromkeys(task for family in self.families for task in family.tasks))


DESIGNS = {
    design.name: design
    for design in (
        Design("fair", (PRIMARY, PROCEDURAL), 120, (20, 40, 80, 120, 200, 400)),
        Design("fair_small", (SMALL,), 40, (10, 20, 40, 80, 160)),
        Design("fair_words", (WORDS,), 40, (10, 20, 40, 80, 160)),
        Design("fair_early", (EARLY,), 8, (10, 20, 40), ("lora", "full")),
    )
}
