import { expect, test } from "vitest";
import { bins, cellsBetween, cellsInBins, selectedBars } from "../src/grid/distribution";
import { clicked, dragged } from "../src/grid/drag";
import { type History, remembered } from "../src/grid/history";
import { type Hit, hitTest } from "../src/grid/hit";
import { DISTRIBUTION_HEIGHT, distributionTop } from "../src/grid/layout";
import { picture } from "../src/grid/picture";
import { firstView, shown } from "../src/grid/view";
import { panel, payload } from "./made";

const VALUES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, Number.NaN];
const THEME = { ink: "#000000", page: "#ffffff", font: "sans-serif" };
const made = payload(3, 4, [panel(VALUES)]);
const drawn = picture(shown(made, { ...firstView(made), distribution: true }), THEME, 900);
const { layout } = drawn;
const origin = layout.origins[0] ?? { x: 0, y: 0 };
const span = layout.gridWidth - layout.gap;

/** The hit on the distribution at the position of a value. */
function at(value: number): Hit {
  const y = origin.y + distributionTop(layout) + DISTRIBUTION_HEIGHT / 2;
  const hit = hitTest(layout, origin.x + (value / 10) * span, y);
  if (hit?.at !== "distribution") throw new Error("not on the distribution");
  return hit;
}

test("a brush over the distribution selects the heads with these values, in either direction", () => {
  expect(dragged(drawn, at(2.01), undefined, null, (5.01 / 10) * span)).toEqual([2, 3, 4, 5]);
  expect(dragged(drawn, at(5.01), undefined, null, (2.01 / 10) * span)).toEqual([2, 3, 4, 5]);
});

test("a brush beyond the ends selects up to the ends, never heads without a value", () => {
  expect(dragged(drawn, at(8.01), undefined, null, span + 500)).toEqual([8, 9, 10]);
  expect(dragged(drawn, at(1.01), undefined, null, -500)).toEqual([0, 1]);
});

test("a click on a bar selects its heads", () => {
  expect(clicked(drawn, at(7.01))).toEqual([7]);
});

test("every head is in exactly one bar", () => {
  const [histogram] = bins(drawn.shown, layout);
  if (!histogram) throw new Error("no histogram");
  const values = Float64Array.from(VALUES);
  const found = histogram.counts.flatMap((count, bin) => {
    const cells = cellsInBins(values, histogram, bin, bin);
    expect(cells.length).toBe(count);
    return cells;
  });
  expect(found.sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  const all = selectedBars(histogram, values, new Set(found), layout);
  expect(all.length / 4).toBe(histogram.counts.filter(Boolean).length);
});

test("a drag over layer or head numbers selects all layers or heads between", () => {
  const layer = (row: number) => hitTest(layout, origin.x - 10, origin.y + (row + 0.5) * layout.cellHeight);
  const head = (column: number) =>
    hitTest(layout, origin.x + (column + 0.5) * layout.cellWidth, origin.y + layout.gridHeight + 5);
  const [first, last] = [layer(1), layer(2)];
  const [left, right] = [head(1), head(2)];
  if (!first || !last || !left || !right) throw new Error("no axis");
  expect(dragged(drawn, first, undefined, last, 0)).toEqual([4, 5, 6, 7, 8, 9, 10, 11]);
  expect(dragged(drawn, last, undefined, first, 0)).toEqual([4, 5, 6, 7, 8, 9, 10, 11]);
  expect(dragged(drawn, right, undefined, left, 0)).toEqual([1, 2, 5, 6, 9, 10]);
  expect(dragged(drawn, first, undefined, left, 0)).toBeNull();
});

test("heads are selected by the ends of their values", () => {
  const values = Float64Array.from(VALUES);
  expect(cellsBetween(values, 3, 5)).toEqual([3, 4, 5]);
  expect(cellsBetween(values, 9, Number.POSITIVE_INFINITY)).toEqual([9, 10]);
  expect(cellsBetween(values, 5, 3)).toEqual([]);
});

test("the history has each earlier selection once, and no more than it can hold", () => {
  const sets = [new Set<number>(), new Set([1]), new Set([1]), new Set([2])];
  const history = sets
    .slice(1)
    .reduce<History>((known, set, i) => remembered(known, sets[i] ?? set, set), []);
  expect(history.map((cells) => [...cells])).toEqual([[], [1]]);
  let long: History = [];
  for (let i = 0; i < 500; i++) long = remembered(long, new Set([i]), new Set([i + 1]));
  expect(long.length).toBe(200);
  expect(long.at(-1)).toEqual(new Set([499]));
});
