import { expect, test } from "vitest";
import {
  difference,
  furthest,
  largest,
  layerMeans,
  ranking,
  rankOf,
  sharedScale,
} from "../src/grid/statistics";
import { panel } from "./made";

const MISSING = Number.NaN;

test("ranking is by absolute value, keeps ties in order and excludes missing heads", () => {
  const values = Float64Array.of(0.1, -0.5, MISSING, 0.3, 0.3, 0);
  expect([...ranking(values)]).toEqual([1, 3, 4, 0, 5]);
  const present = [0, 1, 3, 4, 5];
  expect(present.map((cell) => rankOf(values, cell).rank)).toEqual([4, 1, 2, 3, 5]);
  expect(rankOf(values, 0).of).toBe(5);
});

test("the largest cells are the first of the ranking", () => {
  const values = Float64Array.from({ length: 200 }, (_, cell) =>
    cell % 9 ? ((cell * 37) % 50) - 25 : MISSING,
  );
  const order = [...ranking(values)];
  for (const count of [0, 1, 7, 500]) expect(largest(values, count)).toEqual(order.slice(0, count));
});

test("the furthest value keeps its sign", () => {
  expect(furthest(Float64Array.of(0.1, MISSING, -0.5, 0.3))).toBe(-0.5);
  expect(furthest(Float64Array.of(MISSING))).toBe(0);
});

test("a layer's mean is over its existing heads", () => {
  const means = layerMeans(Float64Array.of(1, 3, MISSING, 5, MISSING, MISSING), {
    layers: 3,
    heads: 2,
    kvHeads: 2,
  });
  expect([...means]).toEqual([2, 5, MISSING]);
});

test("the scale ends at the largest value, rounded up to three digits", () => {
  expect(sharedScale([panel([0.1, 0.12345, MISSING])], "level")).toEqual({ low: 0, high: 0.124 });
  expect(sharedScale([panel([0.1, -0.12345])], "difference")).toEqual({ low: -0.124, high: 0.124 });
});

test("a single outlier does not determine the scale", () => {
  // 999 heads at 1 and one at 50: the 99.5th percentile is 1
  const values = [...Array.from({ length: 999 }, () => 1), 50];
  expect(sharedScale([panel(values)], "level")).toEqual({ low: 0, high: 1 });
});

test.each([[[0, 0]], [[MISSING, MISSING]], [[1e-200]]])(
  "without a value to show (%j) the scale is 0 to 1",
  (values) => {
    expect(sharedScale([panel(values)], "level")).toEqual({ low: 0, high: 1 });
  },
);

test("a difference is head by head, without intervals, statistics or reliability", () => {
  const after = panel([3, 1, MISSING], { title: "after", reliabilityLine: "Reliability 0.90 (64 samples)" });
  const found = difference(
    after,
    panel([1, 2, 3], { title: "before", reliabilityLine: "Reliability 0.80 (64 samples)" }),
  );
  expect(found.title).toBe("after − before");
  expect([...found.values]).toEqual([2, -1, MISSING]);
  expect([found.low, found.significant, found.statisticsLine, found.cells]).toEqual([null, null, "", []]);
  expect(found.reliabilityLine).toMatch(/^Reliability not available/);
});
