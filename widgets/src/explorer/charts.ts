/** Small SVG charts of the explorer. */

import { scaleLinear } from "d3-scale";
import { number, short } from "../grid/words";
import { shape } from "../view/dom";

export interface Bar {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** The bars of a histogram in a box: as wide as their bins, with heights relative to the largest count. */
export function bars(
  counts: readonly number[],
  edges: readonly number[],
  width: number,
  height: number,
): Bar[] {
  const x = scaleLinear([edges[0] ?? 0, edges.at(-1) ?? 1], [0, width]);
  const y = scaleLinear([0, Math.max(1, ...counts)], [0, height]);
  return counts.map((count, bin) => {
    const left = x(edges[bin] ?? 0);
    return {
      x: left,
      y: height - y(count),
      width: x(edges[bin + 1] ?? 0) - left,
      height: y(count),
    };
  });
}

const WIDTH = 340;
const HEIGHT = 90;
const BELOW = 30;

export function histogram(counts: readonly number[], edges: readonly number[], label: string): SVGElement {
  const svg = shape("svg", {
    width: WIDTH,
    height: HEIGHT + BELOW,
    viewBox: `-8 0 ${WIDTH + 16} ${HEIGHT + BELOW}`,
    role: "img",
    "aria-label": label,
    class: "histogram",
  });
  bars(counts, edges, WIDTH, HEIGHT).forEach((bar, bin) => {
    const drawn = shape("rect", {
      x: bar.x + 0.5,
      y: bar.y,
      width: Math.max(bar.width - 1, 1),
      height: bar.height,
    });
    const [low, high] = [edges[bin] ?? 0, edges[bin + 1] ?? 0];
    const count = counts[bin] ?? 0;
    const samples = `${count} sample${count === 1 ? "" : "s"}`;
    drawn.append(shape("title", {}, `${samples} with a score from ${number(low)} to ${number(high)}`));
    svg.append(drawn);
  });
  const x = scaleLinear([edges[0] ?? 0, edges.at(-1) ?? 1], [0, WIDTH]);
  svg.append(shape("line", { x1: 0, x2: WIDTH, y1: HEIGHT + 0.5, y2: HEIGHT + 0.5, class: "axis" }));
  for (const tick of x.ticks(4)) {
    svg.append(shape("line", { x1: x(tick), x2: x(tick), y1: HEIGHT, y2: HEIGHT + 4, class: "axis" }));
    svg.append(shape("text", { x: x(tick), y: HEIGHT + 16 }, short(tick)));
  }
  if ((edges[0] ?? 0) < 0 && (edges.at(-1) ?? 0) > 0) {
    svg.append(shape("line", { x1: x(0), x2: x(0), y1: 0, y2: HEIGHT, class: "zero" }));
  }
  return svg;
}

/** A change with its interval on an axis around zero, and the changes by control heads as small circles. */
export function intervalChart(
  change: number,
  low: number | null,
  high: number | null,
  controls: readonly number[],
  reach: number,
): SVGElement {
  const [width, height] = [220, 22];
  const x = scaleLinear([-reach, reach], [6, width - 6]);
  const middle = height / 2;
  const svg = shape("svg", { width, height, "aria-hidden": "true", class: "interval" });
  svg.append(shape("line", { x1: x(0), x2: x(0), y1: 2, y2: height - 2, class: "zero" }));
  for (const control of controls)
    svg.append(shape("circle", { cx: x(control), cy: middle, r: 2.5, class: "control" }));
  if (low !== null && high !== null) {
    svg.append(shape("line", { x1: x(low), x2: x(high), y1: middle, y2: middle, class: "reach" }));
  }
  svg.append(shape("circle", { cx: x(change), cy: middle, r: 4, class: change > 0 ? "rise" : "fall" }));
  return svg;
}
