/** Hit test: the part of a picture at a point. */

import { type HeadPlace, placeOf } from "./heads";
import {
  AXIS_HEIGHT,
  cellX,
  DISTRIBUTION_HEIGHT,
  distributionTop,
  headAt,
  type Layout,
  layerAt,
  PANEL_GAP,
} from "./layout";

/**
 * A head, a layer (by its number or bar), a head of all layers (by its number), a key/value group (by its bracket) or the
 * distribution of a panel; `cells` is empty for the distribution.
 */
export interface Hit {
  readonly panel: number;
  readonly at: "head" | "layer" | "column" | "group" | "distribution";
  readonly cells: readonly number[];
  /** Pixels from the left edge of the grid. */
  readonly x: number;
}

const BRACKET_TOP = -20;

export function hitTest(layout: Layout, x: number, y: number): Hit | null {
  const panel = panelAt(layout, x, y);
  const origin = panel === null ? undefined : layout.origins[panel];
  if (panel === null || !origin) return null;
  const layer = layerAt(layout, y - origin.y);
  const head = headAt(layout, x - origin.x);
  const within = { panel, x: x - origin.x };
  if (layer !== null && head !== null) return { ...within, at: "head", cells: [layer * layout.heads + head] };
  if (layer !== null) return { ...within, at: "layer", cells: row(layout, layer) };
  if (head === null) return null;
  const below = y - origin.y;
  if (layout.groupGap && below < 0 && below >= BRACKET_TOP) {
    return { ...within, at: "group", cells: groupCells(layout, head) };
  }
  if (below < layout.gridHeight) return null;
  if (below < layout.gridHeight + AXIS_HEIGHT)
    return { ...within, at: "column", cells: column(layout, head) };
  const bars = below - distributionTop(layout);
  if (layout.distribution && bars >= 0 && bars <= DISTRIBUTION_HEIGHT) {
    return { ...within, at: "distribution", cells: [] };
  }
  return null;
}

/** The box of a cell (x, y, width, height), relative to the picture's top left corner. */
export function cellBox(
  layout: Layout,
  panel: number,
  cell: number,
): readonly [number, number, number, number] {
  const { layer, head } = placeOf(cell, layout);
  const origin = layout.origins[panel] ?? { x: 0, y: 0 };
  const width = layout.cellWidth - layout.gap;
  return [
    origin.x + cellX(layout, head),
    origin.y + layer * layout.cellHeight,
    width,
    layout.cellHeight - layout.gap,
  ];
}

/** All cells of the rectangle with two heads at opposite corners. */
export function rectangle(layout: Pick<Layout, "heads">, from: HeadPlace, to: HeadPlace): number[] {
  const cells: number[] = [];
  for (let layer = Math.min(from.layer, to.layer); layer <= Math.max(from.layer, to.layer); layer++) {
    for (let head = Math.min(from.head, to.head); head <= Math.max(from.head, to.head); head++) {
      cells.push(layer * layout.heads + head);
    }
  }
  return cells;
}

function panelAt(layout: Layout, x: number, y: number): number | null {
  const column = layout.columns > 1 ? Math.floor(x / (layout.panelWidth + PANEL_GAP)) : 0;
  const row = Math.floor((y - layout.legendHeight) / layout.panelHeight);
  const panel = row * layout.columns + column;
  return x >= 0 && row >= 0 && column < layout.columns && panel < layout.panels ? panel : null;
}

/** All heads with the same number, one in each layer. */
export function column({ layers, heads }: Pick<Layout, "layers" | "heads">, head: number): number[] {
  return Array.from({ length: layers }, (_, layer) => layer * heads + head);
}

/** All heads of a layer. */
export function row(layout: Pick<Layout, "heads">, layer: number): number[] {
  return Array.from({ length: layout.heads }, (_, head) => layer * layout.heads + head);
}

function groupCells(layout: Layout, head: number): number[] {
  const first = Math.floor(head / layout.group) * layout.group;
  return Array.from({ length: layout.layers }, (_, layer) =>
    Array.from({ length: layout.group }, (_, i) => layer * layout.heads + first + i),
  ).flat();
}
