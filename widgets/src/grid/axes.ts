/** Elements around a panel's cells: title, axes, brackets of the key/value heads, and layer means. */

import { headNumber, layerNumber } from "./heads";
import { cellX, cellY, headTicks, type Layout, layerTicks, PROFILE_GAP, PROFILE_WIDTH } from "./layout";
import type { Panel } from "./payload";
import { fitting, label, type Mark, rects, sides, strokes, type Theme } from "./scene";
import type { Shown } from "./view";
import { number } from "./words";

export function axes({ payload }: Shown, panel: Panel, layout: Layout, theme: Theme, first: boolean): Mark[] {
  const { gridWidth, gridHeight, gap, cellWidth, cellHeight } = layout;
  const marks: Mark[] = [];
  if (layout.titled) {
    const title = fitting(panel.title, layout.panelWidth - 40, 12);
    marks.push(label(theme, title, 0, layout.groupGap ? -28 : -20, { size: 12, bold: true }));
  }
  if (payload.kind !== "level") marks.push(frame(layout, theme));
  if (layout.groupGap) {
    marks.push(brackets(layout, theme));
    if (first) marks.push(label(theme, "key/value heads", 0, -11, { size: 9 }));
  }
  for (const layer of layerTicks(layout)) {
    marks.push(
      label(theme, String(layerNumber(layer, layout)), -5, cellY(layout, layer) + cellHeight / 2 + 3.5, {
        anchor: "end",
      }),
    );
  }
  for (const head of headTicks(layout)) {
    const middle = cellX(layout, head) + (cellWidth - gap) / 2;
    marks.push(label(theme, String(headNumber(head, layout)), middle, gridHeight + 13, { anchor: "middle" }));
  }
  marks.push(label(theme, "head", gridWidth / 2, gridHeight + 28, { anchor: "middle", size: 11 }));
  if (first) {
    marks.push(label(theme, "layer", -27, gridHeight / 2, { anchor: "middle", size: 11, upwards: true }));
  }
  return marks;
}

/** One bar per layer for the mean of its heads; all panels have the same scale. */
export function profile(
  shown: Shown,
  means: Float64Array,
  longest: number,
  layout: Layout,
  theme: Theme,
): Mark[] {
  const left = layout.gridWidth + PROFILE_GAP;
  const signed = shown.payload.kind !== "level";
  const zero = signed ? left + PROFILE_WIDTH / 2 : left;
  const reach = PROFILE_WIDTH / (signed ? 2 : 1) / longest;
  const thickness = Math.max(layout.cellHeight - layout.gap - (layout.cellHeight >= 9 ? 2 : 0), 1);
  const boxes: number[] = [];
  means.forEach((mean, layer) => {
    if (Number.isNaN(mean)) return;
    const top = cellY(layout, layer) + (layout.cellHeight - layout.gap - thickness) / 2;
    boxes.push(zero + Math.min(mean, 0) * reach, top, Math.abs(mean) * reach, thickness);
  });
  return [
    label(theme, "layer mean", left + PROFILE_WIDTH / 2, -6, { anchor: "middle", size: 9 }),
    strokes(theme.ink, [zero, 0, zero, layout.gridHeight - layout.gap], 1, 0.35),
    rects(theme.ink, boxes, 0.5),
    ...meanAxis(shown, left, longest, layout, theme),
  ];
}

/** The axis of the layer means, from 0 or the negative end to the longest bar. */
function meanAxis({ payload }: Shown, left: number, longest: number, layout: Layout, theme: Theme): Mark[] {
  const [right, middle] = [left + PROFILE_WIDTH, left + PROFILE_WIDTH / 2];
  const top = layout.gridHeight - layout.gap + 0.5;
  const end = number(longest, 2);
  const small = { size: 9, anchor: "middle" } as const;
  const ends =
    payload.kind === "level"
      ? [
          label(theme, "0", left, top + 12.5, small),
          label(theme, end, right, top + 12.5, { ...small, anchor: "end" }),
        ]
      : [label(theme, `±${end}`, middle, top + 12.5, small)];
  return [
    strokes(theme.ink, [left, top, right, top, left, top, left, top + 3, right, top, right, top + 3], 1, 0.5),
    ...ends,
    ...(payload.units
      ? [label(theme, fitting(payload.units, PROFILE_WIDTH, 9), middle, top + 24, small)]
      : []),
  ];
}

/** The outline of the grid, for pictures in which cells near zero fade into the page. */
function frame({ gridWidth, gridHeight, gap }: Layout, theme: Theme): Mark {
  const ends = sides(-1.5, -1.5, gridWidth - gap + 1.5, gridHeight - gap + 1.5);
  return strokes(theme.ink, ends, 1, 0.3);
}

function brackets(layout: Layout, theme: Theme): Mark {
  const ends = Array.from({ length: layout.kvHeads }, (_, index) => {
    const last = cellX(layout, (index + 1) * layout.group - 1) + layout.cellWidth - layout.gap;
    return [cellX(layout, index * layout.group), -6, last, -6];
  });
  return strokes(theme.ink, ends.flat(), 2, 0.5);
}
