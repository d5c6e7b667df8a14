/** Heads by name and by place. A head is written `L3H10`. */

import type { Shape } from "./payload";

export interface HeadPlace {
  readonly layer: number;
  readonly head: number;
}

export function headName({ layer, head }: HeadPlace): string {
  return `L${layer}H${head}`;
}

/** The place that a name stands for, or null where the model has no such head. */
export function headPlace(name: string, shape: Shape): HeadPlace | null {
  const found = /^L(\d{1,4})H(\d{1,4})$/.exec(name.trim());
  if (!found) return null;
  const place = { layer: Number(found[1]), head: Number(found[2]) };
  return place.layer < shape.layers && place.head < shape.heads ? place : null;
}

export function cellOf(place: HeadPlace, shape: Shape): number {
  return place.layer * shape.heads + place.head;
}

export function placeOf(cell: number, shape: Shape): HeadPlace {
  return { layer: Math.floor(cell / shape.heads), head: cell % shape.heads };
}

/** `L3H5,L7H1`, in the grid's order. */
export function namesOf(cells: Iterable<number>, shape: Shape): string[] {
  return [...cells].sort((a, b) => a - b).map((cell) => headName(placeOf(cell, shape)));
}

/** The cells of those names that the model has. */
export function cellsOf(names: readonly unknown[], shape: Shape): Set<number> {
  const places = names.map((name) => (typeof name === "string" ? headPlace(name, shape) : null));
  return new Set(places.filter((place) => place !== null).map((place) => cellOf(place, shape)));
}
