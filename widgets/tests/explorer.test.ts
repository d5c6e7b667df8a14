import { describe, expect, test } from "vitest";
import { bars, binLine } from "../src/explorer/charts";
import { keyTicks } from "../src/explorer/colour-key";
import { signed } from "../src/explorer/intervene-tab";
import {
  attentionOf,
  largest,
  matrix,
  matrixPixels,
  predicting,
  strongest,
  tokenValues,
  visible,
} from "../src/explorer/matrices";

function sent(values: number[]): DataView {
  const bytes = new DataView(new ArrayBuffer(4 * values.length));
  for (const [i, value] of values.entries()) bytes.setFloat32(4 * i, value, true);
  return bytes;
}

const attention = attentionOf({
  head: "L0H0",
  task: "sums",
  sample: "0",
  tokens: ["a", "b", "c"],
  answer: [0, 1, 1],
  score: 0.5,
  loss: 1,
  weights: sent([1, 0, 0, 0.25, 0.75, 0, 0.5, 0.25, 0.25]),
  products: sent([0, 0, 0, 0.5, -1, 0, 1, 0, 0]),
});

describe("a matrix", () => {
  test("is read row by row, little-endian, also from the middle of a buffer", () => {
    const whole = sent([9, 1, 2, 3, 4]);
    const part = new DataView(whole.buffer, 4);
    expect([...matrix(part, 2).values]).toEqual([1, 2, 3, 4]);
  });
  test("whose size does not match the tokens is refused", () => {
    expect(() => matrix(sent([1, 2, 3]), 2)).toThrow("12 bytes are not a matrix of 2 x 2");
  });
});

describe("a matrix as pixels", () => {
  const alpha = (pixels: Uint32Array) => [...pixels].map((pixel) => pixel >>> 24);
  test("has opacities by the square root of each entry relative to the largest, in the colour of its sign", () => {
    const found = matrixPixels(matrix(sent([1, 0, -0.25, 0]), 2), null);
    expect(alpha(found)).toEqual([255, 0, 128, 0]);
    const [rise, , fall] = [...new Uint8ClampedArray(found.buffer)].flatMap((_, i, bytes) =>
      i % 4 ? [] : [bytes.slice(i, i + 3)],
    );
    expect([rise, fall]).toEqual([
      [0xe1, 0x53, 0x1f],
      [0x1f, 0x83, 0xd6],
    ]);
  });
  test("has a minimum opacity in the row of the selected query only", () => {
    expect(alpha(matrixPixels(matrix(sent([1, 0, 0, 0]), 2), 1))).toEqual([255, 0, 40, 40]);
  });
  test("of zeros is transparent", () => {
    expect(alpha(matrixPixels(matrix(sent([0, 0, 0, 0]), 2), null))).toEqual([0, 0, 0, 0]);
  });
});

describe("tokens are shaded by", () => {
  test("the mean of the weights over the positions that predict the answer", () => {
    expect(predicting([0, 1, 1])).toEqual([0, 1]);
    expect([...tokenValues(attention, "weights", null)]).toEqual([0.625, 0.375, 0]);
  });
  test("the sum of the products over all queries, whose total is the score", () => {
    const values = [...tokenValues(attention, "products", null)];
    expect(values).toEqual([1.5, -1, 0]);
    expect(values.reduce((sum, value) => sum + value, 0)).toBeCloseTo(attention.message.score);
  });
  test("the row of one query", () => {
    expect([...tokenValues(attention, "products", 1)]).toEqual([0.5, -1, 0]);
  });
  test("zero if no token is predicted", () => {
    const mute = { ...attention, message: { ...attention.message, answer: [1, 0, 0] } };
    expect([...tokenValues(mute, "weights", null)]).toEqual([0, 0, 0]);
  });
});

test("the largest value counts without its sign", () => {
  expect(largest(attention.products.values)).toBe(1);
  expect(largest(new Float32Array(0))).toBe(0);
});

test("invisible tokens get a visible symbol", () => {
  expect([visible("\n"), visible("\t"), visible(""), visible(" a")]).toEqual(["⏎\n", "⇥", "∅", " a"]);
});

test("bars are as wide as their bins, with heights relative to the largest count", () => {
  expect(bars([1, 4, 0], [0, 1, 3, 4], 80, 40)).toEqual([
    { x: 0, y: 30, width: 20, height: 10 },
    { x: 20, y: 0, width: 40, height: 40 },
    { x: 60, y: 40, width: 20, height: 0 },
  ]);
});

test("a bin is told with its samples, ends and units", () => {
  expect(binLine([1, 4], [0, 1, 3], 1, "nats")).toBe("4 samples with a score from 1.00 to 3.00 nats");
  expect(binLine([1, 4], [0, 1, 3], 0, "")).toBe("1 sample with a score from 0 to 1.00");
});

test("the strongest values are furthest from zero, on both sides of it, and none is zero", () => {
  expect(strongest(Float32Array.of(0.25, 0, -2, 1), 2)).toEqual([2, 3]);
  expect(strongest(Float32Array.of(0.25, 0, -2, 1), 9)).toEqual([2, 3, 0]);
});

describe("the ticks of a colour key", () => {
  const key = { title: "", units: "", most: 8, opacity: 80, signed: false, power: 1 };
  test("are proportional to the value, or to its square root as in the matrix", () => {
    expect(keyTicks(key)).toEqual([
      [0, 0],
      [50, 4],
      [100, 8],
    ]);
    expect(keyTicks({ ...key, power: 2 })).toEqual([
      [0, 0],
      [50, 2],
      [100, 8],
    ]);
  });
  test("of signed values have zero in the middle", () => {
    const found = keyTicks({ ...key, signed: true, power: 2 });
    expect(found.map(([place]) => place)).toEqual([0, 25, 50, 75, 100]);
    expect(found.map(([, value]) => value)).toEqual([-8, -2, 0, 2, 8]);
  });
});

test("an empty histogram has no bars, and a single bin has one", () => {
  expect(bars([], [], 80, 40)).toEqual([]);
  expect(bars([3], [1.5, 2.5], 80, 40)).toEqual([{ x: 0, y: 0, width: 80, height: 40 }]);
});

test("changes have a sign", () => {
  expect([signed(0.5), signed(-0.5), signed(0)]).toEqual(["+0.500", "−0.500", "0"]);
});
