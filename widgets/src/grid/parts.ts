/** Parts of a picture, besides its heads, that explain themselves: colour bar, layer means and histogram bins. */

import { layerNumber } from "./heads";
import {
  type Box,
  cellY,
  DISTRIBUTION_HEIGHT,
  distributionTop,
  LEFT,
  layerAt,
  PROFILE_GAP,
  PROFILE_WIDTH,
} from "./layout";
import { BAR, BAR_AXIS } from "./legend";
import { isUnscored } from "./payload";
import type { Look, Picture } from "./picture";
import { joined, layerMeans } from "./statistics";
import { measured, number } from "./words";

export interface Part {
  readonly box: Box;
  /** The box with its axis, which a tooltip should not cover. */
  readonly free: Box;
  readonly at: "bar" | "mean" | "bin";
  readonly lines: readonly string[];
}

/** The part at a point of the picture, or null. */
export function partAt(found: Picture, x: number, y: number): Part | null {
  if (isUnscored(found.shown.payload)) return null;
  for (const [index, look] of found.looks.entries()) {
    const origin = found.layout.legendOrigins[index] ?? { x: LEFT, y: 0 };
    const part = colourAt(look, x - origin.x, y - origin.y);
    if (part) return shifted(part, origin);
  }
  for (const [panel, origin] of found.layout.origins.entries()) {
    const [across, down] = [x - origin.x, y - origin.y];
    const part = meanAt(found, panel, across, down) ?? binAt(found, panel, across, down);
    if (part) return shifted(part, origin);
  }
  return null;
}

function colourAt({ part: shown, colours }: Look, x: number, y: number): Part | null {
  if (x < 0 || x > BAR.width || y < BAR.y || y > BAR.y + BAR.height) return null;
  const { low, high } = colours.ends;
  const value = low + (x / BAR.width) * (high - low);
  const box = { x: x - 1, y: BAR.y, width: 2, height: BAR.height };
  const free = { ...box, height: BAR.height + BAR_AXIS };
  if (shown.view.spread !== "linear") return { box, free, at: "bar", lines: [number(value, 2)] };
  const present = joined(shown.panels).filter(Number.isFinite);
  const beyond = present.filter((one) => (value < 0 ? one <= value : one >= value)).length;
  const counted = `${beyond} of ${present.length} heads have ${value < 0 ? "at most" : "at least"} this value`;
  return { box, free, at: "bar", lines: [measured(value, shown.payload.units, 3), counted] };
}

function meanAt({ layout, shown }: Picture, panel: number, x: number, y: number): Part | null {
  const left = layout.gridWidth + PROFILE_GAP;
  const layer = layerAt(layout, y);
  if (layer === null || x < left || x > left + PROFILE_WIDTH) return null;
  const values = shown.panels[panel]?.values.subarray(layer * layout.heads, (layer + 1) * layout.heads);
  const [mean = Number.NaN] = layerMeans(values ?? new Float64Array(), { ...layout, layers: 1 });
  const heads = values?.filter(Number.isFinite).length ?? 0;
  const words = heads
    ? `${measured(mean, shown.payload.units, 3)}, mean of ${heads} head${heads === 1 ? "" : "s"}`
    : "no softmax heads";
  const height = layout.cellHeight - layout.gap;
  const box = { x: left, y: cellY(layout, layer), width: PROFILE_WIDTH, height };
  return { box, free: box, at: "mean", lines: [`layer ${layerNumber(layer, layout)}`, words] };
}

function binAt({ layout, shown, histograms }: Picture, panel: number, x: number, y: number): Part | null {
  const histogram = histograms[panel];
  const top = distributionTop(layout);
  const extent = layout.gridWidth - layout.gap;
  if (!histogram || x < 0 || x >= extent || y < top || y > top + DISTRIBUTION_HEIGHT) return null;
  const { counts, domain } = histogram;
  const [width, step] = [extent / counts.length, (domain.high - domain.low) / counts.length];
  const bin = Math.floor(x / width);
  const count = counts[bin] ?? 0;
  const [low, high] = [domain.low + bin * step, domain.low + (bin + 1) * step];
  const box = { x: bin * width, y: top, width, height: DISTRIBUTION_HEIGHT };
  const lines = [
    `${count} head${count === 1 ? "" : "s"}`,
    `${number(low)} to ${measured(high, shown.payload.units, 3)}`,
  ];
  return { box, free: box, at: "bin", lines };
}

function shifted(part: Part, by: Pick<Box, "x" | "y">): Part {
  return { ...part, box: moved(part.box, by), free: moved(part.free, by) };
}

function moved(box: Box, { x, y }: Pick<Box, "x" | "y">): Box {
  return { ...box, x: box.x + x, y: box.y + y };
}
