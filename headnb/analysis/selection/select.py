"""Instruction selection for a target task with only a few samples: application 2 of arXiv 2409.15820.

Selects the instructions of a pool whose activation patterns are most similar to the target's. The paper's similarity
measure and baselines are not known. `select_instructions` documents the methods offered here, including baselines that
need no gradient or no model, embeddings and gradient features.
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
from headnb.analysis.selection.views import FEATURES, RandomView, ScoreView, TextView
from headnb.call_checks import check_arguments
from headnb.display.encodings import for_stdout
from headnb.errors import HeadnbError, unknown_name
from headnb.hub import user_path
from headnb.stats.patterns import sample_levels
from headnb.stats.reliability import components
from headnb.storage.reading import open_scores_of_one_method
from headnb.tasks.loading import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.analysis.selection.nearest import Ranked
    from headnb.analysis.selection.pools import Scores, Source
    from headnb.analysis.selection.views import View
    from headnb.scoring.progress import Progress
    from headnb.stats.descriptive import Array

WAYS = ("pattern", "cosine", "gradient-free", *FEATURES, "tfidf", "random")
PLAIN_COSINE = {"cosine", "gradient", "less"}  # other vectors are standardised over the pool
WITHOUT_MODEL = {"tfidf", "random"}
UNUSED = {  # arguments without effect, by selection method
    "tfidf": ("method", "out"),
    "random": ("method", "out", "diversity"),
    **dict.fromkeys(FEATURES, ("method",)),
}
AIMS = ("mean", "nearest")
REPR_ROWS = 10  # rows of the table in a repr
CANDIDATES = 10  # a diverse selection chooses from this many times k candidates


@dataclass(frozen=True, repr=False)
class Selection:
    """Samples of a pool chosen for a target, most similar first (or in the order of the diverse selection).

    Attributes:
        table: one row per sample, indexed by `rank` (from 1): `sample` (its id), `similarity` (the ranking criterion),
            `nearest` (the most similar sample of the target) and `nearest_similarity`.
        by: selection method, one of `WAYS`.
        to: "mean" or "nearest".
        pool_size: number of compared samples.
        pool_similarity: mean similarity of the pool's samples that can be chosen (not the target's, each of equal
            samples once with `deduplicate`), the expected similarity of a random selection.
        target_size: number of samples of the target.
        target_reliability: reliability of the target's pattern; NaN without patterns or below four samples.
        notes: warnings for the user.
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
        """Ids of the chosen samples; `source/id` (such as `gsm8k/17`) in a pool of named sources."""
        return tuple(self.table["sample"])

    @property
    def task(self) -> Task:
        """The chosen samples as a task, for example for `finetune`.

        Raises:
            HeadnbError: the pool was given as scores; use `of` with the tasks that were scored.
        """
        if not all_tasks(self._sources):
            raise HeadnbError("the pool was given as scores and has no samples; call selection.of(pool) with the tasks")
        return self.of(self._sources)

    def of(self, pool: object) -> Task:
        """Take the chosen samples from the tasks whose scores were compared.

        Args:
            pool: a task, anything that `load_task` accepts, or name -> task with the names of the scores.

        Raises:
            HeadnbError: the pool has scores instead of tasks, or lacks a chosen sample.
        """
        sources = pool if pool is self._sources else read_pool(pool)
        if not all_tasks(sources):
            raise HeadnbError("expected tasks, got scores, which have no samples")
        return chosen_task(sources, self.ids, f"selection by {self.by}")

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        text = self.table.head(REPR_ROWS).to_string(float_format="{:.3f}".format, na_rep="–")
        more = [f"and {len(self) - REPR_ROWS} more (.table)"] if len(self) > REPR_ROWS else []
        return for_stdout("\n".join([*self._lines(), text, *more, *self.notes]))

    def _repr_html_(self) -> str:
        form: dict[str, Any] = {"float_format": "{:.3f}".format, "na_rep": "–", "max_rows": 2 * REPR_ROWS}
        return result_html(*self._lines(), *self.notes, self.table, **form)

    def _lines(self) -> list[str]:
        lines = [f"{len(self)} of {self.pool_size} samples by {self.by}, for {self.target_size} samples of the target"]
        if self.by != "random":
            to = "the mean of the target" if self.to == "mean" else "the nearest sample of the target"
            mean = self.table["similarity"].mean()
            lines.append(f"mean similarity to {to}: {mean:.3f}, in the whole pool {self.pool_similarity:.3f}")
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
    """Choose the k samples of a pool that are most similar to a target's samples (arXiv 2409.15820, application 2).

    Samples of the target are never chosen. Ties keep the order of the pool. The paper's similarity measure and
    baselines are not known.

    Args:
        target: scores of the target's samples (as `score_heads` returns or stores them), their `sample_features`, a
            `Task`, or anything that `load_task` accepts; a name stands for its train split.
        pool: the same, or name -> source; ids are then `name/id`. Stores are read a few thousand samples at a time; a
            netCDF file is read whole.
        k: number of samples to choose.
        by: selection method.
            "pattern": correlation over heads of the samples' levels |s|. Each sample is divided by its mean over heads,
            and each head is standardised over the pool. So neither the size of a sample's gradients nor heads that are
            strong on every text dominate the choice.
            "cosine": plain cosine of |s|.
            "gradient-free": like "pattern", with the heads' activity in a forward pass.
            "embedding", "embedding-middle": like "pattern", with mean hidden states (see `sample_features`).
            "gradient": cosine of projected gradients of LoRA weights.
            "less": cosine of the features of LESS; give target and pool as results of `sample_features`.
            "tfidf": cosine of TF-IDF vectors of prompt and completion; needs samples but no model.
            "random": random samples.
        to: "mean": similarity to the mean of the target's samples (each of unit length). "nearest": similarity to the
            most similar sample of the target, for targets of several kinds.
        diversity: weight of dissimilarity to the samples chosen before, 0 to below 1 (maximal marginal relevance).
        candidates: number of most similar samples that a diverse selection chooses from; default 10 k. Only with
            `diversity`.
        deduplicate: choose only one of equal samples (equal tokens with scores, equal text otherwise).
        model: model that scores sources given as tasks.
        tokenizer: tokenizer of the model.
        method: score method of "pattern" and "cosine" (default "activation") or "gradient-free" (default
            "output-norm").
        out: folder for the pool's scores; later calls with the same pool and model reuse them. Features are all held in
            memory, scores are not.
        batch_tokens: as in `score_heads`.
        max_length: truncate samples to this many tokens.
        seed: seed of "random".
        on_progress: as in `score_heads`, while the pool is scored; not called for features.

    Raises:
        HeadnbError: an unknown selection method, an argument that it does not use, tasks without a model, scores of
            different models, methods or heads, missing text, or fewer than k different samples in the pool.
    """
    _check_choice(by, to, k, diversity, candidates, method=method, out=out)
    choice = _Choice(by, to, k, diversity, candidates or CANDIDATES * k, deduplicate)
    wanted, sources = read_target(target), read_pool(pool)
    if by in WITHOUT_MODEL:
        return _choose(_view_without_model(wanted, sources, choice, seed), sources, choice)

    method = by if by in FEATURES else method or ("output-norm" if by == "gradient-free" else "activation")
    scoring: dict[str, Any] = {"batch_tokens": batch_tokens, "max_length": max_length}
    score = None if model is None else partial(_score, model, tokenizer, method, scoring)
    with tempfile.TemporaryDirectory(prefix="headnb-") as scratch:
        pool_scores = score_sources(sources, score, user_path(out) if out else Path(scratch), on_progress)
        view = ScoreView.of(pool_scores, _target_scores(wanted, score, by), standardised=by not in PLAIN_COSINE)
        return _choose(view, sources, choice)


@dataclass(frozen=True)
class _Choice:
    """The settings of a selection."""

    by: str
    to: str
    k: int
    diversity: float
    candidates: int
    deduplicate: bool

    @property
    def diverse(self) -> bool:
        """Whether similarity to the samples chosen before counts."""
        return bool(self.diversity) and self.by != "random"


def _choose(view: View, sources: list[Source], choice: _Choice) -> Selection:
    pool = _PoolStatistics(view.target_keys, choice.deduplicate)
    chosen = _chosen_samples(view, pool, choice)
    return Selection(
        table=_table(chosen, view, choice.by),
        by=choice.by,
        to=choice.to,
        pool_size=pool.size,
        pool_similarity=pool.mean_similarity() if choice.by != "random" else float("nan"),
        target_size=len(view.target_keys),
        target_reliability=_reliability(view.target_scores) if isinstance(view, ScoreView) else float("nan"),
        notes=tuple(incomplete_sources(view.sources)) if isinstance(view, ScoreView) else (),
        _sources=sources,
    )


def _chosen_samples(view: View, pool: _PoolStatistics, choice: _Choice) -> Ranked:
    """The k most similar samples, or a diverse selection from the candidates; `pool` counts compared samples."""
    most = choice.candidates if choice.diverse else choice.k
    ranked = pool.count(view.ranked(choice.to))
    chosen = select_best(ranked, most, without=view.target_keys, deduplicate=choice.deduplicate)
    if chosen is None or len(chosen.ids) < choice.k:
        available = 0 if chosen is None else len(chosen.ids)
        different = "different " if choice.deduplicate else ""
        samples = f"{different}samples that are not the target's"
        raise HeadnbError(f"k={choice.k}, but the pool has {available} {samples} ({pool.size} in all)")
    if not choice.diverse:
        return chosen
    vectors = gather_vectors(view.parts(), chosen.positions)
    return chosen.take(select_diverse(chosen.similarity, vectors, choice.k, choice.diversity))


@dataclass
class _PoolStatistics:
    """Number of the pool's samples, and similarity of those that can be chosen, collected during iteration."""

    target_keys: NDArray[np.int64]
    deduplicate: bool
    size: int = 0
    keys: list[NDArray[np.int64]] = field(default_factory=list)
    similarity: list[Array] = field(default_factory=list)

    def count(self, parts: Iterator[Ranked]) -> Iterator[Ranked]:
        for part in parts:
            self.size += len(part.similarity)
            eligible = ~np.isin(part.keys, self.target_keys)
            self.keys.append(part.keys[eligible])
            self.similarity.append(part.similarity[eligible])
            yield part

    def mean_similarity(self) -> float:
        similarity = np.concatenate(self.similarity)
        if self.deduplicate:
            similarity = similarity[np.unique(np.concatenate(self.keys), return_index=True)[1]]
        return float(similarity.mean())


def _view_without_model(target: Task | Scores, sources: list[Source], choice: _Choice, seed: int) -> View:
    if isinstance(target, Task) and all_tasks(sources):
        if choice.by == "tfidf":
            return TextView.of(sources, target)
        return RandomView(sources, target, seed, choice.deduplicate)
    if choice.by == "tfidf":
        raise HeadnbError("by='tfidf' needs text; give target and pool as tasks, not as scores")
    if isinstance(target, Task) or any(isinstance(source.content, Task) for source in sources):
        raise HeadnbError("by='random' needs target and pool both as tasks, or both as scores")
    return RandomView(sources, _load_scores(target), seed, choice.deduplicate)


def _score(
    model: Any,
    tokenizer: Any,
    method: str,
    scoring: dict[str, Any],
    task: Task,
    out: Path | None = None,
    on_progress: Any = None,
) -> Scores:
    """Score a task, or compute its features; returns the store `out` if there is one."""
    if method in FEATURES:
        from headnb.analysis.selection.features import sample_features  # noqa: PLC0415  loads torch, as the next import

        file = None if out is None else out.with_suffix(".nc")
        return sample_features(model, tokenizer, task, method, out=file, **scoring)
    from headnb.scoring.run import score_heads  # noqa: PLC0415  loads torch, which existing scores do not need

    scores = score_heads(model, tokenizer, task, method=method, out=out, on_progress=on_progress, **scoring)
    return scores if out is None else out


def _target_scores(target: Task | Scores, score: Callable[..., Scores] | None, by: str) -> xr.Dataset:
    if isinstance(target, Task):
        if score is None:
            raise HeadnbError("the target is a task without scores; give model= and tokenizer=, or its scores")
        target = score(target)
    scores = _load_scores(target)
    if "sample" not in scores.dims or not scores.sizes["sample"]:
        raise HeadnbError("the target has no scores per sample")
    method = str(scores.attrs.get("method"))
    if (by in FEATURES or "feature" in scores) and by != method:
        raise HeadnbError(f"by={by!r} needs sample_features of this kind, not {method!r}")
    if by == "gradient-free" and _needs_gradients(method):
        raise HeadnbError(f"by='gradient-free' needs scores of a forward pass, such as 'output-norm', not {method!r}")
    return scores


def _needs_gradients(method: str) -> bool:
    from headnb.scoring.registry import find_method, methods  # noqa: PLC0415  loads torch

    return method in methods() and find_method(method).gradient


def _load_scores(scores: Scores) -> xr.Dataset:
    return scores if isinstance(scores, xr.Dataset) else open_scores_of_one_method(scores)


def _reliability(scores: xr.Dataset) -> float:
    if "feature" in scores:
        return float("nan")
    levels = sample_levels(scores).transpose("sample", ...)
    return components(levels.to_numpy().reshape(levels.sizes["sample"], -1)).reliability


def _table(chosen: Ranked, view: View, by: str) -> pd.DataFrame:
    unknown = np.full(len(chosen.ids), np.nan)
    nearest = np.array([None if row < 0 else view.target_ids[row] for row in chosen.nearest], object)
    columns = {
        "sample": ("rank", chosen.ids),
        "similarity": ("rank", unknown if by == "random" else chosen.similarity),
        "nearest": ("rank", nearest),
        "nearest_similarity": ("rank", chosen.nearest_similarity),
    }
    return xr.Dataset(columns, {"rank": np.arange(1, len(chosen.ids) + 1)}).to_dataframe()


def _check_choice(by: str, to: str, k: int, diversity: float, candidates: int | None, **scoring: object) -> None:
    """Check the arguments of a selection; `scoring`: `method` and `out`."""
    if by not in WAYS:
        raise unknown_name("selection method", by, WAYS)
    if to not in AIMS:
        raise unknown_name("value of to", to, AIMS)
    for name, value in (("k", k), ("candidates", candidates)):
        if value is not None and value < 1:
            raise HeadnbError(f"{name} must be a whole number of samples, at least 1; got {value}")
    if candidates is not None and candidates < k:
        raise HeadnbError(f"candidates must be at least k; got candidates={candidates} and k={k}")
    if not 0 <= diversity < 1:
        raise HeadnbError(f"diversity must be at least 0 and below 1; got {diversity!r}")
    if candidates is not None and not diversity:
        raise HeadnbError("candidates has no effect without diversity; leave it out, or set diversity")
    given = {"diversity": diversity or None, **scoring}
    for name in UNUSED.get(by, ()):
        if given[name] is not None:
            raise HeadnbError(f"{name} has no effect with by={by!r}; leave it out")
