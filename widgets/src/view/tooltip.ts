/** Tooltip of the head or part of the picture under the mouse; for a head with its values in the other panels. */

import { coursesOf, stepOf } from "../grid/courses";
import type { Box } from "../grid/layout";
import { lineChart } from "../grid/line-chart";
import type { Part } from "../grid/parts";
import type { Panel, Payload } from "../grid/payload";
import type { Theme } from "../grid/scene";
import { linesOf, type Shown } from "../grid/view";
import { measured, number } from "../grid/words";
import { element, show } from "./dom";
import { paintOn } from "./paint";
import { placed, type Side } from "./placement";

const MOST_LISTED = 6;
const SPARK_WIDTH = 260;
const SPARK_HEIGHT = 120;
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
  explain(whole: Payload, shown: Shown, panel: Panel, theme: Theme, cell: number, box: Box): void {
    const content = [...rows(linesOf(shown, panel, cell)), ...elsewhere(whole, shown, panel, theme, cell)];
    this.open(`${panel.title} ${cell}`, content, box, BESIDE);
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

  /** Escape closes the tooltip wherever the focus is; outside the card the key keeps its other functions. */
  private readonly onKey = (event: KeyboardEvent): void => {
    if (event.key !== "Escape") return;
    if (event.composedPath().includes(this.card)) event.stopPropagation();
    this.close();
    this.dismissed = this.subject;
  };
}

function rows(lines: readonly string[]): Node[] {
  return lines.map((line) => element("div", {}, line));
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
        `${other.title || other.course}: ${orNone(other.values[cell], (other.own ?? whole).units)}`,
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
    yLabel: panels.some(({ own }) => own) ? "" : whole.units || whole.quantity,
    ...{ width: SPARK_WIDTH, height: SPARK_HEIGHT, stops: [], fromZero: true },
    marked: steps[front] ?? 0,
    markLabel: Number.isNaN(value) ? "" : number(value),
  };
  const canvas = element("canvas");
  paintOn(canvas, lineChart([{ label: "", steps, values, colour: theme.ink }], options, theme).scene, theme);
  return canvas;
}
