/** Overlay of a picture: the selected heads, the keyboard cursor, and the head under the mouse in all panels. */

import { selectedBars, valueAxis } from "./distribution";
import { cellBox } from "./hit";
import { DISTRIBUTION_HEIGHT, distributionTop } from "./layout";
import type { Picture } from "./picture";
import { group, type Mark, rects, type Scene, sides, strokes, type Theme } from "./scene";
import type { Selection } from "./selection";

/** `pointed`: the head under the mouse. `keyboard`: whether to show the keyboard cursor. */
export function overlay(
  found: Picture,
  theme: Theme,
  selection: Selection,
  pointed: number | null,
  keyboard: boolean,
): Scene {
  const { layout, scene } = found;
  const marks: Mark[] = [];
  layout.origins.forEach((_, panel) => {
    const outline = outlines(found, panel, selection.cells);
    if (outline.length) marks.push(strokes(theme.page, outline, 4, 0.9), strokes(theme.ink, outline, 2));
    for (const cell of [pointed, keyboard ? selection.cursor : null]) {
      if (cell === null) continue;
      marks.push(...framed(cellBox(layout, panel, cell), theme));
    }
    marks.push(...selectedPart(found, panel, theme, selection.cells));
    marks.push(...onDistribution(found, panel, theme, pointed ?? (keyboard ? selection.cursor : null)));
  });
  return { width: scene.width, height: scene.height, marks };
}

/** The edges between selected and unselected cells, so that a selected block has one outline. */
function outlines({ layout }: Picture, panel: number, cells: ReadonlySet<number>): number[] {
  const ends: number[] = [];
  for (const cell of cells) {
    const head = cell % layout.heads;
    const [x, y, width, height] = cellBox(layout, panel, cell);
    const split = layout.groupGap > 0 && head % layout.group === layout.group - 1;
    const start = layout.groupGap > 0 && head % layout.group === 0;
    const [left, top, right, bottom] = [x - 0.5, y - 0.5, x + width + 0.5, y + height + 0.5];
    if (!cells.has(cell - layout.heads)) ends.push(left, top, right, top);
    if (!cells.has(cell + layout.heads)) ends.push(left, bottom, right, bottom);
    if (start || head === 0 || !cells.has(cell - 1)) ends.push(left, top, left, bottom);
    if (split || head === layout.heads - 1 || !cells.has(cell + 1)) ends.push(right, top, right, bottom);
  }
  return ends;
}

function selectedPart(found: Picture, panel: number, theme: Theme, cells: ReadonlySet<number>): Mark[] {
  const histogram = found.histograms[panel];
  const values = found.shown.panels[panel]?.values;
  const origin = found.layout.origins[panel];
  if (!histogram || !values || !origin || !cells.size) return [];
  const bars = selectedBars(histogram, values, cells, found.layout);
  return [group(origin.x, origin.y, [rects(theme.page, bars, 1), rects(theme.ink, bars, 0.85)])];
}

function onDistribution(found: Picture, panel: number, theme: Theme, cell: number | null): Mark[] {
  const histogram = found.histograms[panel];
  const value = cell === null ? Number.NaN : (found.shown.panels[panel]?.values[cell] ?? Number.NaN);
  const origin = found.layout.origins[panel];
  if (!histogram || !origin || Number.isNaN(value)) return [];
  const x = origin.x + valueAxis(histogram.domain, found.layout)(value);
  const top = origin.y + distributionTop(found.layout);
  return [strokes(theme.ink, [x, top, x, top + DISTRIBUTION_HEIGHT], 1.5)];
}

/** A box with a frame that is visible on every colour. */
export function framed(
  [x, y, width, height]: readonly [number, number, number, number],
  theme: Theme,
): Mark[] {
  const ends = sides(x - 1, y - 1, x + width + 1, y + height + 1);
  return [strokes(theme.page, ends, 3, 0.9), strokes(theme.ink, ends, 1.5)];
}
