/**
 * What a head grid is drawn from: `headnb/display/pattern.schema.json` after it has been checked.
 *
 * Matrices are flat, layer after layer, with NaN where the JSON has null: a head's place is its cell
 * `layer * heads + head`.
 */

import type { Kind } from "../generated/given";

export type { Kind };

export const MIME_TYPE = "application/vnd.headnb.pattern.v1+json";

/** Both ends of the colour scale, shared by all panels. */
export interface Scale {
  readonly low: number;
  readonly high: number;
}

/** A column of the table that compares panels. */
export interface Column {
  readonly label: string;
  readonly help: string;
}

/** One grid: a task, a stage, a step. */
export interface Panel {
  readonly title: string;
  /** Training step; null where the panel is at none. */
  readonly step: number | null;
  /** What is followed along the steps: a task. */
  readonly course: string;
  readonly values: Float64Array;
  readonly low: Float64Array | null;
  readonly high: Float64Array | null;
  readonly significant: Float64Array | null;
  /** The statistics as text: `Gini 0.34 [0.32, 0.36] · CV 0.62`. */
  readonly statisticsLine: string;
  /** How reliable the panel is, as text. */
  readonly reliabilityLine: string;
  /** The panel's row in the table that compares panels: see the payload's `columns`. */
  readonly cells: readonly string[];
  readonly notes: readonly string[];
}

export interface Progress {
  readonly done: number;
  readonly total: number;
  readonly unit: string;
  readonly message: string;
}

/** Layers, heads, and key/value heads, each shared by neighbouring heads. */
export interface Shape {
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  /** The model's own numbers of layers and heads, where these are a selection. */
  readonly layerNumbers?: readonly number[] | null;
  readonly headNumbers?: readonly number[] | null;
}

/** A model's grid of which nothing is known yet: zero stands where there is a head. */
export function isUnscored({ progress }: Pick<Payload, "progress">): boolean {
  return progress?.done === 0;
}

export interface Payload extends Shape {
  readonly title: string;
  readonly model: string;
  readonly task: string;
  readonly method: string;
  readonly lossReduction: string;
  readonly kind: Kind;
  readonly quantity: string;
  readonly units: string;
  readonly dimension: string;
  readonly scale: Scale;
  readonly alpha: number | null;
  readonly intervalLevel: number;
  readonly columns: readonly Column[];
  readonly panels: readonly Panel[];
  readonly progress: Progress | null;
}
