/** Small SVG charts of the explorer. */

import { scaleLinear } from "d3-scale";
import { measured, number, short } from "../grid/words";
import { element, shape } from "../view/dom";

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

/** A histogram of scores with axes; the bin under the mouse, or chosen by the arrow keys, is told below it. */
export function histogram(
  counts: readonly number[],
  edges: readonly number[],
  label: string,
  units: string,
): HTMLElement {
  const drawn = bars(counts, edges, WIDTH, HEIGHT).map((bar) =>
    shape("rect", { x: bar.x + 0.5, y: bar.y, width: Math.max(bar.width - 1, 1), height: bar.height }),
  );
  const readout = element("div", { class: "bin-line", role: "status" });
  const words = `${label}. Arrow keys move between the bins.`;
  const chart = element("div", { class: "histogram", role: "group", tabindex: "0", "aria-label": words });
  let chosen: number | null = null;
  const choose = (bin: number | null) => {
    chosen = bin;
    drawn.forEach((bar, index) => {
      bar.classList.toggle("chosen", index === bin);
    });
    readout.textContent = bin === null ? "" : binLine(counts, edges, bin, units);
  };
  const plot = shape("svg", { width: WIDTH, height: HEIGHT + 4, "aria-hidden": "true" });
  plot.append(...drawn, ...axisLines(edges));
  chart.append(plot, ...axisLabels(counts, edges, units));
  chart.addEventListener("pointermove", (event) => {
    const x = event.clientX - plot.getBoundingClientRect().left;
    const bin = Math.floor((x / WIDTH) * counts.length);
    choose(bin >= 0 && bin < counts.length ? bin : null);
  });
  chart.addEventListener("pointerleave", () => choose(null));
  chart.addEventListener("blur", () => choose(null));
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") choose(null);
    if (!step || !counts.length) return;
    choose(Math.min(Math.max((chosen ?? (step > 0 ? -1 : counts.length)) + step, 0), counts.length - 1));
    event.preventDefault();
  });
  return element("div", {}, chart, readout);
}

/** `3 samples with a score from 0.0100 to 0.0200 nats`. */
export function binLine(
  counts: readonly number[],
  edges: readonly number[],
  bin: number,
  units: string,
): string {
  const count = counts[bin] ?? 0;
  const samples = `${count} sample${count === 1 ? "" : "s"}`;
  return `${samples} with a score from ${number(edges[bin] ?? 0)} to ${measured(edges[bin + 1] ?? 0, units, 3)}`;
}

function axisLines(edges: readonly number[]): SVGElement[] {
  const x = valueScale(edges);
  const [low = 0, high = 1] = x.domain();
  const line = (x1: number, y1: number, x2: number, y2: number, name = "axis") =>
    shape("line", { x1, x2, y1, y2, class: name });
  return [
    line(0, HEIGHT + 0.5, WIDTH, HEIGHT + 0.5),
    ...x.ticks(4).map((tick) => line(x(tick), HEIGHT, x(tick), HEIGHT + 4)),
    ...(low < 0 && high > 0 ? [line(x(0), 0, x(0), HEIGHT, "zero")] : []),
  ];
}

/** Labels as text of the page, which follows the reader's font size and contrast. */
function axisLabels(counts: readonly number[], edges: readonly number[], units: string): Node[] {
  const x = valueScale(edges);
  const placed = (words: string, name: string, left: number, top: number) => {
    const label = element("span", { class: name }, words);
    label.style.left = `${left}px`;
    label.style.top = `${top}px`;
    return label;
  };
  return [
    placed("number of samples", "start", 0, -17),
    placed(String(Math.max(1, ...counts)), "amount", -6, 0),
    placed("0", "amount", -6, HEIGHT),
    ...x.ticks(4).map((tick) => placed(short(tick), "tick", x(tick), HEIGHT + 5)),
    placed(units ? `score (${units})` : "score", "start", 0, HEIGHT + 20),
  ];
}

function valueScale(edges: readonly number[]) {
  return scaleLinear([edges[0] ?? 0, edges.at(-1) ?? 1], [0, WIDTH]);
}

/** A change with its interval on an axis around zero, and the changes by control heads as small circles. */
export function intervalChart(
  change: number,
  low: number | null,
  high: number | null,
  controls: readonly number[],
  reach: number,
): SVGElement {
  const [width, height] = [180, 22];
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
