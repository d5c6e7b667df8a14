import { describe, expect, test } from "vitest";
import { distributionTop } from "../src/grid/layout";
import { partAt } from "../src/grid/parts";
import { picture } from "../src/grid/picture";
import { firstView, shown } from "../src/grid/view";
import { panel, payload } from "./made";

const theme = { ink: "#222222", page: "#ffffff", font: "sans-serif" };

function drawn(values: number[], fields: object = {}, view: object = {}) {
  const found = payload(2, 2, [panel(values)], fields);
  return picture(shown(found, { ...firstView(found), distribution: true, ...view }), theme, 600);
}

describe("a point of the picture", () => {
  const found = drawn([1, 2, 3, Number.NaN], { scale: { low: 0, high: 4 }, layerNumbers: [4, 9] });
  const [origin] = found.layout.origins;
  if (!origin) throw new Error("no panel");
  const { gridWidth, cellHeight } = found.layout;

  test("on a layer's bar has the mean of its heads", () => {
    const at = (layer: number) =>
      partAt(found, origin.x + gridWidth + 15, origin.y + (layer + 0.5) * cellHeight);
    expect(at(0)?.lines).toEqual(["layer 4", "1.50 nats, mean of 2 heads"]);
    expect(at(1)?.lines).toEqual(["layer 9", "3.00 nats, mean of 1 head"]);
  });
  test("on the colour bar has its value, and the number of heads beyond it", () => {
    expect(partAt(found, 40 + 96, 23)?.lines).toEqual(["2.00 nats", "2 of 3 heads have at least this value"]);
  });
  test("in the histogram has the bin's heads and ends, also above a short bar", () => {
    const top = origin.y + distributionTop(found.layout);
    const last = partAt(found, origin.x + gridWidth - 2, top + 1);
    expect(last?.lines[0]).toBe("1 head");
    expect(last?.lines[1]).toMatch(/ to 3\.00 nats$/);
  });
  test("elsewhere has no part", () => {
    expect(partAt(found, 1, 1)).toBeNull();
    expect(partAt(found, origin.x + 2, origin.y + 2)).toBeNull();
  });
});

test("the colour bar of differences counts towards its nearer end", () => {
  const found = drawn([-1, -3, 2, 0.5], { kind: "difference", scale: { low: -4, high: 4 } });
  expect(partAt(found, 40 + 48, 23)?.lines).toEqual(["−2.00 nats", "1 of 4 heads have at most this value"]);
});

test("the colour bar of ranks has the rank alone", () => {
  const found = drawn([1, 2, 3, 4], {}, { spread: "rank" });
  expect(partAt(found, 40 + 96, 23)?.lines).toEqual(["0.50"]);
});

test("a grid without scores has no parts", () => {
  const found = drawn([0, 0, 0, 0], { progress: { done: 0, total: 4, unit: "samples", message: "" } });
  expect(partAt(found, 40 + 96, 23)).toBeNull();
});

test("each of two colour bars has the values of its own panels", () => {
  const own = { kind: "difference" as const, scale: { low: -4, high: 4 }, quantity: "change", units: "nats" };
  const step = (values: number[], at: number) => panel(values, { step: at, course: "gsm8k" });
  const change = panel([1, -3, 0, 2], { own });
  const found = payload(2, 2, [step([1, 1, 1, 1], 0), { ...step([2, 3, 1, 3], 5), change }]);
  const made = picture(shown(found, firstView(found)), theme, 1200);
  const units = made.layout.legendOrigins.map(({ x, y }) => partAt(made, x + 48, y + 23)?.lines[1]);
  expect(units).toEqual(["8 of 8 heads have at least this value", "1 of 4 heads have at most this value"]);
});
