"""Answers of a model at a tracked step of its training, compared with the expected ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError
from headnb.tasks.loading import Task, subset
from headnb.tuning.evaluation import evaluate

if TYPE_CHECKING:
    import xarray as xr

ANSWER_TOKENS = 64  # default maximum length of an answer


@dataclass(frozen=True)
class TrackedAnswers:
    """How many answers are generated at a tracked step, and how long they may be.

    Attributes:
        count: answers per task, those of its first scored samples; 0: none.
        max_new_tokens: maximum number of generated tokens of one answer.

    Raises:
        HeadnbError: a number is too small.
    """

    count: int = 0
    max_new_tokens: int = ANSWER_TOKENS

    def __post_init__(self) -> None:
        if self.count < 0:
            raise HeadnbError(f"answers must be 0 or more, not {self.count}")
        if self.max_new_tokens < 1:
            raise HeadnbError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")

    @property
    def settings(self) -> dict[str, int]:
        """Settings of a training with answers, by which its folder is recognized; empty without answers."""
        return {"answers": self.count, "max_new_tokens": self.max_new_tokens} if self.count else {}

    def add_to(self, scores: xr.Dataset, model: Any, tokenizer: Any, task: Task, encoding: Any) -> xr.Dataset:
        """Scores with `exact_match` (sample) of `evaluate`; NaN for the samples whose answers are not generated."""
        if not self.count:
            return scores
        samples = scores["sample"].to_numpy().tolist()
        asked = set(samples[: self.count])
        questions = subset(task, [index for index, key in enumerate(task.ids) if key in asked])
        found = evaluate(
            model,
            tokenizer,
            questions,
            max_new_tokens=self.max_new_tokens,
            encoding=encoding,
            on_progress=lambda _done, _total: None,  # no progress bar of its own
        )
        matches = dict(zip(found["sample"].to_numpy().tolist(), found["exact_match"].to_numpy(), strict=True))
        return scores.assign(exact_match=("sample", [matches.get(key, float("nan")) for key in samples]))
