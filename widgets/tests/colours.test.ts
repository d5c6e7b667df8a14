import { describe, expect, test } from "vitest";
import { colouring, FALL, RISE } from "../src/grid/colours";
import { panel } from "./made";

const MISSING = Number.NaN;
const shape = { layers: 2, heads: 2, kvHeads: 2 };

function paints(kind: "level" | "difference", spread: "linear" | "rank" | "layer", values: number[]) {
  const high = 10;
  const colours = colouring(kind, spread, { low: kind === "level" ? 0 : -high, high }, shape);
  return [...colours.places(panel(values))].map((place) => colours.palette[place] ?? null);
}

describe("levels", () => {
  test("go from the dark end of viridis to its bright end", () => {
    const [low, high] = paints("level", "linear", [0, 10]);
    expect(low?.colour).toBe("#440154");
    expect(high?.colour).toBe("#fde725");
  });

  test("off scale have the colour of the scale's end; missing values have none", () => {
    expect(paints("level", "linear", [99, 10, MISSING])).toEqual(
      paints("level", "linear", [10, 10, MISSING]),
    );
    expect(paints("level", "linear", [MISSING])).toEqual([null]);
  });

  test("by rank are evenly distributed, with equal colours for ties", () => {
    expect(paints("level", "rank", [1, 1000, 2, 2])).toEqual(
      paints("level", "linear", [0, 10, 20 / 3, 20 / 3]),
    );
  });

  test("per layer reach the end of the scale in each layer", () => {
    expect(paints("level", "layer", [1, 2, 50, 100])).toEqual(paints("level", "linear", [5, 10, 5, 10]));
  });
});

describe("differences", () => {
  test("are transparent at zero, with a hue for each sign", () => {
    expect(paints("difference", "linear", [0, 10, -10, 5])).toEqual([
      { colour: FALL, opacity: 0 },
      { colour: RISE, opacity: 1 },
      { colour: FALL, opacity: 1 },
      { colour: RISE, opacity: 0.5 },
    ]);
  });

  test("keep the hue of their sign by rank and per layer", () => {
    for (const spread of ["rank", "layer"] as const) {
      const [, rise, , fall] = paints("difference", spread, [0.1, 3, 0.2, -7]);
      expect([rise?.colour, fall?.colour]).toEqual([RISE, FALL]);
    }
  });
});
