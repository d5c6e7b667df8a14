/** Tooltip of the head under the mouse, with its values in the other panels. */

import { coursesOf, stepOf } from "../grid/courses";
import { placeOf } from "../grid/heads";
import type { Panel, Payload } from "../grid/payload";
import type { Shown } from "../grid/view";
import { headLines, measured } from "../grid/words";
import { element, shape, show } from "./dom";

const MOST_LISTED = 6;
const SPARK_WIDTH = 140;
const SPARK_HEIGHT = 28;
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
  explain(whole: Payload, shown: Shown, panel: Panel, cell: number, x: number, y: number): void {
    const place = placeOf(cell, whole);
    const lines = headLines(shown.payload, panel, place);
    if (shown.panels.length > 1 && panel.title) lines.splice(1, 0, panel.title);
    this.node.replaceChildren(
      ...lines.map((line) => element("div", {}, line)),
      ...elsewhere(whole, panel, cell),
    );
    show(this.node, true);
    const left =
      x + AWAY + this.node.offsetWidth > this.card.clientWidth ? x - AWAY - this.node.offsetWidth : x + AWAY;
    this.node.style.left = `${Math.max(left, 0)}px`;
    this.node.style.top = `${Math.max(y - this.node.offsetHeight / 2, 0)}px`;
  }
}

/** The head's values in a few other panels, and a sparkline along the steps or panels. */
function elsewhere(whole: Payload, panel: Panel, cell: number): Node[] {
  const { titles, courseOf, steps, panel: at } = coursesOf(whole);
  const front = whole.panels.indexOf(panel);
  if (whole.panels.length < 2) return [];
  const course = whole.panels.filter((_, index) => courseOf(index) === courseOf(front));
  const others = titles.flatMap((title, index) => {
    const other = whole.panels[at(index, stepOf(whole, front))];
    return other && other !== panel
      ? [element("div", { class: "quiet" }, `${title}: ${orNone(other.values[cell], whole.units)}`)]
      : [];
  });
  if (steps.length && front >= 0) {
    return [...(titles.length <= MOST_LISTED ? others : []), spark(course, panel, cell)];
  }
  return titles.length <= MOST_LISTED ? others : [spark(whole.panels, panel, cell)];
}

function orNone(value: number | undefined, units: string): string {
  return value === undefined || Number.isNaN(value) ? "–" : measured(value, units, 3);
}

/** Sparkline of the head's value over the panels, with a dot at the panel in front. */
function spark(panels: readonly Panel[], front: Panel, cell: number): Node {
  const values = panels.map((panel) => panel.values[cell] ?? Number.NaN);
  const present = values.filter(Number.isFinite);
  const low = Math.min(0, ...present);
  const reach = Math.max(0, ...present) - low || 1;
  const x = (place: number) => (place / (values.length - 1)) * SPARK_WIDTH;
  const y = (value: number) => SPARK_HEIGHT - ((value - low) / reach) * SPARK_HEIGHT;
  const svg = shape("svg", { width: SPARK_WIDTH, height: SPARK_HEIGHT });
  const points = values.flatMap((value, place) => (Number.isNaN(value) ? [] : [`${x(place)},${y(value)}`]));
  svg.append(
    shape("polyline", { points: points.join(" "), fill: "none", stroke: "currentColor", opacity: 0.6 }),
  );
  const place = panels.indexOf(front);
  const value = values[place];
  if (value !== undefined && !Number.isNaN(value)) {
    svg.append(shape("circle", { cx: x(place), cy: y(value), r: 3, fill: "currentColor" }));
  }
  return svg;
}
