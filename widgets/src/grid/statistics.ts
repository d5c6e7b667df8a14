/** Statistics of panels: ranks, layer means, the shared scale, and the difference of two panels. */

import { max, quantile } from "d3-array";
import { DRAWING } from "../generated/drawing";
import type { Kind, Panel, Scale, Shape } from "./payload";

/** Cells that have a value, in descending order of the absolute value; ties keep their order. */
export function ranking(values: Float64Array): Int32Array {
  const present = Int32Array.from(values.keys()).filter((cell) => Number.isFinite(values[cell]));
  return present.sort((a, b) => size(values, b) - size(values, a) || a - b);
}

/** The first `count` cells of the `ranking`, without sorting all cells. */
export function largest(values: Float64Array, count: number): number[] {
  const top: number[] = [];
  let least = -1; // a value must be larger to be among the top
  values.forEach((value, cell) => {
    if (!(Math.abs(value) > least)) return;
    const place = top.findIndex((other) => size(values, other) < Math.abs(value));
    top.splice(place < 0 ? top.length : place, 0, cell);
    if (top.length > count) top.pop();
    if (top.length === count) least = size(values, top[count - 1] ?? 0);
  });
  return top;
}

/** The value with the largest absolute value; 0 if there are no values. */
export function furthest(values: Float64Array): number {
  return values.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
}

/** A cell's rank (1 is the largest), and the number of cells that have a value. */
export function rankOf(values: Float64Array, cell: number): { rank: number; of: number } {
  const own = size(values, cell);
  let [before, present] = [0, 0];
  values.forEach((value, other) => {
    if (Number.isNaN(value)) return;
    present += 1;
    if (Math.abs(value) > own || (Math.abs(value) === own && other < cell)) before += 1;
  });
  return { rank: before + 1, of: present };
}

/** The mean over each layer's heads that have a value; NaN for a layer without values. */
export function layerMeans(values: Float64Array, shape: Shape): Float64Array {
  const sums = new Float64Array(shape.layers);
  const counts = new Float64Array(shape.layers);
  values.forEach((value, cell) => {
    if (Number.isNaN(value)) return;
    const layer = Math.floor(cell / shape.heads);
    sums[layer] = (sums[layer] ?? 0) + value;
    counts[layer] = (counts[layer] ?? 0) + 1;
  });
  return sums.map((sum, layer) => sum / (counts[layer] ?? 0));
}

/** The largest absolute value of each layer; 0 for a layer without values. */
export function layerPeaks(values: Float64Array, shape: Shape): Float64Array {
  const peaks = new Float64Array(shape.layers);
  values.forEach((value, cell) => {
    const layer = Math.floor(cell / shape.heads);
    if (Number.isFinite(value)) peaks[layer] = Math.max(peaks[layer] ?? 0, Math.abs(value));
  });
  return peaks;
}

/**
 * Ends of the colour scale for the values of all panels, by the rule of `headnb/display/colours.py`: the scale includes
 * zero, and ends below a few heads that far exceed all other heads.
 */
export function sharedScale(panels: readonly Pick<Panel, "values">[], kind: Kind): Scale {
  const sizes = joined(panels).filter(Number.isFinite).map(Math.abs);
  const largest = max(sizes) ?? 0;
  const usual = quantile(sizes, DRAWING.scale_quantile) ?? 0;
  const whole = largest <= DRAWING.scale_excess * usual || usual === 0;
  const high = largest < DRAWING.smallest_scale ? 1 : roundedUp(whole ? largest : usual);
  return { low: kind === "level" ? 0 : -high, high };
}

export function joined(panels: readonly Pick<Panel, "values">[]): Float64Array {
  const all = new Float64Array(panels.reduce((sum, panel) => sum + panel.values.length, 0));
  let start = 0;
  for (const panel of panels) {
    all.set(panel.values, start);
    start += panel.values.length;
  }
  return all;
}

/** `after` minus `before`, head by head, without statistics: those of the two panels do not apply to the difference. */
export function difference(after: Panel, before: Panel): Panel {
  return {
    title: `${after.title} − ${before.title}`,
    step: null,
    course: "",
    values: after.values.map((value, cell) => value - (before.values[cell] ?? Number.NaN)),
    low: null,
    high: null,
    significant: null,
    ...{ change: null, own: null },
    statisticsLine: "",
    reliabilityLine: "Reliability not available: headnb.compare(before, after) tests which heads changed",
    cells: [],
    notes: [],
  };
}

/** Round up to three significant digits, so that the largest value stays on the scale. */
function roundedUp(value: number): number {
  const power = 10 ** (Math.floor(Math.log10(value)) - 2);
  return Number((Math.ceil(value / power - 1e-9) * power).toPrecision(3));
}

function size(values: Float64Array, cell: number): number {
  return Math.abs(values[cell] ?? 0);
}
