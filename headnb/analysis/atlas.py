"""Pattern atlas: patterns of known tasks and adapters, to find those that a new pattern resembles most.

An atlas belongs to one model (the weights without adapters), one method and one scoring revision. A task's pattern is
the mean over its samples; an adapter's pattern is the change that it makes to a task's pattern. Patterns of one kind
are compared by their noise-corrected correlation over heads (`stats.jackknife`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
import xarray as xr

from headnb.analysis.atlas_entries import (
    ADAPTER,
    TASK,
    Entry,
    check_same_settings,
    describing_attrs,
    from_dataset,
    make_entry,
    pattern_attrs,
    shared_settings,
    to_dataset,
)
from headnb.analysis.result import AnalysisResult, result_html
from headnb.call_checks import check_arguments
from headnb.display.charts.matrices import correlation_matrix
from headnb.display.encodings import for_stdout
from headnb.display.grid import HeadGrid
from headnb.errors import HeadnbError, unknown_name
from headnb.stats.patterns import HEADS
from headnb.stats.results import as_result, method_label
from headnb.stats.scoring_revision import warn_of_revision
from headnb.storage.files import read_dataset
from headnb.storage.remote import local_copy, shown_url
from headnb.storage.writing import save_dataset

if TYPE_CHECKING:
    from pathlib import Path

    from headnb.display.charts.chart import Chart
    from headnb.stats.labelled import Pattern

ATLAS_FILE = "atlas.nc"  # of a repository on the hub


@dataclass(frozen=True, repr=False)
class NearestPatterns(AnalysisResult):
    """The entries of an atlas that are most similar to a pattern.

    Attributes:
        found: one row per entry, the most similar first: its kind, task and number of samples, the noise-corrected
            `correlation` with its interval `low` to `high`, the `uncorrected` correlation, and `compared`, the number
            of the pattern's samples that were compared (samples that the entry also has are excluded). A correlation is
            NaN if there are too few samples to determine it.
        level: confidence level of the intervals.
        as_near: names of all other entries whose interval overlaps with that of the first, also beyond the k returned.
    """

    found: pd.DataFrame
    level: float
    as_near: tuple[str, ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """The entries, the most similar first."""
        return self.found

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        known = self.found.dropna(subset="correlation")
        if known.empty:
            return "More samples are needed to determine a correlation."
        best = known.iloc[0]
        interval = f"r = {best['correlation']:.2f} [{best['low']:.2f}, {best['high']:.2f}]"
        if not self.as_near:
            return f"Most like {known.index[0]} ({interval})."
        names = [name for name in self.as_near if name in known.index]
        if more := len(self.as_near) - len(names):
            names.append(f"{more} more {'entries' if more > 1 else 'entry'}")
        return f"Most like {known.index[0]} ({interval}); its interval overlaps with that of {', '.join(names)}."


class PatternAtlas:
    """Patterns of known tasks and adapters of one model: see `headnb.atlas`."""

    def __init__(self, entries: list[Entry], settings: dict[str, Any], attrs: dict[str, Any]) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self._settings = settings
        self._attrs = attrs

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    @check_arguments
    def add(self, name: str, scores: xr.Dataset, *, before: xr.Dataset | None = None) -> None:
        """Add a task, or with `before` an adapter.

        Args:
            name: name of the new entry.
            scores: scores of a task's samples; for an adapter, with the adapter.
            before: scores of the same samples without the adapter.

        Raises:
            HeadnbError: a different model, method or scoring revision from the atlas, scores that cannot be paired, or
                a different entry of this name.
        """
        entry = self._checked_entry(name, scores, before, f"the scores of {name!r:.60}").reduced()
        known = self._entries.get(entry.name)
        if known is not None and not _equal(known, entry):
            raise HeadnbError(
                f"the atlas already has a different entry {name!r:.60}; choose another name, or call atlas.remove(...)"
            )
        if not self._entries:
            base = scores if before is None else before
            self._settings, self._attrs = shared_settings(base), describing_attrs(base)
        self._entries[entry.name] = entry

    def remove(self, name: str) -> None:
        """Remove an entry. Raises HeadnbError if there is no entry of this name."""
        del self._entries[self._entry(name).name]

    @check_arguments
    def nearest(
        self, scores: xr.Dataset, k: int = 5, *, before: xr.Dataset | None = None, level: float = 0.95, seed: int = 0
    ) -> NearestPatterns:
        """Find the entries most similar to a pattern: tasks, or with `before` adapters.

        Args:
            scores: scores of samples; for an adapter, with the adapter.
            k: number of entries that are returned.
            before: scores of the same samples without the adapter. The change is compared with those of the atlas's
                adapters, best measured on the same samples.
            level: confidence level of the intervals, which are over samples.
            seed: seed of the jackknife groups.

        Raises:
            HeadnbError: a different model, method or scoring revision from the atlas, or no entry of the kind.
        """
        if k < 1:
            raise HeadnbError(f"k must be at least 1, not {k}")
        wanted = self._checked_entry("the pattern", scores, before, "these scores")
        rows = {}
        for entry in self._of_kind(wanted.kind):
            estimate, compared = wanted.correlation(entry, level, seed)
            rows[entry.name] = {
                "kind": entry.kind,
                "task": entry.task,
                "samples": len(entry.fingerprints),
                "compared": compared,
                "correlation": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "uncorrected": estimate.uncorrected,
            }
        table = pd.DataFrame.from_dict(rows, orient="index")
        ordered = table.sort_values(["correlation", "uncorrected"], ascending=False, kind="stable")
        known = ordered.dropna(subset="correlation")
        as_near = known.index[1:][known["high"].iloc[1:] >= known["low"].iloc[0]] if len(known) else []
        return NearestPatterns(ordered.head(k), level, tuple(map(str, as_near)))

    def pattern(self, name: str) -> Pattern:
        """Pattern (layer, head) of an entry; that of an adapter is a change.

        Raises:
            HeadnbError: there is no entry of this name.
        """
        entry = self._entry(name)
        pattern = xr.DataArray(
            entry.rows.mean(axis=0, dtype=np.float64),
            dims=HEADS,
            coords={dim: list(self._settings[dim]) for dim in HEADS},
            name=method_label(self._attrs | self._settings).replace(" ", "_"),
            attrs=pattern_attrs(entry, self._attrs, self._settings),
        )
        return cast("Pattern", as_result(pattern))

    def grid(self, kind: str = TASK) -> HeadGrid:
        """Grids of all tasks or of all adapters on one colour scale.

        Raises:
            HeadnbError: no entry of the kind ("task" or "adapter").
        """
        patterns = {entry.name: self.pattern(entry.name) for entry in self._of_kind(kind)}
        return HeadGrid.of(patterns, title=f"{self._attrs.get('model')} · {kind}s")

    @check_arguments
    def correlations(self, kind: str = TASK, *, level: float = 0.95, seed: int = 0) -> xr.Dataset:
        """Noise-corrected correlations of all pairs of a kind: `value`, `low`, `high` (entry, other_entry).

        Raises:
            HeadnbError: no entry of the kind ("task" or "adapter").
        """
        entries = self._of_kind(kind)
        names = [entry.name for entry in entries]
        matrices = np.ones((3, len(names), len(names)))
        for i, j in itertools.combinations(range(len(names)), 2):
            found, _ = entries[i].correlation(entries[j], level, seed)
            matrices[:, i, j] = matrices[:, j, i] = found.value, found.low, found.high
        dims = ("entry", "other_entry")
        return xr.Dataset(
            {name: (dims, matrix) for name, matrix in zip(("value", "low", "high"), matrices, strict=True)},
            dict.fromkeys(dims, names),
        )

    def plot(self, kind: str = TASK) -> Chart:
        """Matrix of the correlations, with similar entries next to each other."""
        return correlation_matrix(self.correlations(kind), title=f"noise-corrected correlations of {kind}s")

    @property
    def table(self) -> pd.DataFrame:
        """One row per entry: its kind, task, model, number of samples, and reliability."""
        rows = {
            entry.name: {
                "kind": entry.kind,
                "task": entry.task,
                "model": entry.model,
                "samples": len(entry.fingerprints),
                "reliability": entry.evidence.reliability,
            }
            for entry in self._entries.values()
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    def save(self, path: str | Path) -> str | Path:
        """Save the atlas as netCDF (`.nc`), at a path or a URL; `headnb.atlas(path)` opens it.

        Raises:
            HeadnbError: an empty atlas, or the file cannot be written.
        """
        if not self._entries:
            raise HeadnbError("the atlas is empty; atlas.add(name, scores) adds a pattern")
        return save_dataset(to_dataset(list(self._entries.values()), self._settings, self._attrs), path)

    def __repr__(self) -> str:
        return for_stdout("\n\n".join([self._title, *([self.table.to_string(**_TABLE)] if self._entries else [])]))

    def _repr_html_(self) -> str:
        return result_html(self._title, *([self.table] if self._entries else []), **_TABLE)

    @property
    def _title(self) -> str:
        if not self._entries:
            return "Empty pattern atlas"
        return f"Pattern atlas of {self._attrs.get('model')}, method {self._settings.get('method')}"

    def _checked_entry(self, name: str, scores: xr.Dataset, before: xr.Dataset | None, what: str) -> Entry:
        """The entry of scores that have the settings of the atlas."""
        entry = make_entry(name, scores, before)
        if self._entries:
            check_same_settings(self._settings, self._attrs, scores if before is None else before, what)
        return entry

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise unknown_name("entry", str(name), self._entries)
        return self._entries[name]

    def _of_kind(self, kind: str) -> list[Entry]:
        if kind not in {TASK, ADAPTER}:
            raise unknown_name("kind", kind, (TASK, ADAPTER))
        found = [entry for entry in self._entries.values() if entry.kind == kind]
        if not found:
            how = "atlas.add(name, scores)" if kind == TASK else "atlas.add(name, scores, before=scores_without)"
            raise HeadnbError(f"the atlas has no {kind}; {how} adds one")
        return found


_TABLE: dict[str, Any] = {"float_format": "{:.3g}".format, "na_rep": "–"}


@check_arguments
def atlas(source: str | Path | Mapping[str, xr.Dataset] | None = None) -> PatternAtlas:
    """Open or create a pattern atlas, which finds the known tasks or adapters with the most similar patterns.

    Example:
        >>> atlas = headnb.atlas({"gsm8k": gsm8k_scores, "boolq": boolq_scores})
        >>> atlas.nearest(new_scores)  # a table with intervals, the most similar task first
        >>> atlas.add("my-lora", with_adapter, before=without_adapter)
        >>> atlas.save("atlas.nc")

    Args:
        source: a file that `PatternAtlas.save` wrote (a path, `hf://user/name/atlas.nc` or another URL), a mapping from
            names to scores of tasks, or None for an empty atlas.

    Raises:
        HeadnbError: the file does not exist or is not an atlas, or the scores differ in model, method or scoring
            revision.
    """
    if isinstance(source, xr.Dataset):
        raise HeadnbError("give scores with their names, such as headnb.atlas({'gsm8k': scores})")
    if source is None or isinstance(source, Mapping):
        made = PatternAtlas([], {}, {})
        for name, scores in (source or {}).items():
            made.add(name, scores)
        return made
    with local_copy(source, ATLAS_FILE) as path:
        if not path.exists():
            raise HeadnbError(
                f"there is no atlas at {source}; headnb.atlas() creates an empty one, and .save writes it"
            )
        stored = read_dataset(path)
        made = PatternAtlas(*from_dataset(stored, str(path)))
    warn_of_revision(shown_url(source), stored.attrs)
    return made


def _equal(one: Entry, other: Entry) -> bool:
    """Whether two entries have the same kind, samples and values."""
    same = one.kind == other.kind and np.array_equal(one.fingerprints, other.fingerprints)
    return same and np.array_equal(one.rows, other.rows, equal_nan=True)
