/** Names, places and cells of heads. A name such as `L3H10` has the model's layer and head numbers. */

import type { Shape } from "./payload";

/** Row and column of a head in the grid. */
export interface HeadPlace {
  readonly layer: number;
  readonly head: number;
}

export function layerNumber(layer: number, { layerNumbers }: Shape): number {
  return layerNumbers?.[layer] ?? layer;
}

export function headNumber(head: number, { headNumbers }: Shape): number {
  return headNumbers?.[head] ?? head;
}

export function headName({ layer, head }: HeadPlace, shape: Shape): string {
  return `L${layerNumber(layer, shape)}H${headNumber(head, shape)}`;
}

/** The place of a named head, or null if the grid does not have it. */
export function headPlace(name: string, shape: Shape): HeadPlace | null {
  const found = /^L(\d{1,4})H(\d{1,4})$/.exec(name.trim());
  if (!found) return null;
  const layer = row(Number(found[1]), shape.layers, shape.layerNumbers);
  const head = row(Number(found[2]), shape.heads, shape.headNumbers);
  return layer === null || head === null ? null : { layer, head };
}

/** The index of a number among the grid's layers or heads, or null. */
function row(number: number, size: number, numbers: Shape["layerNumbers"]): number | null {
  const place = numbers ? numbers.indexOf(number) : number;
  return place >= 0 && place < size ? place : null;
}

export function cellOf(place: HeadPlace, shape: Shape): number {
  return place.layer * shape.heads + place.head;
}

export function placeOf(cell: number, shape: Shape): HeadPlace {
  return { layer: Math.floor(cell / shape.heads), head: cell % shape.heads };
}

/** The names of cells, in the grid's order. */
export function namesOf(cells: Iterable<number>, shape: Shape): string[] {
  return [...cells].sort((a, b) => a - b).map((cell) => headName(placeOf(cell, shape), shape));
}

/** The cells of the given names; names that the model does not have are ignored. */
export function cellsOf(names: readonly unknown[], shape: Shape): Set<number> {
  const places = names.map((name) => (typeof name === "string" ? headPlace(name, shape) : null));
  return new Set(places.filter((place) => place !== null).map((place) => cellOf(place, shape)));
}

/** Whether every cell is the same head in both grids. */
export function sameHeads(one: Shape, other: Shape): boolean {
  const own = ({ layers, heads, layerNumbers, headNumbers }: Shape) =>
    JSON.stringify([layers, heads, layerNumbers ?? null, headNumbers ?? null]);
  return own(one) === own(other);
}
