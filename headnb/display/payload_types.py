"""Types of the display payload, equal to those of `pattern.schema.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from headnb.display.colours import Kind
    from headnb.display.compact import Compact

Matrix = list[list[float | None]]


class Statistic(TypedDict):
    """A statistic of a panel, with its interval if available."""

    value: float
    low: NotRequired[float]
    high: NotRequired[float]


class Column(TypedDict):
    """A column of the table that compares panels."""

    label: str
    help: str


class EvidenceFields(TypedDict):
    """`headnb.stats.reliability.Evidence` in a payload; a value that is not available is null."""

    samples: int | None
    runs: int | None
    reliability: float | None
    samples_for_090: int | None
    runs_for_090: int | None


class FooterFields(TypedDict):
    """The fields that `add_footer` adds to a panel; `cells` is the panel's row in the table."""

    statistics_line: str
    reliability_line: str
    cells: list[str]


class Scale(TypedDict):
    """Ends of the colour scale, shared by all panels that have no scale of their own."""

    low: float
    high: float


class Curve(TypedDict):
    """A loss or an exact match (without units) along training: `values` at `steps`, in ascending order."""

    label: str
    units: str
    steps: list[float]
    values: list[float]


class Own(TypedDict):
    """Kind, scale, quantity and units of a panel that differ from those of its payload."""

    kind: Kind
    scale: Scale
    quantity: str
    units: str


class Cells(EvidenceFields, FooterFields):
    """`values`, `low`, `high`, `significant` (0 or 1) and `q` (q-values of the tests) are layers x heads."""

    values: Matrix | Compact
    low: NotRequired[Matrix | Compact]
    high: NotRequired[Matrix | Compact]
    significant: NotRequired[list[list[int]] | Compact]
    q: NotRequired[Matrix | Compact]


class Panel(Cells):
    """One grid.

    Panels with the same `course` show one subject, such as a task, at several training `step`s.
    """

    title: str
    step: NotRequired[float]
    course: NotRequired[str]
    change: NotRequired[Cells]
    """Difference from the first step of the course, on the payload's `change_scale`."""
    own: NotRequired[Own]
    """Of a panel on another colour scale than that of the payload: see `before_after.panel_payload`."""
    statistics: dict[str, Statistic]
    withheld: NotRequired[dict[str, str]]  # name of a statistic that is not shown -> reason
    notes: list[str]


class Role(TypedDict):
    """The heads that have a role: their indices into the grid (`row * heads + column`), and their scores."""

    name: str
    threshold: float
    cells: list[int]
    scores: list[float]


class Progress(TypedDict):
    """Progress of the computation whose partial result the payload shows."""

    done: int
    total: int
    unit: NotRequired[str]
    """What is counted; samples by default."""
    message: str


class Payload(TypedDict):
    """See `headnb.display.payload`. `quantity` names the values; `dimension` names the dim along which panels differ.

    A text that differs between panels, such as the method, is empty; an alpha that differs is null.
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
    """The model's layer numbers of the rows; absent if they are 0, 1, 2, ..."""
    head_numbers: NotRequired[list[int]]
    """The model's head numbers of the columns; absent if they are 0, 1, 2, ..."""
    kv_heads: int
    dimension: str
    scale: Scale
    change_scale: NotRequired[Scale]
    """Ends of the diverging colour scale of the panels' changes."""
    curves: NotRequired[list[Curve]]
    """Losses and exact matches along training."""
    alpha: float | None
    interval_level: float
    columns: list[Column]
    panels: list[Panel]
    roles: NotRequired[list[Role]]
    """Roles that the picture marks."""
    progress: NotRequired[Progress]
