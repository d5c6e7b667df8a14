import { describe, expect, test } from "vitest";
import { sharpness } from "../src/grid/canvas";
import { raster } from "../src/grid/raster";
import type { Cells } from "../src/grid/scene";

const RED = { colour: "#ff0000", opacity: 1 };
const FAINT = { colour: "#010203", opacity: 0.5 };

function cells(fields: Partial<Cells>): Cells {
  return {
    mark: "cells",
    columns: [0, 3],
    rows: [0],
    width: 2,
    height: 2,
    places: Int16Array.of(0, 1),
    palette: [RED, FAINT],
    ...fields,
  };
}

/** Red, green, blue and opacity of each pixel, row by row. */
function painted(found: ReturnType<typeof raster>): number[][] {
  const bytes = new Uint8ClampedArray(found.pixels.buffer);
  return Array.from({ length: bytes.length / 4 }, (_, i) => [...bytes.slice(4 * i, 4 * i + 4)]);
}

const [R, F, O] = [
  [255, 0, 0, 255],
  [1, 2, 3, 128],
  [0, 0, 0, 0],
];

test("cells are whole pixels in their colour and opacity, and the gaps are empty", () => {
  const found = raster(cells({}), 1, 40, 7);
  expect(found).toMatchObject({ x: 40, y: 7, width: 5, height: 2 });
  expect(painted(found)).toEqual([R, R, O, F, F, R, R, O, F, F]);
});

test("a cell without a value is empty", () => {
  expect(painted(raster(cells({ places: Int16Array.of(-1, 0), height: 1 }), 1, 0, 0))).toEqual([
    O,
    O,
    O,
    R,
    R,
  ]);
});

test("with 1.5 pixels per unit every cell ends where the next begins", () => {
  const tight = cells({ columns: [0, 3, 6, 9], width: 3, height: 1, places: Int16Array.of(0, 1, 0, 1) });
  const found = raster(tight, 1.5, 0.5, 0);
  // edges at 0.5, 5, 9.5, 14 and 18.5 pixels
  expect([found.x, found.width]).toEqual([1, 18]);
  expect(painted({ ...found, pixels: found.pixels.slice(0, 18) })).toEqual([
    ...[R, R, R, R],
    ...[F, F, F, F, F],
    ...[R, R, R, R],
    ...[F, F, F, F, F],
  ]);
});

test("cells smaller than a pixel are visible", () => {
  const tiny = cells({ columns: [0, 1, 2, 3], width: 1, height: 1, places: Int16Array.of(0, 0, 0, 0) });
  const found = raster(tiny, 0.3, 0, 0);
  expect(painted(found).every(([red]) => red === 255)).toBe(true);
});

describe("a canvas has the wanted resolution", () => {
  test.each([
    [900, 700, 2],
    [900, 700, 1],
  ])("if it is small enough: %d x %d, %d pixels per unit", (width, height, wanted) =>
    expect(sharpness({ width, height }, wanted)).toBe(wanted),
  );
  test.each([
    [12_400, 26_000],
    [100, 60_000],
    [60_000, 60_000],
  ])("or else the largest that a browser supports: %d x %d", (width, height) => {
    const ratio = sharpness({ width, height }, 2);
    expect(ratio * Math.max(width, height)).toBeLessThanOrEqual(16_384);
    expect(4 * ratio * width * ratio * height).toBeLessThanOrEqual(2 ** 27);
  });
});
