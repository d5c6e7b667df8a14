"""Evidence for composition: its numbers and its levels.

Z denotes the patterns before fine-tuning of the target, the basic and the other tasks. A pattern that merely shrinks or
grows is explained by Z. All patterns are in units of the heads' levels before fine-tuning (mean over the tasks). Within
each layer a shift and a multiple of the tasks' mean level are removed (`layer_products`). Each layer is predicted with
weights fitted to the other layers. With e(.) the prediction error summed over layers, corrected for the noise of
samples and runs,

    gain    G = 1 - e(Z + basics) / e(Z)
    excess  X = (e(Z + the best equally large set of other tasks) - e(Z + basics)) / e(Z).

There are three levels of evidence:
- *gain*: G > 0. A change common to all fine-tuning also gives a gain;
- *shared with these basics*: X > 0 as well;
- *beyond format*: both again, with AP(own answers) - AP(shuffled answers) in place of every change.

"> 0" means that the one-sided lower limit is above zero (jackknife over every task's samples and training runs), and
that a one-sided sign-flip test over layers is significant. Several basics are shown to combine if each of them reduces
the error that Z and the other basics leave.
The tasks must be trained with different seeds: noise that the runs of two tasks share looks like composition.
A pattern within layers that target and basics share beyond the other tasks passes *shared with these basics*, and often
*beyond format*, if every layer changes by a multiple of it that target and basics share too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from headnb.analysis.json_values import as_records, to_json_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

GAIN, SHARED, BEYOND_FORMAT = "gain", "shared with these basics", "beyond format"
LEVELS = (GAIN, SHARED, BEYOND_FORMAT)
COLLINEAR = 30  # condition number above which predictors count as collinear (Belsley, Kuh and Welsch 1980)
MIN_RELIABILITY = 0.5  # of the target's residual after regression on Z


class Limit(NamedTuple):
    """A fraction of e(Z) with its one-sided limits, and p of the sign-flip test over layers (NaN if untested)."""

    value: float
    low: float
    p: float = math.nan
    high: float = math.nan

    def above_zero(self, level: float) -> bool:
        """Whether the limit is above zero and the test, if there is one, is significant."""
        return self.low > 0 and not self.p >= 1 - level


@dataclass(frozen=True)
class Comparison:
    """What the basics explain beyond Z, for one kind of change; NaN where withheld.

    Attributes:
        gain: G.
        excess: X; None if there are fewer other tasks than basics.
        unique_contributions: basic -> fraction of e(Z) that it explains beyond Z and the other basics.
        alternatives: the set of other tasks that X compares with.
        condition: condition number of the basics after regression on Z; above 30 they are not separable.
        reliability: noise-corrected e(Z) divided by the measured e(Z); below 0.5 all limits are withheld.
        level: confidence level of the limits and tests.
    """

    gain: Limit
    excess: Limit | None
    unique_contributions: Mapping[str, Limit]
    alternatives: tuple[str, ...]
    condition: float
    reliability: float
    level: float

    @property
    def reliable(self) -> bool:
        """Whether the target's residual after regression on Z is more than noise."""
        return self.reliability >= MIN_RELIABILITY

    @property
    def separable(self) -> bool:
        """Whether the basics, after regression on Z, are not collinear."""
        return self.condition <= COLLINEAR

    @property
    def has_gain(self) -> bool:
        """Whether the basics explain more than Z alone."""
        return self.reliable and self.separable and self.gain.above_zero(self.level)

    @property
    def has_excess(self) -> bool:
        """Whether the basics explain more than the best set of other tasks."""
        return self.has_gain and self.excess is not None and self.excess.above_zero(self.level)

    @property
    def contributing(self) -> list[str]:
        """The basics with a unique contribution above zero."""
        return [name for name, limit in self.unique_contributions.items() if limit.above_zero(self.level)]


@dataclass(frozen=True)
class CompositionEvidence:
    """How far composition is shown.

    Attributes:
        target: name of the complex task.
        basics: names of the basic tasks.
        change: comparison of the changes dAP; None if untested.
        beyond_format: comparison of AP(own) - AP(shuffled answers); None if untested.
        reason_untested: why composition was not tested; empty if it was.
        missing: what is missing to test the next level; empty if every level was tested.
    """

    target: str
    basics: tuple[str, ...]
    change: Comparison | None = None
    beyond_format: Comparison | None = None
    reason_untested: str = ""
    missing: str = ""

    @property
    def has_verdict(self) -> bool:
        """Whether composition was tested on reliable data."""
        return self.change is not None and self.change.reliable

    @property
    def level(self) -> str:
        """The highest of `LEVELS` that is reached (it includes those below it); empty if none is."""
        if self.change is None or not self.change.has_gain:
            return ""
        if not self.change.has_excess:
            return GAIN
        return BEYOND_FORMAT if self.beyond_format is not None and self.beyond_format.has_excess else SHARED

    @property
    def composed(self) -> bool:
        """Whether the change is shared with these basics, each with a unique contribution."""
        return self.change is not None and self.change.has_excess and len(self.change.contributing) == len(self.basics)

    @property
    def table(self) -> pd.DataFrame:
        """One row per fraction of e(Z): `value`, `low` (one-sided) and `p` over layers; empty if untested."""
        import pandas as pd  # noqa: PLC0415

        kinds = {"change": self.change, "own - shuffled answers": self.beyond_format}
        rows = {
            (kind, name): limit
            for kind, comparison in kinds.items()
            if comparison
            for name, limit in _limits(comparison).items()
        }
        index = pd.MultiIndex.from_tuples(rows, names=["of", "share"]) if rows else None
        return pd.DataFrame([limit._asdict() for limit in rows.values()], index=index, columns=["value", "low", "p"])

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values (NaN as None)."""
        result: dict[str, Any] = {"level": self.level, "composed": self.composed}
        result |= {"reason_untested": self.reason_untested, "missing": self.missing}
        for name, comparison in (("change", self.change), ("beyond_format", self.beyond_format)):
            if comparison is not None:
                result[name] = {
                    "condition": to_json_value(comparison.condition),
                    "reliability": to_json_value(comparison.reliability),
                    "contributing": comparison.contributing,
                    "alternatives": list(comparison.alternatives),
                }
        return {**result, "shares": as_records(self.table) if len(self.table) else []}


def _limits(comparison: Comparison) -> dict[str, Limit]:
    limits = {"gain": comparison.gain}
    if comparison.excess is not None:
        limits[f"excess over {' + '.join(comparison.alternatives)}"] = comparison.excess
    return limits | {f"added by {name}": limit for name, limit in comparison.unique_contributions.items()}
