/** Curves of the losses and exact matches of a training above the grid, with the steps that can be chosen. */

import { FALL, RISE } from "./colours";
import { coursesOf, stepOf } from "./courses";
import { type LineChart, lineChart, valueAt } from "./line-chart";
import type { Payload } from "./payload";
import type { Theme } from "./scene";
import { number } from "./words";

const COLOURS = [RISE, FALL, "#06b371", "#d89505", "#7f57e9", "#c3519b"];
const WIDEST = 720;
const HEIGHT = 150;

/** Whether the payload has loss curves and steps to choose on them. */
export function hasLosses(payload: Payload): boolean {
  return payload.curves.length > 0 && coursesOf(payload).steps.length > 0;
}

/** The chart with the step of the panel in front. */
export function lossChart(payload: Payload, front: number, theme: Theme, room: number): LineChart {
  const curves = payload.curves.slice(0, COLOURS.length + 1);
  const lines = curves.map((curve, i) => ({
    ...curve,
    colour: i === 0 ? theme.ink : (COLOURS[i - 1] ?? ""),
  }));
  const units = [...new Set(curves.map((curve) => curve.units))].filter(Boolean).join(", ");
  const matches = units && curves.some((curve) => !curve.units) ? ", exact match" : "";
  const step = stepOf(payload, front);
  return lineChart(
    lines,
    {
      xLabel: "training step",
      yLabel: units ? `loss (${units})${matches}` : "loss",
      width: Math.min(room, WIDEST),
      height: HEIGHT,
      marked: step,
      markLabel: `step ${step}`,
      stops: coursesOf(payload).steps,
      fromZero: false,
    },
    theme,
  );
}

/** `step 8, training loss 1.23 nats, loss on gsm8k 1.11 nats`. */
export function lossWords({ curves }: Payload, step: number): string {
  const words = curves.flatMap((curve) => {
    const value = valueAt(curve, step);
    return Number.isNaN(value) ? [] : [`${curve.label} ${number(value)} ${curve.units}`.trimEnd()];
  });
  return [`step ${step}`, ...words].join(", ");
}
