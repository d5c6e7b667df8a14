/** One head's matrices on one sample, and what is read from them. Rows are queries, columns are keys. */

import type { AttentionMessage } from "./model";

export interface Matrix {
  readonly length: number;
  /** Row by row. */
  readonly values: Float32Array;
}

/** The entries as they were sent; throws when they are not as many as the tokens want. */
export function matrix(bytes: DataView, length: number): Matrix {
  if (bytes.byteLength !== 4 * length * length) {
    throw new Error(`${bytes.byteLength} bytes are not a matrix of ${length} x ${length}`);
  }
  const values = Float32Array.from({ length: length * length }, (_, i) => bytes.getFloat32(4 * i, true));
  return { length, values };
}

/** What one query makes of every key. */
export function row({ length, values }: Matrix, query: number): Float32Array {
  return values.slice(query * length, (query + 1) * length);
}

/** The mean over some queries. */
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

/** The positions that predict the answer: a token is predicted at the one before it. */
export function predicting(answer: readonly number[]): number[] {
  return [...answer.keys()].slice(1).flatMap((place) => (answer[place] ? [place - 1] : []));
}

export function largest(values: Float32Array): number {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
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
 * What each token is shaded by: one query's row, or without a query the weights' mean over the predictions of the
 * answer and the products' sum over all queries (which adds up to the score).
 */
export function tokenValues(attention: Attention, kind: Kind, query: number | null): Float32Array {
  const found = attention[kind];
  if (query !== null) return row(found, query);
  return kind === "weights"
    ? meanOver(found, predicting(attention.message.answer))
    : sumOver(found, [...attention.message.tokens.keys()]);
}

/** A token as it is shown: what would not be seen has a sign. */
export function visible(token: string): string {
  return token.replaceAll("\n", "⏎\n").replaceAll("\t", "⇥") || "∅";
}
