/** Histogram of the values of the heads below each grid; all panels have the same axis. */

import { scaleLinear } from "d3-scale";
import type { Colouring } from "./colours";
import { DISTRIBUTION_HEIGHT, distributionTop, type Layout, LEFT } from "./layout";
import type { Scale } from "./payload";
import { fitting, label, type Mark, rects, strokes, type Theme } from "./scene";
import { furthest, joined } from "./statistics";
import type { Shown } from "./view";
import { quantityWithUnits, short } from "./words";

export interface Histogram {
  readonly counts: readonly number[];
  readonly domain: Scale;
}

export function bins({ payload, panels }: Shown, layout: Layout): Histogram[] {
  const signed = payload.kind !== "level";
  const reach = Math.abs(furthest(joined(panels))) || 1;
  const domain = { low: signed ? -reach : 0, high: reach };
  const count = Math.max(8, Math.min(signed ? 41 : 40, Math.floor(layout.gridWidth / 5)));
  return panels.map((panel) => ({ counts: counted(panel.values, domain, count), domain }));
}

/** The number of values in each of `count` equal bins; the last bin includes the domain's upper end. */
function counted(values: Float64Array, domain: Scale, count: number): number[] {
  const counts = new Array<number>(count).fill(0);
  values.forEach((value) => {
    const bin = binOf(value, domain, count);
    if (bin >= 0) counts[bin] = (counts[bin] ?? 0) + 1; // NaN is not counted
  });
  return counts;
}

function binOf(value: number, { low, high }: Scale, count: number): number {
  return Math.min(Math.floor(((value - low) / (high - low)) * count), count - 1);
}

/** The bin that contains `x`, in pixels from the grid's left edge; the nearest one outside. */
export function binAt({ counts }: Histogram, layout: Layout, x: number): number {
  const width = (layout.gridWidth - layout.gap) / counts.length;
  return Math.min(Math.max(Math.floor(x / width), 0), counts.length - 1);
}

/** The cells whose values are in the bins from `first` to `last`, in either order. */
export function cellsInBins(
  values: Float64Array,
  { counts, domain }: Histogram,
  first: number,
  last: number,
) {
  const [from, to] = [Math.min(first, last), Math.max(first, last)];
  return [...values.keys()].filter((cell) => {
    const bin = binOf(values[cell] ?? Number.NaN, domain, counts.length);
    return bin >= from && bin <= to;
  });
}

/** The cells with values from `low` to `high`. */
export function cellsBetween(values: Float64Array, low: number, high: number): number[] {
  return [...values.keys()].filter((cell) => {
    const value = values[cell] ?? Number.NaN;
    return value >= low && value <= high;
  });
}

/** The part of a histogram's bars that the selected heads make up, relative to the grid's top left corner. */
export function selectedBars(
  found: Histogram,
  values: Float64Array,
  cells: ReadonlySet<number>,
  layout: Layout,
): number[] {
  const chosen = counted(
    Float64Array.from([...cells], (cell) => values[cell] ?? Number.NaN),
    found.domain,
    found.counts.length,
  );
  const width = (layout.gridWidth - layout.gap) / chosen.length;
  const base = distributionTop(layout) + DISTRIBUTION_HEIGHT;
  const tallest = Math.max(...found.counts, 1);
  return chosen.flatMap((count, bin) => {
    const height = Math.max((count / tallest) * DISTRIBUTION_HEIGHT, 1);
    return count ? [bin * width, base - height, Math.max(width - 1, 1), height] : [];
  });
}

/** Scale from values to x, relative to the grid's left edge. */
export function valueAxis(domain: Scale, layout: Layout) {
  return scaleLinear([domain.low, domain.high], [0, layout.gridWidth - layout.gap]);
}

export function distribution(
  found: Histogram,
  layout: Layout,
  colours: Colouring,
  shown: Shown,
  theme: Theme,
): Mark[] {
  const top = distributionTop(layout);
  const base = top + DISTRIBUTION_HEIGHT;
  const x = valueAxis(found.domain, layout);
  const width = (layout.gridWidth - layout.gap) / found.counts.length;
  const tallest = Math.max(...found.counts, 1);
  const step = (found.domain.high - found.domain.low) / found.counts.length;
  const linear = shown.view.spread === "linear";
  const room = (layout.columns > 1 ? layout.panelWidth : layout.width) - LEFT;
  const marks: Mark[] = [
    label(theme, "number of heads", 0, top - 6, { size: 9 }),
    label(theme, fitting(quantityWithUnits(shown.payload), room, 11), 0, base + 28, { size: 11 }),
    label(theme, String(tallest), -5, top + 4, { size: 9, anchor: "end" }),
    label(theme, "0", -5, base + 3, { size: 9, anchor: "end" }),
    strokes(theme.ink, [-4, top + 0.5, 0, top + 0.5, -4, base + 0.5, 0, base + 0.5], 1, 0.5),
  ];
  found.counts.forEach((count, place) => {
    if (!count) return;
    const height = Math.max((count / tallest) * DISTRIBUTION_HEIGHT, 1);
    const paint = linear
      ? colours.palette[colours.onBar(found.domain.low + (place + 0.5) * step)]
      : undefined;
    const box = [place * width, base - height, Math.max(width - 1, 1), height];
    const signed = shown.payload.kind !== "level";
    if (paint && signed) marks.push(rects(theme.ink, box, 0.12));
    marks.push(rects(paint?.colour ?? theme.ink, box, paint?.opacity ?? 0.5));
  });
  marks.push(strokes(theme.ink, [0, base + 0.5, layout.gridWidth - layout.gap, base + 0.5], 1, 0.5));
  for (const tick of x.ticks(Math.max(2, Math.min(5, layout.gridWidth / 60)))) {
    marks.push(strokes(theme.ink, [x(tick), base, x(tick), base + 4], 1, 0.6));
    marks.push(label(theme, short(tick), x(tick), base + 14, { anchor: "middle" }));
  }
  return marks;
}
