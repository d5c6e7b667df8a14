"""Text below a head grid, and the whole grid as text for terminals and plain notebooks."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Literal

import numpy as np

from headnb.display.before_after import before_and_after, has_changes, panel_payload
from headnb.display.colours import paint
from headnb.display.compact import decompress_values
from headnb.display.role_marks import roles_line
from headnb.errors import printable
from headnb.stats.rounding import interval_numbers, typographic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.display.payload_types import Cells, Panel, Payload

MAX_PANELS = 12
_LEVEL_SHADES = "▁▂▃▄▅▆▇█"
_SIGNED_SHADES = "=-·+#"
_MAX_MAP_ROWS = 64


def format_number(value: float, digits: int = 3) -> str:
    """A measured value with a fixed number of significant digits: `0.0120`, `−0.400`, `2.10e-7`."""
    return typographic(f"{value:#.{digits}g}".removesuffix(".")) if value else "0"


def format_short(value: float) -> str:
    """A round number without trailing zeros: `0.05`."""
    return typographic(f"{value:.6g}")


def panel_matrix(panel: Cells, name: str = "values") -> np.ndarray:
    """One of the panel's matrices as a float array (layer, head), with NaN for null."""
    matrix = panel[name]  # type: ignore[literal-required]
    return np.array(matrix, dtype=float) if isinstance(matrix, list) else decompress_values(matrix)


def shown_panels(payload: Payload) -> tuple[list[Panel], str]:
    """At most MAX_PANELS panels for a picture without a slider, and a note if the payload has more.

    The panels are evenly spaced and include the first and the last. With several courses, the same steps of each course
    are chosen, as many as fit.
    """
    panels = payload["panels"]
    if has_changes(payload):
        return _shown_changes(payload)
    if len(panels) <= MAX_PANELS:
        return panels, ""
    steps = sorted({panel["step"] for panel in panels if "step" in panel})
    courses = len({panel.get("course", panel["title"]) for panel in panels})
    if steps and 1 < courses <= MAX_PANELS:
        chosen_steps = {steps[i] for i in _evenly_spaced(len(steps), MAX_PANELS // courses)}
        chosen = [panel for panel in panels if panel.get("step") in chosen_steps]
    else:
        chosen = [panels[i] for i in _evenly_spaced(len(panels), MAX_PANELS)]
    return chosen, f"{len(chosen)} of {len(panels)} panels are shown."


def _shown_changes(payload: Payload) -> tuple[list[Panel], str]:
    """The first and the last step of each course with their difference, for as many courses as fit."""
    drawn = before_and_after(payload)
    steps = len({panel.get("step") for panel in payload["panels"]})
    words = f"The first and the last of {steps} tracked steps are shown." if steps > 2 else ""
    if len(drawn) > MAX_PANELS:
        words += f" {MAX_PANELS} of {len(drawn)} panels are shown."
    return drawn[:MAX_PANELS], words.strip()


def _evenly_spaced(size: int, count: int) -> list[int]:
    """`count` evenly spaced indices below `size`, including the first and the last; a count of 1 gives the last."""
    return [size - 1] if count == 1 else [round(i * (size - 1) / (count - 1)) for i in range(min(count, size))]


def heading(payload: Payload) -> str:
    """Title of the picture, in one line."""
    if payload.get("title"):
        return payload["title"]
    return " · ".join(filter(None, (payload.get("model"), payload.get("task")))) or "attention heads"


def subtitle(payload: Payload) -> str:
    """Shape and scoring settings, in one line."""
    layers, heads, kv_heads = payload["layers"], payload["heads"], payload["kv_heads"]
    parts = [f"{layers} layers × {heads} heads"]
    if kv_heads < heads:
        parts.append(f"{kv_heads} key/value head{'s' if kv_heads > 1 else ''}")
    if payload["method"]:
        parts.append(f"method {payload['method']}")
    if payload["loss_reduction"]:
        parts.append(f"loss {payload['loss_reduction']}")
    return " · ".join(parts)


def quantity(payload: Payload) -> str:
    """Name of the quantity with its units: `activation level (nats)`."""
    name = payload["quantity"] or "score"
    return f"{name} ({payload['units']})" if payload["units"] else name


def numbers(payload: Payload, side: Literal["layer", "head"]) -> Sequence[int]:
    """The model's numbers of the grid's layers or heads."""
    selected = payload.get("layer_numbers") if side == "layer" else payload.get("head_numbers")
    return selected or range(payload["layers"] if side == "layer" else payload["heads"])


def head_name(payload: Payload, cell: tuple[int, int]) -> str:
    """The name of the head in a (row, column) of the grid, such as `L3H10`."""
    layer, head = cell
    return f"L{numbers(payload, 'layer')[layer]}H{numbers(payload, 'head')[head]}"


def ranking(panel: Panel) -> list[tuple[int, int]]:
    """(row, column) of all heads that have a value, in descending order of the absolute value."""
    sizes = np.abs(panel_matrix(panel))
    order = np.argsort(-sizes, axis=None, kind="stable")
    present = np.isfinite(sizes).sum()
    return [divmod(int(index), sizes.shape[1]) for index in order[:present]]  # NaN sorts last


def format_with_interval(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """A value and its interval, with as many digits as the interval's width supports: `0.41 [0.18, 0.64]`."""
    if math.isnan(low) or math.isnan(high):
        return format_number(value)
    first, *ends = interval_numbers(value, low, high)
    return f"{first} [{', '.join(ends)}]"


def top_line(payload: Payload, panel: Panel, count: int = 5) -> str:
    """`Top heads: L5H2 0.12 · L3H1 0.11`."""
    top = ranking(panel)[:count]
    if not top:
        return "No layer of this model has softmax attention heads."
    values = panel_matrix(panel)
    name = {"level": "Top heads", "signed": "Largest", "difference": "Largest changes"}[payload["kind"]]
    return f"{name}: " + " · ".join(f"{head_name(payload, cell)} {format_number(values[cell])}" for cell in top)


def significance_line(payload: Payload, panel: Panel) -> str:
    """Number of heads that changed significantly; empty if the panel has no test."""
    if "significant" not in panel:
        return ""
    marked = int(panel_matrix(panel, "significant").sum())
    alpha = "" if payload["alpha"] is None else f" (q < {format_short(payload['alpha'])})"
    present = int(np.isfinite(panel_matrix(panel)).sum())
    return (
        f"{marked} of {present} heads changed significantly{alpha}."
        if marked
        else f"No head changed significantly{alpha}."
    )


def missing_line(payload: Payload) -> str:
    """Sentence about the layers without values; empty if all layers have values."""
    missing = np.all([np.isnan(panel_matrix(panel)).all(axis=1) for panel in payload["panels"]], axis=0)
    layers = np.array(numbers(payload, "layer"))[missing]
    if layers.size == 0:
        return ""
    if layers.size == 1:
        return f"Layer {layers[0]} is hatched: it has no softmax attention heads."
    return f"Layers {_number_ranges(layers)} are hatched: they have no softmax attention heads."


def legend_keys(payload: Payload, panels: Sequence[Panel]) -> list[str]:
    """Meaning of the marks in a picture of these panels: heads off scale, significant and missing heads."""
    low, high = payload["scale"]["low"], payload["scale"]["high"]
    values = np.concatenate([panel_matrix(panel).ravel() for panel in panels])
    keys = []
    off_scale = values[(values > high) | (values < low)]
    if off_scale.size:
        furthest = format_number(off_scale[np.argmax(np.abs(off_scale))])
        keys.append(f"▸ {off_scale.size} head{'s' if off_scale.size > 1 else ''} off scale, up to {furthest}")
    if any("significant" in panel for panel in panels):
        keys.append("● significant" + ("" if payload["alpha"] is None else f" (q < {format_short(payload['alpha'])})"))
    if np.isnan(values).any():
        keys.append("╱ no softmax heads")
    return keys


def as_text(payload: Payload, *, heat_map: bool = False, colour: bool = False) -> str:
    """Format the payload for a terminal: heading, and per panel its top heads, statistics and reliability.

    `heat_map` adds the grid in block characters with one line per layer. `colour` draws it in 24-bit colour with two
    layers per line.
    """
    several = len(payload["panels"]) > 1
    mixed = any("own" in panel for panel in payload["panels"])
    about = subtitle(payload) if mixed else f"{quantity(payload)}, {subtitle(payload)}"
    head = [printable(line) for line in (heading(payload), about)]
    blocks = [head] if several else []
    panels, note = shown_panels(payload)
    for panel in panels:
        own = panel_payload(payload, panel)
        picture = _heat_map(own, panel, colour=colour) if heat_map else []
        words = [top_line(own, panel), significance_line(own, panel), panel["statistics_line"]]
        words += [*panel["notes"], panel["reliability_line"]]
        words = [quantity(own), *words] if mixed else words
        name = [printable(f"[{panel['title']}]")] if several else head
        blocks.append([*name, *picture, *map(printable, words)])
    last = (
        loss_line(payload),
        roles_line(payload),
        missing_line(payload).replace("hatched", "empty"),
        progress_line(payload),
        note,
    )
    blocks[-1] += map(printable, last)
    return "\n\n".join("\n".join(filter(None, block)) for block in blocks)


def wrap_lines(lines: Sequence[str], width: int) -> list[str]:
    """Wrap lines of text to about `width` pixels; empty lines are dropped."""
    letters = max(int(width / 7.2), 20)
    return [part for line in lines if line for part in textwrap.wrap(printable(line), letters)]


def loss_line(payload: Payload) -> str:
    """First and last values of the loss curves: `Training loss 6.13 → 3.97 nats.`; empty without curves."""
    lines = [
        f"{curve['label']} {format_number(curve['values'][0])} → {format_number(curve['values'][-1])} {curve['units']}"
        for curve in payload.get("curves", ())
    ]
    words = ", ".join(map(str.rstrip, lines))  # an exact match has no units
    return f"{words[0].upper()}{words[1:]}." if words else ""


def progress_line(payload: Payload) -> str:
    """Progress of the computation; empty for a finished result."""
    if "progress" not in payload:
        return ""
    progress = payload["progress"]
    unit = progress.get("unit", "samples")
    return f"{progress['done']} of {progress['total']} {unit} done. {progress['message']}".rstrip()


def _number_ranges(layers: np.ndarray) -> str:
    """`0–2, 4, 6–9`."""
    groups = np.split(layers, np.flatnonzero(np.diff(layers) != 1) + 1)
    return ", ".join(f"{g[0]}" if len(g) == 1 else f"{g[0]}–{g[-1]}" for g in groups)


def _heat_map(payload: Payload, panel: Panel, *, colour: bool) -> list[str]:
    values = panel_matrix(panel)
    if colour:
        return _colour_map(payload, values)
    if len(values) > _MAX_MAP_ROWS:
        return [f"(no heat map: {len(values)} layers, at most {_MAX_MAP_ROWS} are drawn as text)"]
    scale = payload["scale"]
    if payload["kind"] == "level":
        shades = _LEVEL_SHADES
        key = f"{shades} from {format_number(scale['low'])} to {format_number(scale['high'])}"
    else:
        shades = _SIGNED_SHADES
        key = f"{shades} from {format_number(scale['low'])} through 0 to {format_number(scale['high'])}"
    shares = np.clip((values - scale["low"]) / (scale["high"] - scale["low"]), 0, 1)
    rows = ["".join(_shade(share, shades) for share in row) for row in shares]
    layers = numbers(payload, "layer")
    return [f"layer {layer:>3} {row}" for layer, row in zip(layers, rows, strict=True)] + [f"{'':>9} {key}"]


def _shade(share: float, shades: str) -> str:
    return " " if np.isnan(share) else shades[round(float(share) * (len(shades) - 1))]


def _colour_map(payload: Payload, values: np.ndarray) -> list[str]:
    """Lines of half blocks with two layers per line: the upper layer is the foreground, the lower the background."""
    scale = (payload["scale"]["low"], payload["scale"]["high"])
    lines = []
    for layer in range(0, len(values), 2):
        lower = values[layer + 1] if layer + 1 < len(values) else np.full(values.shape[1], np.nan)
        cells = [_two_cells(top, bottom, scale) for top, bottom in zip(values[layer], lower, strict=True)]
        lines.append(f"layer {numbers(payload, 'layer')[layer]:>3} {''.join(cells)}")
    return [*lines, f"{'':>9} {format_number(scale[0])} to {format_number(scale[1])}"]


def _two_cells(top: float, bottom: float, scale: tuple[float, float]) -> str:
    if np.isnan(top) and np.isnan(bottom):
        return " "
    if np.isnan(top):
        return f"\x1b[38;2;{_channels(bottom, scale)}m▄\x1b[0m"
    background = "" if np.isnan(bottom) else f"\x1b[48;2;{_channels(bottom, scale)}m"
    return f"{background}\x1b[38;2;{_channels(top, scale)}m▀\x1b[0m"


def _channels(value: float, scale: tuple[float, float]) -> str:
    """Red, green and blue of a terminal escape; differences fade into black, as most terminals are dark."""
    colour, opacity = paint(value, scale)
    return ";".join(str(round(int(colour[i : i + 2], 16) * opacity)) for i in (1, 3, 5))
