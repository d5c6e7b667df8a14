/**
 * Validated payload of a head grid; its JSON form is `headnb/display/pattern.schema.json`.
 *
 * Matrices are flat, layer after layer, with NaN where the JSON has null. The index of a head in them is its cell,
 * `layer * heads + head`.
 */

import type { Kind } from "../generated/given";

export type { Kind };

export const MIME_TYPE = "application/vnd.headnb.pattern.v1+json";

/** Ends of the colour scale, shared by all panels that have no scale of their own. */
export interface Scale {
  readonly low: number;
  readonly high: number;
}

/** A loss along training: `values` at `steps`, in ascending order. */
export interface Curve {
  readonly label: string;
  readonly units: string;
  readonly steps: readonly number[];
  readonly values: readonly number[];
}

/** Kind, scale, quantity and units of a panel that differ from those of its payload. */
export interface Own {
  readonly kind: Kind;
  readonly scale: Scale;
  readonly quantity: string;
  readonly units: string;
}

/** A column of the table that compares panels. */
export interface Column {
  readonly label: string;
  readonly help: string;
}

/** One grid, such as a task, a stage or a step. */
export interface Panel {
  readonly title: string;
  /** Training step; null for a panel without one. */
  readonly step: number | null;
  /** Subject that the panels show at several steps: a task. */
  readonly course: string;
  readonly values: Float64Array;
  readonly low: Float64Array | null;
  readonly high: Float64Array | null;
  readonly significant: Float64Array | null;
  /** Q-values of the tests. */
  readonly q: Float64Array | null;
  /** Difference from the first step of the course; null if it is not known. */
  readonly change: Panel | null;
  readonly own: Own | null;
  /** The statistics as text: `Gini 0.34 [0.32, 0.36] · CV 0.62`. */
  readonly statisticsLine: string;
  /** The reliability of the panel as text. */
  readonly reliabilityLine: string;
  /** The panel's row in the table that compares panels, with an entry for each of the payload's `columns`. */
  readonly cells: readonly string[];
  readonly notes: readonly string[];
}

/** A role of heads, such as induction, and the heads that have it. */
export interface Role {
  readonly name: string;
  /** The heads of the role have larger scores than this. */
  readonly threshold: number;
  /** The role score of each head of the role, by its cell. */
  readonly scores: ReadonlyMap<number, number>;
}

export interface Progress {
  readonly done: number;
  readonly total: number;
  readonly unit: string;
  readonly message: string;
}

/** Numbers of layers, heads, and key/value heads, each of which neighbouring heads share. */
export interface Shape {
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  /** The model's layer and head numbers, if the grid is a selection. */
  readonly layerNumbers?: readonly number[] | null;
  readonly headNumbers?: readonly number[] | null;
}

/** Whether the grid has no scores yet; its values are then 0 for each existing head. */
export function isUnscored({ progress, panels }: Pick<Payload, "progress" | "panels">): boolean {
  return progress?.done === 0 && panels.every(({ values }) => values.every((value) => !value));
}

/** Whether a panel of a running computation has no values yet, as opposed to layers without softmax heads. */
export function isWaiting(panel: Panel, { progress, panels }: Pick<Payload, "progress" | "panels">): boolean {
  return progress !== null && panels.length > 1 && panel.values.every(Number.isNaN);
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
  readonly curves: readonly Curve[];
  readonly alpha: number | null;
  readonly intervalLevel: number;
  readonly columns: readonly Column[];
  readonly panels: readonly Panel[];
  readonly roles: readonly Role[];
  readonly progress: Progress | null;
}
