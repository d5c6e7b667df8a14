import { describe, expect, test } from "vitest";
import {
  headLines,
  missingLine,
  namesLine,
  number,
  offScaleLine,
  percent,
  short,
  significanceLine,
} from "../src/grid/words";
import { panel, payload } from "./made";

describe("numbers", () => {
  test.each([
    [0.012, "0.0120"],
    [-0.4, "−0.400"],
    [2.1e-7, "2.10e-7"],
    [0, "0"],
    [123.4, "123"],
    [1234, "1.23e3"],
    [0.00009999, "0.000100"],
    [0.0001, "0.000100"],
    [999.6, "1.00e3"],
  ])("%f is measured as %s", (value, words) => expect(number(value)).toBe(words));

  test.each([
    [0.05, "0.05"],
    [-0.02, "−0.02"],
    [0.1 + 0.2, "0.3"],
    [100, "100"],
    [2e-7, "2e-7"],
    [0, "0"],
  ])("%f is round as %s", (value, words) => expect(short(value)).toBe(words));
});

test.each([
  [1, "100"],
  [0.9961, "100"],
  [0.994, "99"],
  [0.0471, "4.7"],
  [2.13e-7, "2.1e-5"],
  [0, "0"],
])("a fraction of %f is %s percent", (share, words) => expect(percent(share)).toBe(words));

test("the lines of a head have its value, interval, rank and key/value head", () => {
  const one = panel([0.1, 0.2, 0.05, 0.4], {
    low: Float64Array.of(0, 0.15, 0, 0),
    high: Float64Array.of(1, 0.25, 1, 1),
  });
  const found = payload(1, 4, [one], { kvHeads: 2 });
  expect(headLines(found, one, { layer: 0, head: 1 })).toEqual([
    "L0H1  0.2000 nats",
    "95 % interval 0.150 to 0.250",
    "rank 2 of 4",
    "key/value head 0",
  ]);
});

test("the lines of a head that does not exist say so", () => {
  const one = panel([Number.NaN, 1]);
  expect(headLines(payload(1, 2, [one]), one, { layer: 0, head: 0 })).toEqual(["L0H0", "no softmax head"]);
});

test("layers without heads are listed as ranges", () => {
  const values = [0, 0, 1, 0, 1, 0].map((value) => (value ? 1 : Number.NaN));
  expect(missingLine(payload(6, 1, [panel(values)]))).toBe(
    "Layers 0–1, 3, 5 are hatched: they have no softmax attention heads.",
  );
  expect(missingLine(payload(2, 1, [panel([1, Number.NaN])]))).toContain("Layer 1 is hatched");
  expect(missingLine(payload(1, 1, [panel([1])]))).toBe("");
});

test("layers and heads of a selection are named by the model's numbers", () => {
  const one = panel([Number.NaN, Number.NaN, 1, 2]);
  const found = payload(2, 2, [one], { layerNumbers: [4, 5], headNumbers: [6, 1] });
  expect(missingLine(found)).toContain("Layer 4 is hatched");
  expect(headLines(found, one, { layer: 1, head: 0 })[0]).toBe("L5H6  1.000 nats");
});

test("significant heads are counted among the existing heads", () => {
  const marked = panel([1, 2, Number.NaN], { significant: Float64Array.of(1, 0, 0) });
  expect(significanceLine(payload(1, 3, [marked], { alpha: 0.05 }), marked)).toBe(
    "1 of 2 heads changed significantly (q < 0.05).",
  );
});

test("heads off scale are counted", () => {
  expect(offScaleLine([panel([1, 3, -4])], -2, 2)).toBe("2 heads off scale, up to −4.00");
  expect(offScaleLine([panel([1])], 0, 2)).toBe("");
});

test("a few heads are all named, and of thousands only the first", () => {
  expect(namesLine([])).toBe("");
  expect(namesLine(["L3H5", "L7H1"])).toBe("L3H5, L7H1");
  const many = Array.from({ length: 16_128 }, (_, head) => `L0H${head}`);
  expect(namesLine(many)).toMatch(/^L0H0, L0H1, .*, L0H39 and 16088 more$/);
});
