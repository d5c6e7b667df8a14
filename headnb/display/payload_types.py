"""Types of the display payload, the same as in `pattern.schema.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from headnb.display.colours import Kind
    from headnb.display.compact import Compact

Matrix = list[list[float | None]]


class Statistic(TypedDict):
    """One number about a panel, with its interval where one is known."""

    value: float
    low: NotRequired[float]
    high: NotRequired[float]


class Column(TypedDict):
    """A column of the table that compares panels."""

    label: str
    help: str


class EvidenceFields(TypedDict):
    """`headnb.stats.reliability.Evidence` in a payload: what is not known is null."""

    samples: int | None
    runs: int | None
    reliability: float | None
    samples_for_090: int | None
    runs_for_090: int | None


class FooterFields(TypedDict):
    """What `add_footer` writes into a panel; `cells` are its row in the table."""

    statistics_line: str
    reliability_line: str
    cells: list[str]


class Scale(TypedDict):
    """The two ends of the colour scale, shared by all panels."""

    low: float
    high: float


class Panel(EvidenceFields, FooterFields):
    """One grid. `values`, `low`, `high` and `significant` (0 or 1) are layers x heads.

    Panels of one `course` are the same thing, such as a task, at several training `step`s.
    """

    title: str
    step: NotRequired[float]
    course: NotRequired[str]
    values: Matrix | Compact
    low: NotRequired[Matrix]
    high: NotRequired[Matrix]
    significant: NotRequired[list[list[int]]]
    statistics: dict[str, Statistic]
    withheld: NotRequired[dict[str, str]]  # statistics that are not shown -> why
    notes: list[str]


class Progress(TypedDict):
    """How far a computation is whose partial result the payload shows."""

    done: int
    total: int
    unit: NotRequired[str]
    """What is counted; samples unless it says otherwise."""
    message: str


class Payload(TypedDict):
    """See `headnb.display.payload`; `quantity` says in words what a value is, `dimension` what differs between panels.

    A name that differs between panels, such as that of the method, is empty, and an alpha that does is null.
    """

    version: int
    title: str
    model: str
    task: str
    method: str
    loss_reduction: str
    kind: Kind
    quantity: str
    units: str
    layers: int
    heads: int
    layer_numbers: NotRequired[list[int]]
    """The model's own numbers of the rows; absent where they count from 0, as all of a model's layers do."""
    head_numbers: NotRequired[list[int]]
    """The same of the columns."""
    kv_heads: int
    dimension: str
    scale: Scale
    alpha: float | None
    interval_level: float
    columns: list[Column]
    panels: list[Panel]
    progress: NotRequired[Progress]
