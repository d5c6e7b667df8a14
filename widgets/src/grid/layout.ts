/**
 * Layout of a picture in CSS pixels: arithmetic without drawing.
 *
 * Layer 0 is the top row and head 0 the left column. Heads that share a key/value head form a group; a gap separates
 * neighbouring groups. Sizes follow `headnb/display/geometry.py`; cells shrink or grow with the available width.
 */

import type { Shape } from "./payload";

export const PROFILE_WIDTH = 46;
export const PROFILE_GAP = 10;
const LEGEND_HEIGHT = 52;
const LEGEND_WIDTH = 400;
export const DISTRIBUTION_HEIGHT = 36;
/** Height of the head numbers below the grid. */
export const AXIS_HEIGHT = 17;
const DISTRIBUTION_ROOM = 90;
export const LEFT = 40;
const RIGHT = 8;
const AROUND = LEFT + PROFILE_GAP + PROFILE_WIDTH + RIGHT; // width of a panel without its cells
const BOTTOM = 34;
export const PANEL_GAP = 10;
const LEAST_CELL = 3;
const GROUP_GAP = 4;
const LEAST_WIDTH = 430;
const MOST_GROWTH = { one: 1.4, several: 2 };
const BESIDE_ONE = 270; // for the text beside a single panel
const ROW_LABEL = 15;
const COLUMN_LABEL = 24;

export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Box extends Point {
  readonly width: number;
  readonly height: number;
}

export interface Layout extends Shape {
  readonly panels: number;
  /** Neighbouring heads that share a key/value head. */
  readonly group: number;
  readonly cellWidth: number;
  readonly cellHeight: number;
  readonly groupGap: number;
  /** Space between cells; 0 if the cells are too small. */
  readonly gap: number;
  readonly gridWidth: number;
  readonly gridHeight: number;
  readonly panelWidth: number;
  readonly panelHeight: number;
  readonly columns: number;
  readonly width: number;
  readonly height: number;
  readonly titled: boolean;
  readonly distribution: boolean;
  readonly legendHeight: number;
  /** Top left corner of each legend. */
  readonly legendOrigins: readonly Point[];
  /** Top left corner of each panel's cells. */
  readonly origins: readonly Point[];
}

export interface LayoutOptions {
  readonly panels: number;
  /** Number of legends: of kinds of values. Default: 1. */
  readonly legends?: number;
  readonly width: number;
  readonly titled: boolean;
  readonly groups: boolean;
  readonly distribution: boolean;
}

/** The layout with cells as large as the width allows, within limits that suit a notebook, but at least 3 pixels. */
export function arrange(shape: Shape, options: LayoutOptions): Layout {
  const { layers, heads, kvHeads } = shape;
  const { panels, titled, distribution } = options;
  const group = heads / kvHeads;
  const grouped = options.groups && group > 1 && group < heads;
  const { cellWidth, cellHeight } = grown(cellSize(shape, options), shape, options);
  const groupGap = !grouped ? 0 : kvHeads > 32 ? 1 : cellWidth >= 7 ? GROUP_GAP : 2;
  const gridWidth = heads * cellWidth + Math.floor((heads - 1) / group) * groupGap;
  const gridHeight = layers * cellHeight;
  const panelWidth = gridWidth + AROUND;
  const top = (titled ? 20 : 2) + (groupGap ? 20 : 14);
  const panelHeight = top + gridHeight + BOTTOM + (distribution ? DISTRIBUTION_ROOM : 0);
  const room = Math.max(options.width, panelWidth);
  const columns = columnsIn(room, panelWidth, panels);
  const width = Math.max(columns * (panelWidth + PANEL_GAP) - PANEL_GAP, Math.min(LEAST_WIDTH, room));
  const { legends = 1 } = options;
  const beside = LEFT + legends * LEGEND_WIDTH <= width;
  const legendHeight = LEGEND_HEIGHT * (beside ? 1 : legends);
  const legendOrigins = Array.from({ length: legends }, (_, index) =>
    beside ? { x: LEFT + index * LEGEND_WIDTH, y: 0 } : { x: LEFT, y: index * LEGEND_HEIGHT },
  );
  const origins = Array.from({ length: panels }, (_, index) => ({
    x: LEFT + (index % columns) * (panelWidth + PANEL_GAP),
    y: legendHeight + Math.floor(index / columns) * panelHeight + top,
  }));
  return {
    ...shape,
    ...{ panels, group, cellWidth, cellHeight, groupGap, gridWidth, gridHeight, panelWidth, panelHeight },
    ...{ columns, titled, distribution, width, legendHeight, legendOrigins, origins },
    gap: Math.min(cellWidth, cellHeight) >= 7 ? 1 : 0,
    height: legendHeight + Math.ceil(panels / columns) * panelHeight,
  };
}

interface CellSize {
  readonly cellWidth: number;
  readonly cellHeight: number;
}

function columnsIn(room: number, panelWidth: number, panels: number): number {
  return Math.max(1, Math.min(panels, Math.floor((room + PANEL_GAP) / (panelWidth + PANEL_GAP))));
}

/** Cells enlarged so that the panels fill the width, in as many columns as they had before. */
function grown(
  { cellWidth, cellHeight }: CellSize,
  shape: Shape,
  { panels, width }: LayoutOptions,
): CellSize {
  const gaps = GROUP_GAP * (shape.kvHeads - 1);
  const columns = columnsIn(width, shape.heads * cellWidth + gaps + AROUND, panels);
  const room = (width + PANEL_GAP) / columns - PANEL_GAP - AROUND - gaps - (panels > 1 ? 0 : BESIDE_ONE);
  const most = panels > 1 ? MOST_GROWTH.several : MOST_GROWTH.one;
  const growth = Math.min(Math.max(room / (shape.heads * cellWidth), 1), most);
  return { cellWidth: Math.floor(growth * cellWidth), cellHeight: Math.floor(growth * cellHeight) };
}

function cellSize({ layers, heads }: Shape, { panels, width }: LayoutOptions): CellSize {
  const large = Math.max(layers, heads) > 64;
  const [tall, wide] = panels > 1 ? (large ? [380, 400] : [300, 186]) : large ? [640, 660] : [420, 420];
  const room = width - AROUND;
  const height = Math.min(Math.max(Math.floor(tall / layers), LEAST_CELL), 26);
  const usual = Math.min(Math.max(Math.floor(wide / heads), LEAST_CELL), 2 * height, 30);
  const cellWidth = Math.max(Math.min(usual, Math.floor(room / heads) - 1), LEAST_CELL);
  return { cellWidth, cellHeight: Math.min(height, 2 * cellWidth) };
}

/** Left edge of a head's cells, relative to the grid's left edge. */
export function cellX(layout: Layout, head: number): number {
  return head * layout.cellWidth + Math.floor(head / layout.group) * layout.groupGap;
}

/** Top edge of a layer's cells, relative to the grid's top edge. */
export function cellY(layout: Layout, layer: number): number {
  return layer * layout.cellHeight;
}

/** The head whose column (with the gap after it) contains `x`, relative to the grid's left edge; null outside. */
export function headAt(layout: Layout, x: number): number | null {
  if (x < 0 || x >= layout.gridWidth) return null;
  const groupWidth = layout.group * layout.cellWidth + layout.groupGap;
  const group = Math.floor(x / groupWidth);
  const within = Math.min(Math.floor((x - group * groupWidth) / layout.cellWidth), layout.group - 1);
  return group * layout.group + within;
}

export function layerAt(layout: Layout, y: number): number | null {
  return y < 0 || y >= layout.gridHeight ? null : Math.floor(y / layout.cellHeight);
}

export function layerTicks(layout: Layout): number[] {
  return every(tickStep(layout.cellHeight, ROW_LABEL), layout.layers);
}

export function headTicks(layout: Layout): number[] {
  return every(tickStep(layout.cellWidth, layout.heads > 10 ? COLUMN_LABEL : 10), layout.heads);
}

/** Top edge of a panel's distribution, relative to the grid's top edge. */
export function distributionTop(layout: Layout): number {
  return layout.gridHeight + BOTTOM + 20;
}

function every(step: number, end: number): number[] {
  return Array.from({ length: Math.ceil(end / step) }, (_, index) => index * step);
}

/** The smallest number of cells out of 1, 2, 5, 10, 20, 50, ... that has room for a label. */
function tickStep(cell: number, label: number): number {
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];
  return steps.find((step) => step * cell >= label) ?? 5000;
}
