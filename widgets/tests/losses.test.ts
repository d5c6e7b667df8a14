import { describe, expect, test } from "vitest";
import { lineChart, nearestStop, valueAt } from "../src/grid/line-chart";
import { hasLosses, lossChart, lossWords } from "../src/grid/loss-chart";
import { readPayload } from "../src/grid/reading";
import type { Mark, Scene } from "../src/grid/scene";
import { sceneAsSvg } from "../src/grid/svg";
import { placeAfter } from "../src/view/loss-slider";
import { fixture } from "./fixtures";
import { panel, payload } from "./made";

const theme = { ink: "#222222", page: "#ffffff", font: "sans-serif" };
const curve = {
  label: "training loss",
  units: "nats",
  steps: [1, 2, 3, 4, 5, 6],
  values: [6, 5, 4, 4, 3, 2],
};
const tracked = { label: "loss on gsm8k", units: "nats", steps: [0, 2, 6], values: [6.5, 5.5, 2.5] };
const steps = [0, 2, 6].map((step) => panel([step, 1], { title: `step ${step}`, step }));
const study = payload(1, 2, steps, { curves: [curve, tracked] });
const words = (scene: Scene) =>
  [...sceneAsSvg(scene, theme, "").matchAll(/<text[^>]*>([^<]*)</g)].map(([, text]) => text);

describe("the loss chart", () => {
  const chart = lossChart(study, 1, theme, 600);
  test("has axes with units, names of the curves, and the chosen step", () => {
    const shown = words(chart.scene);
    for (const text of ["training step", "loss (nats)", "training loss", "loss on gsm8k", "step 2"]) {
      expect(shown).toContain(text);
    }
    expect(shown.filter((text) => /^\d$/.test(text ?? "")).length).toBeGreaterThan(4); // labelled ticks
  });
  test("names the exact match, which has no units, beside the losses", () => {
    const matches = { label: "exact match on gsm8k", units: "", steps: [0, 2, 6], values: [0, 0.25, 0.5] };
    const both = payload(1, 2, steps, { curves: [curve, matches] });
    expect(words(lossChart(both, 1, theme, 600).scene)).toContain("loss (nats), exact match");
    expect(lossWords(both, 2)).toBe("step 2, training loss 5.00 nats, exact match on gsm8k 0.250");
  });
  test("marks the chosen step on the tracked curve, at the height of its value", () => {
    const flat = (marks: readonly Mark[]): Mark[] =>
      marks.flatMap((mark) => (mark.mark === "group" ? flat(mark.marks) : [mark]));
    const discs = flat(chart.scene.marks).flatMap((mark) => (mark.mark === "discs" ? [mark.centres] : []));
    const left = chart.x(0);
    expect(discs.map(([x]) => (x ?? 0) + left)).toEqual([chart.x(2), chart.x(2)]);
    expect(discs[0]?.[1]).toBeGreaterThan(discs[1]?.[1] ?? 0); // 5 is below 5.5
  });
  test("finds the tracked step nearest to a position on it", () => {
    const stops = [0, 2, 6];
    for (const [place, stop] of stops.entries()) expect(nearestStop(chart, stops, chart.x(stop))).toBe(place);
    expect(nearestStop(chart, stops, chart.x(3.9))).toBe(1);
    expect(nearestStop(chart, stops, chart.x(4.1))).toBe(2);
    expect([nearestStop(chart, stops, -99), nearestStop(chart, stops, 9999)]).toEqual([0, 2]);
  });
  test("is as wide as there is room", () => {
    expect(lossChart(study, 1, theme, 300).scene.width).toBe(300);
    expect(lossChart(study, 1, theme, 5000).scene.width).toBeLessThan(1000);
  });
  test("needs curves and several steps", () => {
    expect(hasLosses(study)).toBe(true);
    expect(hasLosses({ ...study, curves: [] })).toBe(false);
    expect(hasLosses(payload(1, 2, steps.slice(0, 1), { curves: [curve] }))).toBe(false);
  });
  test("is described by the step and the losses at it", () => {
    expect(lossWords(study, 2)).toBe("step 2, training loss 5.00 nats, loss on gsm8k 5.50 nats");
    expect(lossWords(study, 0)).toBe("step 0, loss on gsm8k 6.50 nats");
  });
});

describe("a line chart", () => {
  const options = { xLabel: "x", yLabel: "y", width: 200, height: 120, markLabel: "", stops: [] };
  test("of one value, of equal values or of missing values can be drawn", () => {
    for (const values of [[3], [2, 2, 2], [Number.NaN, 1], [Number.NaN], []]) {
      const line = { label: "", steps: values.map((_, i) => i), values, colour: "#222222" };
      const { scene } = lineChart([line], { ...options, marked: 0, fromZero: false }, theme);
      expect(sceneAsSvg(scene, theme, "")).not.toContain("NaN");
    }
  });
  test("includes zero if it is asked to", () => {
    const line = { label: "", steps: [0, 1], values: [10, 11], colour: "#222222" };
    const ticks = (fromZero: boolean) =>
      words(lineChart([line], { ...options, marked: 0, fromZero }, theme).scene);
    expect(ticks(true)).toContain("5");
    expect(ticks(false)).not.toContain("5");
  });
  test("has the last value at or before a step", () => {
    expect([0, 1, 3.5, 9].map((step) => valueAt(curve, step))).toEqual([Number.NaN, 6, 4, 2]);
  });
});

describe("a key on the slider", () => {
  test.each([
    ["ArrowRight", 3],
    ["ArrowUp", 3],
    ["ArrowLeft", 1],
    ["ArrowDown", 1],
    ["PageUp", 4],
    ["PageDown", 0],
    ["Home", 0],
    ["End", 4],
    ["a", null],
  ])("%s goes from the third of five steps to %s", (key, to) => {
    expect(placeAfter(key, 2, 5)).toBe(to);
  });
  test("stops at the ends", () => {
    expect([placeAfter("ArrowLeft", 0, 5), placeAfter("ArrowRight", 4, 5)]).toEqual([0, 4]);
  });
});

test("a saved study has its curves, and its changes on their own scale", () => {
  const found = readPayload(fixture("valid/study"));
  expect(found.curves.map(({ label }) => label)).toEqual(["training loss", "loss on samples"]);
  const change = found.panels.at(-1)?.change;
  expect(change?.own).toMatchObject({ kind: "difference", quantity: "change in activation level" });
  expect(change?.own?.scale.low).toBe(-(change?.own?.scale.high ?? 0));
  expect(change?.reliabilityLine).toContain("16 samples");
  expect(change?.significant?.length).toBe(8);
});
