"""Evidence for composition: its numbers and its levels.

Z are the patterns before fine-tuning of the target, the basic and the other tasks: a pattern that merely shrank or grew
is in them. All patterns are in units of the heads' levels before fine-tuning (mean over the tasks), a shift and a scale
of all heads of a layer taken out (`layer_products`), and each layer is predicted by the weights of the others.
With e(.) the error summed over the layers, corrected for the noise of samples and runs,

    gain    G = 1 - e(Z + basics) / e(Z)
    excess  X = (e(Z + the best equally large set of other tasks) - e(Z + basics)) / e(Z).

Three levels: *gain*, G > 0, which a change common to all fine-tuning gives as well; *shared with these basics*, X > 0
too; *beyond format*, both again with AP(own answers) - AP(shuffled answers) in place of every change. "> 0" means: the
one-sided lower limit, by a jackknife over every task's samples and training runs, is above zero, and so are the layers
by a one-sided sign-flip test. A combination of several basics is shown where each of them adds to the others.
The tasks must be trained with different seeds: the same noise in the runs of two tasks would look like composition.
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
COLLINEAR = 30  # condition number above which weights cannot be told apart (Belsley, Kuh and Welsch 1980)
MIN_RELIABILITY = 0.5  # of what Z leaves of the target


class Limit(NamedTuple):
    """A share of e(Z) with its one-sided lower limit, and p of the sign-flip test over layers."""

    value: float
    low: float
    p: float = math.nan

    def above_zero(self, level: float) -> bool:
        """Whether limit and test both say so; a share without a test needs the limit alone."""
        return self.low > 0 and not self.p >= 1 - level


@dataclass(frozen=True)
class Comparison:
    """What the basics add to Z, for one kind of change; NaN where it is withheld.

    Attributes:
        gain: G.
        excess: X; None where there are fewer other tasks than basics.
        adds: basic -> what it adds to Z and the other basics.
        rivals: the other tasks that X compares with.
        condition: condition number of the basics after Z; above 30 they cannot be told apart.
        reliability: e(Z) freed of noise over e(Z) as measured; below 0.5 everything is withheld.
        level: of the limits and tests.
    """

    gain: Limit
    excess: Limit | None
    adds: Mapping[str, Limit]
    rivals: tuple[str, ...]
    condition: float
    reliability: float
    level: float

    @property
    def reliable(self) -> bool:
        """Whether what Z leaves of the target is more than noise."""
        return self.reliability >= MIN_RELIABILITY

    @property
    def apart(self) -> bool:
        """Whether the basics can be told apart."""
        return self.condition <= COLLINEAR

    @property
    def has_gain(self) -> bool:
        """Whether the basics add to Z."""
        return self.reliable and self.apart and self.gain.above_zero(self.level)

    @property
    def has_excess(self) -> bool:
        """Whether they add more than other tasks do."""
        return self.has_gain and self.excess is not None and self.excess.above_zero(self.level)

    @property
    def adding(self) -> list[str]:
        """The basics that add to the others."""
        return [name for name, limit in self.adds.items() if limit.above_zero(self.level)]


@dataclass(frozen=True)
class CompositionEvidence:
    """How far composition is shown.

    Attributes:
        target: name of the complex task.
        basics: names of the basic tasks.
        change: with the changes dAP; None where there is no verdict.
        beyond: with AP(own) - AP(shuffled answers); None where not every task has both.
        unjudged: why there is no verdict; empty where there is one.
        lacking: what the next level cannot be tested without; empty where it was tested.
    """

    target: str
    basics: tuple[str, ...]
    change: Comparison | None = None
    beyond: Comparison | None = None
    unjudged: str = ""
    lacking: str = ""

    @property
    def judged(self) -> bool:
        """Whether there is a verdict."""
        return self.change is not None and self.change.reliable

    @property
    def level(self) -> str:
        """The highest of `LEVELS` that is reached, each with those below it; empty if none is."""
        if self.change is None or not self.change.has_gain:
            return ""
        if not self.change.has_excess:
            return GAIN
        return BEYOND_FORMAT if self.beyond is not None and self.beyond.has_excess else SHARED

    @property
    def composed(self) -> bool:
        """Whether the target's change is shared with these basics and each of them adds to the others."""
        return self.change is not None and self.change.has_excess and len(self.change.adding) == len(self.basics)

    @property
    def table(self) -> pd.DataFrame:
        """One row for each share of e(Z): `value`, `low` (one-sided) and `p` over layers; empty without a verdict."""
        import pandas as pd  # noqa: PLC0415

        kinds = {"change": self.change, "own - shuffled answers": self.beyond}
        rows = {(kind, name): one for kind, found in kinds.items() if found for name, one in _limits(found).items()}
        index = pd.MultiIndex.from_tuples(rows, names=["of", "share"]) if rows else None
        return pd.DataFrame([one._asdict() for one in rows.values()], index=index, columns=["value", "low", "p"])

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values (NaN as None)."""
        found = {"level": self.level, "composed": self.composed, "unjudged": self.unjudged, "lacking": self.lacking}
        for name, one in (("change", self.change), ("own_less_shuffled", self.beyond)):
            if one is not None:
                numbers = {"condition": to_json_value(one.condition), "reliability": to_json_value(one.reliability)}
                found |= {name: {**numbers, "adding": one.adding, "rivals": list(one.rivals)}}
        return {**found, "shares": as_records(self.table) if len(self.table) else []}


def _limits(found: Comparison) -> dict[str, Limit]:
    excess = {f"more than {' + '.join(found.rivals)}": found.excess} if found.excess else {}
    return {"gain": found.gain, **excess, **{f"{name} adds": one for name, one in found.adds.items()}}
