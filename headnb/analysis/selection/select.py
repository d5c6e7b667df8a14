"""Instructions for a task of which there are only a few samples: application 2 of arXiv 2409.15820.

From a pool of instructions those are chosen whose activation patterns are nearest to the target's. The similarity
measure of the paper and its baselines are not known; what is offered here is said in `select_instructions`, and the
baselines that need no model or no gradient stand beside it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.analysis.result import result_html
from headnb.analysis.selection.nearest import gather_vectors, select_best, select_diverse
from headnb.analysis.selection.pools import (
    all_tasks,
    chosen_task,
    incomplete_sources,
    read_pool,
    read_target,
    score_sources,
)
from headnb.analysis.selection.views import PatternView, RandomView, TextView
from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError, unknown_name
from headnb.hub import user_path
from headnb.stats.patterns import sample_levels
from headnb.stats.reliability import components
from headnb.storage.score_store import open_scores
from headnb.tasks.loading import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.analysis.selection.nearest import Ranked
    from headnb.analysis.selection.pools import Scores, Source
    from headnb.analysis.selection.views import View
    from headnb.scoring.progress import Progress

WAYS = ("pattern", "cosine", "gradient-free", "tfidf", "random")
WITHOUT_MODEL = {"tfidf", "random"}
AIMS = ("mean", "nearest")
REPR_ROWS = 10  # samples in a repr
CANDIDATES = 10  # times k, among which a diverse selection is made


@dataclass(frozen=True, repr=False)
class Selection:
    """Samples of a pool, chosen for a target; the most similar first, or in the order of the diverse choice.

    Attributes:
        table: one row per sample, by `rank` (from 1): `sample` (its id), `similarity` (what it was ranked by),
            `nearest` (the target's sample most like it) and `nearest_similarity`.
        by: how, one of `WAYS`.
        to: "mean" or "nearest".
        pool_size: samples that were compared.
        pool_similarity: their mean similarity: what a random choice would have.
        target_size: the target's samples.
        target_reliability: reliability of the target's pattern; NaN where no pattern was used, or below four samples.
        notes: what a user should know.
    """

    table: pd.DataFrame
    by: str
    to: str
    pool_size: int
    pool_similarity: float
    target_size: int
    target_reliability: float
    notes: tuple[str, ...] = ()
    _sources: list[Source] = field(default_factory=list, compare=False)

    @property
    def ids(self) -> tuple[Any, ...]:
        """The ids of the samples; of a pool of several sources `gsm8k/17`."""
        return tuple(self.table["sample"])

    @property
    def task(self) -> Task:
        """The samples, for `finetune`.

        Raises:
            HeadnbError: the pool was given as scores; `of` takes the samples from the tasks that were scored.
        """
        if not all_tasks(self._sources):
            raise HeadnbError("the pool was given as scores; selection.of(pool) takes the samples from the tasks")
        return self.of(self._sources)

    def of(self, pool: object) -> Task:
        """The chosen samples out of the pool of tasks whose scores were compared.

        Args:
            pool: a task or anything that `load_task` accepts, or name -> task, under the names that the scores had.

        Raises:
            HeadnbError: it lacks a chosen sample.
        """
        sources = pool if pool is self._sources else read_pool(pool)
        if not all_tasks(sources):
            raise HeadnbError("samples are taken from tasks, not from scores")
        return chosen_task(sources, self.ids, f"selection by {self.by}")

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        text = self.table.head(REPR_ROWS).to_string(float_format="{:.3f}".format, na_rep="–")
        more = [f"and {len(self) - REPR_ROWS} more (.table)"] if len(self) > REPR_ROWS else []
        return "\n".join([*self._lines(), text, *more, *self.notes])

    def _repr_html_(self) -> str:
        form: dict[str, Any] = {"float_format": "{:.3f}".format, "na_rep": "–", "max_rows": 2 * REPR_ROWS}
        return result_html(*self._lines(), *self.notes, self.table, **form)

    def _lines(self) -> list[str]:
        lines = [f"{len(self)} of {self.pool_size} samples by {self.by}, for {self.target_size} samples of the target"]
        if self.by != "random":
            of = "the mean of the target" if self.to == "mean" else "the nearest sample of the target"
            mean = self.table["similarity"].mean()
            lines.append(f"similarity to {of}: {mean:.3f} on average, {self.pool_similarity:.3f} in the whole pool")
        if not np.isnan(self.target_reliability):
            lines.append(f"reliability of the target's pattern: {self.target_reliability:.2f}")
        return lines


@check_arguments
def select_instructions(
    target: object,
    pool: object,
    k: int,
    by: str = "pattern",
    *,
    to: str = "mean",
    diversity: float = 0.0,
    candidates: int | None = None,
    deduplicate: bool = True,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    method: str | None = None,
    out: str | Path | None = None,
    batch_tokens: int = 4096,
    max_length: int | None = None,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Selection:
    """Choose the k samples of a pool that are most like a target's few samples (arXiv 2409.15820, application 2).

    Samples that are also the target's are never chosen. Equal similarities: the earlier in the pool. The similarity
    measure and the baselines of the paper are not known.

    Args:
        target: scores of the target's samples (as `score_heads` returns or stores them), a `Task`, or anything that
            `load_task` accepts; a name stands for its train split.
        pool: the same, or name -> any of them; then ids are `name/id`. Stores are read some thousand samples at a
            time and never held whole; a path to a netCDF file is.
        k: how many.
        by: "pattern": correlation over heads of the samples' levels |s|, of each sample relative to its mean head
            and of each head in standard deviations over the pool. So neither how large a sample's gradients are
            decides, nor the heads that are strong on every text. "cosine": plain cosine of |s|, nothing taken out.
            "gradient-free": as "pattern", of the heads' activity in a forward pass. "tfidf": cosine of the weighted
            words of prompt and completion; needs samples and no model. "random".
        to: "mean": similarity to the mean of the target's samples (of unit length each). "nearest": to the sample of
            the target that is most like it, for a target of several kinds.
        diversity: 0 to below 1, the weight of being unlike the samples chosen before (maximal marginal relevance).
        candidates: how many of the most similar samples a diverse choice is made from; 10 k by default.
        deduplicate: choose one of equal samples (equal tokens where there are scores, equal text else).
        model: scores what is given as a task.
        tokenizer: of the model.
        method: how it scores: "activation" by default, "output-norm" for "gradient-free".
        out: a folder for the pool's scores, which the next call with the same pool and model uses again.
        batch_tokens: as for `score_heads`.
        max_length: cut longer samples to so many tokens.
        seed: of "random".
        on_progress: as for `score_heads`, while the pool is scored.

    Raises:
        HeadnbError: an unknown way (the nearest is named), tasks without a model, scores of different models, methods
            or heads, text that is needed and not there, or fewer than k different samples in the pool.
    """
    _check_choice(by, to, k, diversity, candidates)
    choice = _Choice(by, to, k, diversity, candidates or CANDIDATES * k, deduplicate)
    wanted, sources = read_target(target), read_pool(pool)
    if by in WITHOUT_MODEL:
        return _choose(_view_without_model(wanted, sources, choice, seed), sources, choice)

    scoring: dict[str, Any] = {"method": method or ("output-norm" if by == "gradient-free" else "activation")}
    scoring |= {"batch_tokens": batch_tokens, "max_length": max_length}
    score = None if model is None else partial(_score, model, tokenizer, scoring)
    with tempfile.TemporaryDirectory(prefix="headnb-") as scratch:
        pool_scores = score_sources(sources, score, user_path(out) if out else Path(scratch), on_progress)
        view = PatternView.of(pool_scores, _target_scores(wanted, score, by), standardised=by != "cosine")
        return _choose(view, sources, choice)


@dataclass(frozen=True)
class _Choice:
    """Which samples are chosen of those that a view ranks."""

    by: str
    to: str
    k: int
    diversity: float
    candidates: int
    deduplicate: bool

    @property
    def diverse(self) -> bool:
        """Whether a sample's likeness to those chosen before it counts."""
        return bool(self.diversity) and self.by != "random"


def _choose(view: View, sources: list[Source], choice: _Choice) -> Selection:
    pool = _PoolStatistics()
    found = _chosen_samples(view, pool, choice)
    return Selection(
        table=_table(found, view, choice.by),
        by=choice.by,
        to=choice.to,
        pool_size=pool.size,
        pool_similarity=pool.total / pool.size if choice.by != "random" else float("nan"),
        target_size=len(view.target_keys),
        target_reliability=_reliability(view.target_scores) if isinstance(view, PatternView) else float("nan"),
        notes=tuple(incomplete_sources(view.sources)) if isinstance(view, PatternView) else (),
        _sources=sources,
    )


def _chosen_samples(view: View, pool: _PoolStatistics, choice: _Choice) -> Ranked:
    """The k most similar samples, or a diverse choice of the candidates; `pool` counts what was compared."""
    most = choice.candidates if choice.diverse else choice.k
    ranked = pool.count(view.ranked(choice.to))
    found = select_best(ranked, most, without=view.target_keys, deduplicate=choice.deduplicate)
    if found is None or len(found.ids) < choice.k:
        left = 0 if found is None else len(found.ids)
        different = "different " if choice.deduplicate else ""
        what = f"{different}samples that are not the target's"
        raise HeadnbError(f"k={choice.k}, but the pool has {left} {what} ({pool.size} in all)")
    if not choice.diverse:
        return found
    vectors = gather_vectors(view.parts(), found.positions)
    return found.take(select_diverse(found.similarity, vectors, choice.k, choice.diversity))


@dataclass
class _PoolStatistics:
    """What is counted of a pool while it passes."""

    size: int = 0
    total: float = 0.0

    def count(self, parts: Iterator[Ranked]) -> Iterator[Ranked]:
        for part in parts:
            self.size += len(part.similarity)
            self.total += float(part.similarity.sum())
            yield part


def _view_without_model(target: Task | Scores, sources: list[Source], choice: _Choice, seed: int) -> View:
    if isinstance(target, Task) and all_tasks(sources):
        if choice.by == "tfidf":
            return TextView.of(sources, target)
        return RandomView(sources, target, seed, choice.deduplicate)
    if choice.by == "tfidf":
        raise HeadnbError("by='tfidf' compares text: give target and pool as tasks, not as scores")
    if isinstance(target, Task) or any(isinstance(source.content, Task) for source in sources):
        raise HeadnbError("by='random' needs target and pool both as tasks, or both as scores")
    return RandomView(sources, _load_scores(target), seed, choice.deduplicate)


def _score(model: Any, tokenizer: Any, scoring: dict[str, Any], task: Task, **where: Any) -> xr.Dataset:
    from headnb.scoring.run import score_heads  # noqa: PLC0415  torch, which scores that are there do not need

    return score_heads(model, tokenizer, task, **scoring, **where)


def _target_scores(target: Task | Scores, score: Callable[..., xr.Dataset] | None, by: str) -> xr.Dataset:
    if isinstance(target, Task):
        if score is None:
            raise HeadnbError("the target is a task without scores: give model= and tokenizer=, or its scores")
        scores = score(target)
    else:
        scores = _load_scores(target)
    if "sample" not in scores.dims or not scores.sizes["sample"]:
        raise HeadnbError("the target has no scores of samples")
    used = str(scores.attrs.get("method"))
    if by == "gradient-free" and _takes_gradients(used):
        raise HeadnbError(f"by='gradient-free' needs scores of a forward pass, such as 'output-norm', not {used!r}")
    return scores


def _takes_gradients(method: str) -> bool:
    from headnb.scoring.registry import find_method, methods  # noqa: PLC0415  torch, as above

    return method in methods() and find_method(method).gradient


def _load_scores(scores: Scores) -> xr.Dataset:
    return scores if isinstance(scores, xr.Dataset) else open_scores(scores)


def _reliability(scores: xr.Dataset) -> float:
    levels = sample_levels(scores).transpose("sample", ...)
    return components(levels.to_numpy().reshape(levels.sizes["sample"], -1)).reliability


def _table(found: Ranked, view: View, by: str) -> pd.DataFrame:
    nothing = np.full(len(found.ids), np.nan)
    nearest = np.array([None if place < 0 else view.target_ids[place] for place in found.nearest], object)
    columns = {
        "sample": ("rank", found.ids),
        "similarity": ("rank", nothing if by == "random" else found.similarity),
        "nearest": ("rank", nearest),
        "nearest_similarity": ("rank", found.nearest_similarity),
    }
    return xr.Dataset(columns, {"rank": np.arange(1, len(found.ids) + 1)}).to_dataframe()


def _check_choice(by: str, to: str, k: object, diversity: float, candidates: int | None) -> None:
    if by not in WAYS:
        raise unknown_name("way to select", by, WAYS)
    if to not in AIMS:
        raise unknown_name("aim", to, AIMS)
    for name, value in (("k", k), *([("candidates", candidates)] if candidates is not None else [])):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise HeadnbError(f"{name} must be a whole number of samples, 1 or more, not {value!r}")
    if candidates is not None and candidates < k:  # type: ignore[operator]  # a number now
        raise HeadnbError(f"candidates={candidates} are fewer than k={k}")
    if not 0 <= diversity < 1:
        raise HeadnbError(f"diversity lies between 0 and below 1, not {diversity!r}")
