/** Tooltip of the head under the mouse, with its values in the other panels. */

import { coursesOf, stepOf } from "../grid/courses";
import { placeOf } from "../grid/heads";
import { lineChart } from "../grid/line-chart";
import type { Panel, Payload } from "../grid/payload";
import type { Theme } from "../grid/scene";
import { ofPanel, type Shown } from "../grid/view";
import { headLines, measured, number } from "../grid/words";
import { element, show } from "./dom";
import { paintOn } from "./paint";

const MOST_LISTED = 6;
const SPARK_WIDTH = 260;
const SPARK_HEIGHT = 120;
const AWAY = 14;

export class Tooltip {
  readonly node = element("div", { class: "tooltip", "aria-hidden": "true" });

  constructor(private readonly card: HTMLElement) {
    show(this.node, false);
  }

  hide(): void {
    show(this.node, false);
  }

  /** Explain a cell of a panel; (x, y) is in the card's own coordinates. */
  explain(
    whole: Payload,
    shown: Shown,
    panel: Panel,
    theme: Theme,
    cell: number,
    x: number,
    y: number,
  ): void {
    const place = placeOf(cell, whole);
    const lines = headLines(ofPanel(shown, panel).payload, panel, place);
    if (shown.panels.length > 1 && panel.title) lines.splice(1, 0, panel.title);
    this.node.replaceChildren(
      ...lines.map((line) => element("div", {}, line)),
      ...elsewhere(whole, shown, panel, theme, cell),
    );
    show(this.node, true);
    const left =
      x + AWAY + this.node.offsetWidth > this.card.clientWidth ? x - AWAY - this.node.offsetWidth : x + AWAY;
    this.node.style.left = `${Math.max(left, 0)}px`;
    this.node.style.top = `${Math.max(y - this.node.offsetHeight / 2, 0)}px`;
  }
}

/** The head's values in a few other panels, and its course along the steps or panels. */
function elsewhere(whole: Payload, shown: Shown, panel: Panel, theme: Theme, cell: number): Node[] {
  const { titles, courseOf, steps, panel: at } = coursesOf(whole);
  if (whole.panels.length < 2) return [];
  const { panel: front } = shown.view;
  const along = steps.length > 0 && !shown.view.difference;
  const course = along
    ? whole.panels.filter((_, index) => courseOf(index) === courseOf(front))
    : whole.panels;
  const few = titles.length <= MOST_LISTED;
  const others =
    shown.panels.length > 1
      ? shown.panels
      : titles.flatMap((_, index) => whole.panels[at(index, stepOf(whole, front))] ?? []);
  const lines = others
    .filter((other) => other !== panel)
    .map((other) =>
      element(
        "div",
        { class: "quiet" },
        `${other.title || other.course}: ${orNone(other.values[cell], whole.units)}`,
      ),
    );
  const place = course.indexOf(whole.panels[front] ?? panel);
  return [
    ...(few || shown.panels.length <= MOST_LISTED ? lines : []),
    ...(along || !few ? [spark(whole, course, Math.max(place, 0), cell, theme)] : []),
  ];
}

function orNone(value: number | undefined, units: string): string {
  return value === undefined || Number.isNaN(value) ? "–" : measured(value, units, 3);
}

/** Chart of the head's value over the panels, with a mark at the panel in front. */
function spark(whole: Payload, panels: readonly Panel[], front: number, cell: number, theme: Theme): Node {
  const values = panels.map((panel) => panel.values[cell] ?? Number.NaN);
  const steps = panels.map((panel, index) => panel.step ?? index + 1);
  const value = values[front] ?? Number.NaN;
  const options = {
    xLabel: panels[0]?.step == null ? whole.dimension || "panel" : "training step",
    yLabel: whole.units || whole.quantity,
    ...{ width: SPARK_WIDTH, height: SPARK_HEIGHT, stops: [], fromZero: true },
    marked: steps[front] ?? 0,
    markLabel: Number.isNaN(value) ? "" : number(value),
  };
  const canvas = element("canvas");
  paintOn(canvas, lineChart([{ label: "", steps, values, colour: theme.ink }], options, theme).scene, theme);
  return canvas;
}
