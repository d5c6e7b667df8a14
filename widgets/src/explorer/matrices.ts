/** Attention matrices of one head on one sample, and values derived from them. Rows are queries, columns are keys. */

import { FALL, RISE } from "../grid/colours";
import { pixel } from "../grid/raster";
import type { AttentionMessage } from "./model";

export interface Matrix {
  readonly length: number;
  /** The entries row by row. */
  readonly values: Float32Array;
}

/** Read a matrix of little-endian float32; throws if the number of entries does not match the number of tokens. */
export function matrix({ buffer, byteOffset, byteLength }: DataView, length: number): Matrix {
  if (byteLength !== 4 * length * length) {
    throw new Error(`${byteLength} bytes are not a matrix of ${length} x ${length}`);
  }
  return { length, values: new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength)) };
}

const [RISES, FALLS] = [RISE, FALL].map((colour) =>
  Uint32Array.from({ length: 256 }, (_, shade) => pixel({ colour, opacity: shade / 255 })),
);
const VEIL = 40;

/**
 * The matrix as pixels, one pixel per entry, in the colour of its sign. Opacities follow the square root of the size,
 * since otherwise only attention sinks would be visible. The row of the selected query has a minimum opacity.
 */
export function matrixPixels({ length, values }: Matrix, query: number | null): Uint32Array<ArrayBuffer> {
  const most = largest(values) || 1;
  const pixels = new Uint32Array(values.length);
  values.forEach((value, entry) => {
    const shade = Math.round(255 * Math.sqrt(Math.abs(value) / most));
    const least = query !== null && Math.floor(entry / length) === query ? VEIL : 0;
    pixels[entry] = (value > 0 ? RISES : FALLS)?.[Math.max(shade, least)] ?? 0;
  });
  return pixels;
}

/** The entries of one query for every key. */
export function row({ length, values }: Matrix, query: number): Float32Array {
  return values.slice(query * length, (query + 1) * length);
}

/** The mean over the given queries. */
export function meanOver(matrix: Matrix, queries: readonly number[]): Float32Array {
  const sum = sumOver(matrix, queries);
  return queries.length ? sum.map((value) => value / queries.length) : sum;
}

export function sumOver({ length, values }: Matrix, queries: readonly number[]): Float32Array {
  const sum = new Float32Array(length);
  for (const query of queries) {
    for (let key = 0; key < length; key++) sum[key] = (sum[key] ?? 0) + (values[query * length + key] ?? 0);
  }
  return sum;
}

/** The positions that predict the answer tokens: each token is predicted at the position before it. */
export function predicting(answer: readonly number[]): number[] {
  return [...answer.keys()].slice(1).flatMap((place) => (answer[place] ? [place - 1] : []));
}

export function largest(values: Float32Array): number {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

/** The places of the `count` values that are furthest from zero, which are not zero; the furthest first. */
export function strongest(values: Float32Array, count: number): number[] {
  const size = (place: number) => Math.abs(values[place] ?? 0);
  const places = [...values.keys()].filter((place) => size(place) > 0);
  return places.sort((a, b) => size(b) - size(a)).slice(0, count);
}

export type Kind = "weights" | "products";

export interface Attention {
  readonly message: AttentionMessage;
  readonly weights: Matrix;
  readonly products: Matrix;
}

export function attentionOf(message: AttentionMessage): Attention {
  const { length } = message.tokens;
  return {
    message,
    weights: matrix(message.weights, length),
    products: matrix(message.products, length),
  };
}

/**
 * The value that shades each token: the row of a query, or without a query the mean of the weights over the positions
 * that predict the answer, or the sum of the products over all queries (whose total is the score).
 */
export function tokenValues(attention: Attention, kind: Kind, query: number | null): Float32Array {
  const chosen = attention[kind];
  if (query !== null) return row(chosen, query);
  return kind === "weights"
    ? meanOver(chosen, predicting(attention.message.answer))
    : sumOver(chosen, [...attention.message.tokens.keys()]);
}

/** A token with visible symbols for line breaks, tabs and an empty text. */
export function visible(token: string): string {
  return token.replaceAll("\n", "⏎\n").replaceAll("\t", "⇥") || "∅";
}
