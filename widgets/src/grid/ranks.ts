/** Ranks of a panel's heads, worked out once a panel, since every movement of the mouse asks for one. */

import { ranking } from "./statistics";

interface Ranks {
  readonly order: Int32Array;
  readonly ranks: Int32Array;
}

const known = new WeakMap<Float64Array, Ranks>();

/** Cells from the largest to the smallest. */
export function orderOf(values: Float64Array): Int32Array {
  return ranksOf(values).order;
}

/** 1 for the largest head; 0 for a cell without a value. */
export function rankOf(values: Float64Array, cell: number): number {
  return ranksOf(values).ranks[cell] ?? 0;
}

function ranksOf(values: Float64Array): Ranks {
  const found = known.get(values);
  if (found) return found;
  const order = ranking(values);
  const ranks = new Int32Array(values.length);
  order.forEach((cell, place) => {
    ranks[cell] = place + 1;
  });
  known.set(values, { order, ranks });
  return { order, ranks };
}
