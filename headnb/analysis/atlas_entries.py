"""Entries of a pattern atlas: rows of samples, the settings that entries share, and their data set in a file.

An entry keeps at most `MAX_ROWS` rows of values (layer, head). With more samples a row is the mean of equally many
samples; samples are grouped in the order of their fingerprints, so that the same samples always give the same rows. The
last few samples that do not fill a row are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from headnb.errors import HeadnbError, one_line
from headnb.stats.estimates import Estimate
from headnb.stats.jackknife import correlation
from headnb.stats.paired import paired_levels
from headnb.stats.patterns import HEADS, MEAN_UNITS, relative_to_mean_head, sample_levels
from headnb.stats.reliability import Evidence, components
from headnb.stats.results import is_result, require_scores
from headnb.stats.scoring_revision import REVISION

if TYPE_CHECKING:
    from headnb.stats.descriptive import Array

MAX_ROWS = 32
Kind = Literal["task", "adapter"]
TASK: Kind = "task"
ADAPTER: Kind = "adapter"
_SHARED = ("model_fingerprint", "method", "loss_reduction", "encoding", REVISION)  # equal in all entries of an atlas
_DESCRIBING = ("model", "method_label", "units", "reduction", "kv_heads", "dtype")


@dataclass(frozen=True, eq=False)
class Entry:
    """Rows of one task or adapter.

    Attributes:
        name: in the atlas.
        kind: "task": levels of a task's samples; "adapter": their change by an adapter, relative to the mean head.
        task: name of the scored task.
        model: name of the scored model, with its adapter.
        rows: (rows, layer, head); a row is a sample, or the mean of equally many samples.
        fingerprints: (samples), of the samples' tokens, ascending; those of each row follow each other.
    """

    name: str
    kind: Kind
    task: str
    model: str
    rows: Array
    fingerprints: Array

    @property
    def flat(self) -> Array:
        """(rows, heads), float64."""
        return np.asarray(self.rows.reshape(len(self.rows), -1), dtype=np.float64)

    @property
    def evidence(self) -> Evidence:
        """Reliability of the entry's pattern."""
        found, size = components(self.flat).evidence, len(self.fingerprints) // len(self.rows)
        needed = found.samples_for_090 * size if found.samples_for_090 > 0 else -1
        return found._replace(samples=len(self.fingerprints), samples_for_090=needed)

    def reduced(self) -> Entry:
        """The entry with at most `MAX_ROWS` rows."""
        size = -(-len(self.rows) // MAX_ROWS)
        if size < 2:
            return self
        groups = len(self.rows) // size
        means = self.rows[: groups * size].reshape(groups, size, *self.rows.shape[1:]).mean(axis=1)
        used = len(self.fingerprints) // len(self.rows) * groups * size
        return replace(self, rows=means, fingerprints=self.fingerprints[:used])

    def correlation(self, known: Entry, level: float, seed: int) -> tuple[Estimate, int]:
        """Noise-corrected correlation with a known entry, and the number of this entry's samples that were compared.

        With the same samples, rows are paired. If only some samples are the same, this entry is compared without them:
        noise that both share would raise the correlation.
        """
        mine = self.reduced()
        paired = np.array_equal(mine.fingerprints, known.fingerprints)
        if not paired:
            mine = self._without(known.fingerprints).reduced()
        if not len(mine.rows):
            return Estimate(math.nan, math.nan, math.nan, level, 0, math.nan), 0
        found = correlation(mine.flat, known.flat, paired=paired, level=level, seed=seed)
        return found, len(mine.fingerprints)

    def _without(self, fingerprints: Array) -> Entry:
        """The entry without the rows that contain one of these samples."""
        of_row = self.fingerprints.reshape(len(self.rows), -1)
        other = ~np.isin(of_row, fingerprints).any(axis=1)
        return replace(self, rows=self.rows[other], fingerprints=of_row[other].ravel())


def make_entry(name: object, scores: xr.Dataset, before: xr.Dataset | None) -> Entry:
    """Entry of a task's scores, or of an adapter's with the scores `before` it of the same samples.

    Raises:
        HeadnbError: not scores of samples with fingerprints, or scores that cannot be paired.
    """
    if not isinstance(name, str) or not name.strip():
        raise HeadnbError(f"the name of an entry is text, not {name!r:.60}")
    levels = sample_levels(scores)
    require_scores(scores)
    if set(levels.dims) != {"sample", *HEADS} or "fingerprint" not in scores:
        raise HeadnbError("an atlas needs the scores of samples, as headnb.score_heads returns them")
    kind: Kind = TASK
    if before is not None:
        kind = ADAPTER
        levels = _change(before, scores)
        scores = scores.sel(sample=levels["sample"])
    fingerprints = scores["fingerprint"].to_numpy()
    order = np.argsort(fingerprints, kind="stable")
    values = levels.transpose("sample", *HEADS).to_numpy()[order]
    task, model = (one_line(scores.attrs.get(attr, "")) for attr in ("task", "model"))
    return Entry(one_line(name), kind, task, model, values.astype(np.float32), fingerprints[order])


def _change(before: xr.Dataset, after: xr.Dataset) -> xr.DataArray:
    """Change of each sample's level; levels are divided by the mean head, since all fall with the loss."""
    one, other = paired_levels(before, after)
    if before.attrs.get("reduction", "mean-abs") != "mean-abs":
        return other - one
    return one.copy(data=relative_to_mean_head(other.to_numpy()) - relative_to_mean_head(one.to_numpy()))


def shared_settings(scores: xr.Dataset) -> dict[str, Any]:
    """The attributes of scores that all entries of an atlas have in common.

    Raises:
        HeadnbError: the scores do not say which weights they are of.
    """
    if not is_result(scores) or "model_fingerprint" not in scores.attrs:
        raise HeadnbError("an atlas needs scores that name their weights (model_fingerprint); score the samples again")
    options = [str(name) for name in scores.attrs if str(name).startswith("option_")]
    names = [name for name in (*_SHARED, *sorted(options)) if name in scores.attrs]
    return {name: scores.attrs[name] for name in names} | {dim: tuple(scores[dim].values.tolist()) for dim in HEADS}


def describing_attrs(scores: xr.Dataset) -> dict[str, Any]:
    """Attributes that describe an atlas and its patterns."""
    return {name: scores.attrs[name] for name in _DESCRIBING if name in scores.attrs}


def check_same_settings(settings: dict[str, Any], attrs: dict[str, Any], scores: xr.Dataset, what: str) -> None:
    """Raise HeadnbError if scores have other settings than the atlas."""
    found = shared_settings(scores)
    if found.get("model_fingerprint") != settings["model_fingerprint"]:
        raise HeadnbError(
            f"the atlas has patterns of {attrs.get('model')} (weights {settings['model_fingerprint'][:8]}), and {what} "
            f"are of {scores.attrs.get('model')} (weights {found['model_fingerprint'][:8]}); for a fine-tuned model "
            "give the scores of the atlas's model as before="
        )
    for name in settings.keys() | found.keys():
        if settings.get(name) != found.get(name):
            one, other = (one_line(value.get(name), 60) for value in (settings, found))
            raise HeadnbError(f"the patterns cannot be compared: {name} is {one} in the atlas and {other} in {what}")


def pattern_attrs(entry: Entry, attrs: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Attributes of an entry's pattern."""
    known = {name: settings[name] for name in ("method", "loss_reduction", REVISION) if name in settings}
    levels = attrs.get("reduction", "mean-abs") == "mean-abs"
    kind, units = ("level" if levels else "signed"), str(attrs.get("units", ""))
    if entry.kind == ADAPTER:
        kind, units = "difference", MEAN_UNITS if levels else units
    described: dict[str, Any] = {name: attrs[name] for name in ("method_label", "kv_heads", "dtype") if name in attrs}
    about = {"kind": kind, "units": units, "model": entry.model, "task": entry.task}
    return {**known, **described, **about, **entry.evidence._asdict()}


def to_dataset(entries: list[Entry], settings: dict[str, Any], attrs: dict[str, Any]) -> xr.Dataset:
    """Data set of an atlas: the rows of all entries below each other, and the fingerprints of all samples."""
    rows = [entry.rows for entry in entries]
    numbers = np.arange(len(entries))
    texts = {name: ("entry", [getattr(entry, name) for entry in entries]) for name in ("kind", "task", "model")}
    return xr.Dataset(
        {
            "value": (("row", *HEADS), np.concatenate(rows).astype(np.float32)),
            "entry_of_row": ("row", np.repeat(numbers, [len(one) for one in rows])),
            "fingerprint": ("sample", np.concatenate([entry.fingerprints for entry in entries])),
            "entry_of_sample": ("sample", np.repeat(numbers, [len(entry.fingerprints) for entry in entries])),
            **texts,
        },
        coords={"entry": [entry.name for entry in entries], **{dim: list(settings[dim]) for dim in HEADS}},
        attrs={**attrs, **{name: value for name, value in settings.items() if name not in HEADS}, "headnb_atlas": 1},
    )


def from_dataset(stored: xr.Dataset, where: str) -> tuple[list[Entry], dict[str, Any], dict[str, Any]]:
    """Entries, settings and attributes of an atlas that `to_dataset` made.

    Raises:
        HeadnbError: it is not the data set of an atlas.
    """
    needed = {"value", "entry_of_row", "fingerprint", "entry_of_sample", "kind", "task", "model"}
    if stored.attrs.get("headnb_atlas") != 1 or not needed <= set(stored.data_vars) or "entry" not in stored.coords:
        raise HeadnbError(f"{where} is not a pattern atlas")
    values, row, sample = (stored[name].to_numpy() for name in ("value", "entry_of_row", "entry_of_sample"))
    entries = [
        Entry(
            one_line(name),
            ADAPTER if stored["kind"].values[at] == ADAPTER else TASK,
            one_line(stored["task"].values[at]),
            one_line(stored["model"].values[at]),
            values[row == at],
            np.sort(stored["fingerprint"].to_numpy()[sample == at]),
        )
        for at, name in enumerate(stored["entry"].values.tolist())
    ]
    if not all(len(entry.rows) and len(entry.fingerprints) % len(entry.rows) == 0 for entry in entries):
        raise HeadnbError(f"{where} is damaged: the samples of an entry do not fill its rows")
    attrs = {name: stored.attrs[name] for name in _DESCRIBING if name in stored.attrs}
    settings = {
        str(name): value for name, value in stored.attrs.items() if name in _SHARED or str(name).startswith("option_")
    } | {dim: tuple(stored[dim].values.tolist()) for dim in HEADS}
    return entries, settings, attrs
