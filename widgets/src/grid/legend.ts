/** Colour bar with units, and the meaning of the other marks in the picture. */

import { ticks } from "d3-array";
import type { Colouring, Spread } from "./colours";
import { BINS } from "./colours";
import { isWaiting } from "./payload";
import { fitting, label, type Mark, strokes, type Theme } from "./scene";
import type { Shown } from "./view";
import { offScaleLine, quantityWithUnits, short } from "./words";

const WIDTH = 192;
const TOP = 18;
const HEIGHT = 10;

/** The colour bar, relative to the legend's top left corner, and the height of the axis below it. */
export const BAR = { x: 0, y: TOP, width: WIDTH, height: HEIGHT };
export const BAR_AXIS = 18;

export function legend(shown: Shown, theme: Theme, colours: Colouring, room: number): Mark[] {
  const { low, high } = colours.ends;
  const across = (value: number) => ((value - low) / (high - low)) * WIDTH;
  const marks: Mark[] = [label(theme, fitting(legendTitle(shown), room, 11), 0, 11, { size: 11 })];
  marks.push({
    mark: "cells",
    columns: Array.from({ length: BINS }, (_, step) => (step * WIDTH) / BINS),
    rows: [TOP],
    width: WIDTH / BINS,
    height: HEIGHT,
    places: Int16Array.from({ length: BINS }, (_, step) =>
      colours.onBar(low + ((step + 0.5) / BINS) * (high - low)),
    ),
    palette: colours.palette,
  });
  if (shown.payload.kind !== "level") marks.push(...ends(theme));
  for (const tick of ticks(low, high, 4)) {
    const x = across(tick);
    marks.push(strokes(theme.ink, [x, TOP + HEIGHT, x, TOP + HEIGHT + 4], 1, 0.6));
    marks.push(label(theme, short(tick), x, TOP + HEIGHT + 14, { anchor: "middle" }));
  }
  const keys = keysOf(shown);
  if (keys.offScale) marks.push(...tips(shown, colours));
  const lines = Object.values(keys).filter(Boolean);
  lines.forEach((key, line) => {
    const y = TOP + HEIGHT - 1 + 14 * (line - (lines.length > 1 ? 1 : 0));
    marks.push(label(theme, key, WIDTH + 18, y));
  });
  return marks;
}

function legendTitle({ payload, view }: Shown): string {
  const titles: Record<Spread, string> = {
    linear: quantityWithUnits(payload),
    rank: `${payload.quantity || "score"}: rank within the panel, 0 (smallest) to 1 (largest)`,
    layer: `${payload.quantity || "score"}: relative to the largest of the layer`,
  };
  return titles[view.spread];
}

function keysOf({ payload, panels, view }: Shown) {
  const { low, high } = payload.scale;
  const offScale = view.spread === "linear" ? offScaleLine(panels, low, high) : "";
  const alpha = payload.alpha === null ? "" : ` (q < ${short(payload.alpha)})`;
  const missing = panels.some((panel) => !isWaiting(panel, payload) && panel.values.some(Number.isNaN));
  return {
    offScale: offScale && `▸ ${offScale}`,
    significant: panels.some((panel) => panel.significant) ? `● significant${alpha}` : "",
    missing: missing ? "╱ no softmax heads" : "",
  };
}

/** The outline of a diverging colour bar, whose middle fades into the page. */
function ends(theme: Theme): Mark[] {
  const top = TOP - 0.5;
  const bottom = TOP + HEIGHT + 0.5;
  return [strokes(theme.ink, [0, top, WIDTH, top, 0, bottom, WIDTH, bottom], 1, 0.2)];
}

function tips({ payload, panels }: Shown, colours: Colouring): Mark[] {
  const { low, high } = payload.scale;
  const middle = TOP + HEIGHT / 2;
  const any = (test: (value: number) => boolean) => panels.some((panel) => panel.values.some(test));
  const tip = (value: number, corners: number[]): Mark => {
    const { colour, opacity } = colours.palette[colours.onBar(value)] ?? { colour: "", opacity: 0 };
    return { mark: "polygon", corners, fill: colour, opacity };
  };
  const marks: Mark[] = [];
  if (any((value) => value > high)) {
    marks.push(tip(high, [WIDTH + 1, TOP, WIDTH + 9, middle, WIDTH + 1, TOP + HEIGHT]));
  }
  if (any((value) => value < low)) marks.push(tip(low, [-1, TOP, -9, middle, -1, TOP + HEIGHT]));
  return marks;
}
