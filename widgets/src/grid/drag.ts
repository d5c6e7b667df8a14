/** Selection by dragging over heads, layer numbers, head numbers or the bars of a distribution. */

import { binAt, cellsInBins } from "./distribution";
import type { Hit } from "./hit";
import type { Picture } from "./picture";
import { between } from "./selection";

/** The cells that a click selects. */
export function clicked(drawn: Picture, hit: Hit): readonly number[] {
  return hit.at === "distribution" ? brushed(drawn, hit, hit.x) : hit.cells;
}

/**
 * The cells between the start of a drag and the pointer; null if the pointer is not over something of the same kind.
 * `x` is the pointer's position in pixels from the left edge of the grid where the drag started.
 */
export function dragged(
  drawn: Picture,
  from: Hit,
  anchor: number | undefined,
  to: Hit | null,
  x: number,
): readonly number[] | null {
  if (from.at === "distribution") return brushed(drawn, from, x);
  const [first, last] = [anchor ?? from.cells[0], to?.cells.at(-1)];
  if (from.at === "group" || to?.at !== from.at || first === undefined || last === undefined) return null;
  return between(first, last, drawn.layout);
}

/** The cells whose values are in the bins between the start of a drag over a distribution and `x`. */
function brushed(drawn: Picture, { panel, x: start }: Hit, x: number): readonly number[] {
  const histogram = drawn.histograms[panel];
  const values = drawn.shown.panels[panel]?.values;
  if (!histogram || !values) return [];
  const [first, last] = [binAt(histogram, drawn.layout, start), binAt(histogram, drawn.layout, x)];
  return cellsInBins(values, histogram, first, last);
}
