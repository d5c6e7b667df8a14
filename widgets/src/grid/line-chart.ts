/** A line chart with axes, as a scene: loss curves, and the course of one head over the steps. */

import { bisector, bisectRight } from "d3-array";
import { scaleLinear } from "d3-scale";
import { group, type Label, label, type Mark, type Scene, strokes, type Theme } from "./scene";
import { short } from "./words";

export interface Line {
  readonly label: string;
  /** In ascending order. */
  readonly steps: readonly number[];
  readonly values: readonly number[];
  readonly colour: string;
}

export interface ChartOptions {
  readonly xLabel: string;
  readonly yLabel: string;
  readonly width: number;
  readonly height: number;
  /** Step that is marked on every line. */
  readonly marked: number;
  /** Text at the mark. */
  readonly markLabel: string;
  /** Steps that can be chosen, marked on the axis. */
  readonly stops: readonly number[];
  /** Whether the value axis includes zero. */
  readonly fromZero: boolean;
}

export interface LineChart {
  readonly scene: Scene;
  /** Position of a step in the scene. */
  readonly x: (step: number) => number;
}

const LEFT = 56;
const RIGHT = 16;
const TOP = 20;
const BOTTOM = 34;
const TICK_ROOM = 70;

export function lineChart(lines: readonly Line[], options: ChartOptions, theme: Theme): LineChart {
  const { width, height, stops, marked } = options;
  const [wide, tall] = [width - LEFT - RIGHT, height - TOP - BOTTOM];
  const steps = [...stops, ...lines.flatMap((line) => line.steps)];
  const values = lines.flatMap((line) => line.values).filter(Number.isFinite);
  const x = scaleLinear(spread(steps, false), [0, wide]);
  const y = scaleLinear(spread(values, options.fromZero), [tall, 0]).nice(4);
  const marks = [
    ...axes(x, y, wide, tall, options, theme),
    ...lines.flatMap((line) => drawn(line, x, y)),
    strokes(theme.ink, [x(marked), 0, x(marked), tall], 1.5, 0.8),
    ...lines.flatMap((line) => disc(line, marked, x, y)),
    ...key(lines, wide, theme),
    markName(options, x(marked), wide, theme),
  ];
  return { scene: { width, height, marks: [group(LEFT, TOP, marks)] }, x: (step) => LEFT + x(step) };
}

/** The value of a line at a step, or at the last step before it; NaN before the first step. */
export function valueAt({ steps, values }: Pick<Line, "steps" | "values">, step: number): number {
  return values[bisectRight(steps, step) - 1] ?? Number.NaN;
}

/** The index of the stop (in ascending order) nearest to a position in the scene. */
export function nearestStop({ x }: Pick<LineChart, "x">, stops: readonly number[], position: number): number {
  return bisector(x).center(stops, position);
}

type Axis = ReturnType<typeof scaleLinear<number, number>>;

/** The ends of an axis, which are apart. */
function spread(values: readonly number[], fromZero: boolean): [number, number] {
  const all = fromZero ? [...values, 0] : values;
  const [low, high] = [Math.min(...all), Math.max(...all)];
  if (!Number.isFinite(low)) return [0, 1];
  return low < high ? [low, high] : [low, low + 1];
}

function axes(x: Axis, y: Axis, wide: number, tall: number, options: ChartOptions, theme: Theme): Mark[] {
  const marks: Mark[] = [strokes(theme.ink, [0, 0, 0, tall, 0, tall, wide, tall], 1, 0.5)];
  for (const tick of x.ticks(Math.max(2, Math.floor(wide / TICK_ROOM))).filter(Number.isInteger)) {
    marks.push(strokes(theme.ink, [x(tick), tall, x(tick), tall + 4], 1, 0.6));
    marks.push(label(theme, short(tick), x(tick), tall + 15, { anchor: "middle" }));
  }
  for (const tick of y.ticks(3)) {
    marks.push(strokes(theme.ink, [-4, y(tick), 0, y(tick)], 1, 0.6));
    marks.push(strokes(theme.ink, [0, y(tick), wide, y(tick)], 1, 0.1));
    marks.push(label(theme, short(tick), -7, y(tick) + 3.5, { anchor: "end" }));
  }
  const stops = options.stops.flatMap((stop) => [x(stop), tall, x(stop), tall - 5]);
  if (stops.length) marks.push(strokes(theme.ink, stops, 1.5, 0.8));
  marks.push(label(theme, options.xLabel, wide / 2, tall + 29, { anchor: "middle" }));
  marks.push(label(theme, options.yLabel, -44, tall / 2, { anchor: "middle", upwards: true }));
  return marks;
}

function drawn({ steps, values, colour }: Line, x: Axis, y: Axis): Mark[] {
  const ends: number[] = [];
  values.forEach((value, i) => {
    const [before, at, from] = [values[i - 1], steps[i], steps[i - 1]];
    if (before === undefined || at === undefined || from === undefined) return;
    if (Number.isFinite(before) && Number.isFinite(value)) ends.push(x(from), y(before), x(at), y(value));
  });
  return ends.length ? [strokes(colour, ends, 1.5)] : [];
}

function disc(line: Line, step: number, x: Axis, y: Axis): Mark[] {
  const value = valueAt(line, step);
  if (Number.isNaN(value)) return [];
  return [{ mark: "discs", centres: [x(step), y(value)], radius: 3.5, fill: line.colour }];
}

/** Names of the lines in their colours, from the right end; none for a line without a name. */
function key(lines: readonly Line[], wide: number, theme: Theme): Label[] {
  let end = wide;
  return [...lines].reverse().flatMap((line) => {
    if (!line.label) return [];
    const at = end;
    end -= 6 * line.label.length + 14;
    return [
      { ...label(theme, line.label, at, -8, { anchor: "end", bold: true, opacity: 1 }), fill: line.colour },
    ];
  });
}

function markName({ markLabel }: ChartOptions, x: number, wide: number, theme: Theme): Label {
  const anchor = x < wide / 2 ? "start" : "end";
  return label(theme, markLabel, x + (anchor === "start" ? 5 : -5), 8, { anchor, opacity: 1 });
}
