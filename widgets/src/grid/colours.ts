/**
 * Colours of values, equal to those of `headnb/display/colours.py`: viridis for levels; a hue for the sign and an
 * opacity for the size of differences.
 */

import { DRAWING } from "../generated/drawing";
import type { Kind, Panel, Scale, Shape } from "./payload";
import type { Paint } from "./scene";
import { layerPeaks, ranking } from "./statistics";

export const BINS = DRAWING.levels.length;
export const RISE = DRAWING.rise;
export const FALL = DRAWING.fall;

/** Methods to map values to colours. */
export const SPREADS = ["linear", "rank", "layer"] as const;
export type Spread = (typeof SPREADS)[number];

export interface Colouring {
  readonly palette: readonly Paint[];
  /** Values at the two ends of the colour bar. */
  readonly ends: Scale;
  /** Index in the palette of each cell of a panel; -1 for a missing value. */
  readonly places: (panel: Panel) => Int16Array;
  /** Index in the palette of a value on the colour bar. */
  readonly onBar: (value: number) => number;
}

const LEVELS: readonly Paint[] = DRAWING.levels.map((colour) => ({ colour, opacity: 1 }));

/** Colours from the strongest fall through transparent to the strongest rise. */
const SIGNED: readonly Paint[] = Array.from({ length: 2 * BINS + 1 }, (_, place) => ({
  colour: place > BINS ? RISE : FALL,
  opacity: Math.round((100 * Math.abs(place - BINS)) / BINS) / 100,
}));

export function colouring(kind: Kind, spread: Spread, scale: Scale, shape: Shape): Colouring {
  const signed = kind !== "level";
  const ends = spread === "linear" ? scale : { low: signed ? -1 : 0, high: 1 };
  const bin = (share: number) => (signed ? BINS + Math.round(share * BINS) : Math.round(share * (BINS - 1)));
  const onBar = (value: number) => bin(signed ? clip(value / ends.high, -1) : clip(unit(value, ends), 0));
  const spreads: Record<Spread, (values: Float64Array) => Float64Array> = {
    linear: (values) => values,
    rank: rankShares,
    layer: (values) => layerShares(values, shape),
  };
  const places = (panel: Panel) => {
    const found = new Int16Array(panel.values.length);
    spreads[spread](panel.values).forEach((value, cell) => {
      found[cell] = Number.isNaN(value) ? -1 : onBar(value);
    });
    return found;
  };
  return { palette: signed ? SIGNED : LEVELS, ends, places, onBar };
}

/** The fraction of the panel's other heads with a smaller absolute value, with the value's sign. */
function rankShares(values: Float64Array): Float64Array {
  const order = ranking(values);
  const shares = new Float64Array(values.length).fill(Number.NaN);
  let share = 1;
  order.forEach((cell, place) => {
    const value = values[cell] ?? 0;
    const above = values[order[place - 1] ?? -1];
    if (above === undefined || Math.abs(above) !== Math.abs(value)) {
      share = order.length > 1 ? 1 - place / (order.length - 1) : 1;
    }
    shares[cell] = Math.sign(value) * share;
  });
  return shares;
}

/** Values relative to the largest absolute value of the same layer. */
function layerShares(values: Float64Array, shape: Shape): Float64Array {
  const peaks = layerPeaks(values, shape);
  return values.map((value, cell) => value / (peaks[Math.floor(cell / shape.heads)] || 1));
}

function unit(value: number, { low, high }: Scale): number {
  return (value - low) / (high - low);
}

function clip(share: number, least: number): number {
  return Math.min(Math.max(share, least), 1);
}
