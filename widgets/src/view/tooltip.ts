/** Tooltip of the head or part of the picture under the mouse; for a head with its values in the other panels. */

import { coursesOf, stepOf } from "../grid/courses";
import { placeOf } from "../grid/heads";
import type { Box } from "../grid/layout";
import type { Part } from "../grid/parts";
import type { Panel, Payload } from "../grid/payload";
import type { Shown } from "../grid/view";
import { headLines, measured } from "../grid/words";
import { element, shape, show } from "./dom";
import { placed, type Side } from "./placement";

const MOST_LISTED = 6;
const SPARK_WIDTH = 140;
const SPARK_HEIGHT = 28;
const BESIDE: readonly Side[] = ["right", "left", "above", "below"];

/** Sides on which a tooltip keeps the axis of a part visible. */
const SIDES: Record<Part["at"], readonly Side[]> = {
  bar: ["below", "above"],
  mean: ["right", "left", "above", "below"],
  bin: ["above", "below"],
};

export class Tooltip {
  readonly node = element("div", { class: "tooltip", "aria-hidden": "true" });
  private subject = "";
  private dismissed = "";

  constructor(private readonly card: HTMLElement) {
    show(this.node, false);
  }

  hide(): void {
    this.close();
    this.dismissed = "";
  }

  /** Explain a cell of a panel; `box` is the cell in the card's own coordinates. */
  explain(whole: Payload, shown: Shown, panel: Panel, cell: number, box: Box): void {
    const lines = headLines(shown.payload, panel, placeOf(cell, whole));
    if (shown.panels.length > 1 && panel.title) lines.splice(1, 0, panel.title);
    this.open(`${panel.title} ${cell}`, [...rows(lines), ...elsewhere(whole, panel, cell)], box, BESIDE);
  }

  /** Explain a part of the picture; `free` is the box in the card's own coordinates that stays visible. */
  explainPart({ lines, at }: Part, free: Box): void {
    this.open(lines.join("\n"), rows(lines), free, SIDES[at]);
  }

  /** Show the tooltip, unless Escape has closed it and it would explain the same thing again. */
  private open(subject: string, content: readonly Node[], box: Box, sides: readonly Side[]): void {
    if (subject === this.dismissed) return;
    this.dismissed = "";
    this.subject = subject;
    this.node.replaceChildren(...content);
    if (this.node.hidden) document.addEventListener("keydown", this.onKey, true);
    show(this.node, true);
    const { offsetWidth: width, offsetHeight: height } = this.node;
    const room = { width: this.card.clientWidth, height: this.card.clientHeight };
    const { x, y } = placed(box, { width, height }, room, sides);
    this.node.style.left = `${x}px`;
    this.node.style.top = `${y}px`;
  }

  private close(): void {
    document.removeEventListener("keydown", this.onKey, true);
    show(this.node, false);
  }

  /** Escape closes the tooltip wherever the focus is; the key keeps its other functions. */
  private readonly onKey = (event: KeyboardEvent): void => {
    if (event.key !== "Escape") return;
    this.close();
    this.dismissed = this.subject;
  };
}

function rows(lines: readonly string[]): Node[] {
  return lines.map((line) => element("div", {}, line));
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
