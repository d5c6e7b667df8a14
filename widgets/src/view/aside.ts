/** What is said beside a grid: its largest heads, its statistics, and whether it can be believed. */

import { FALL, RISE } from "../grid/colours";
import { headName, placeOf } from "../grid/heads";
import { isUnscored, type Panel, type Payload } from "../grid/payload";
import { largest } from "../grid/statistics";
import type { Shown } from "../grid/view";
import {
  beliefOf,
  missingLine,
  number,
  significanceLine,
  statisticName,
  statisticsLine,
  statisticsOf,
  statisticText,
  topName,
} from "../grid/words";
import { button, element } from "./dom";

const TOP = 5;

export interface AsideEvents {
  readonly choose: (cell: number, adding: boolean) => void;
  readonly highlight: (cell: number | null) => void;
}

export class Aside {
  readonly node = element("div", { class: "aside words" });

  constructor(private readonly events: AsideEvents) {}

  refresh(shown: Shown): void {
    const { payload, panels } = shown;
    const [panel] = panels;
    const single = panels.length === 1 && panel !== undefined;
    this.node.classList.toggle("below", !single);
    const said = single
      ? [
          ...this.top(payload, panel),
          ...lines([statisticsLine(panel), significanceLine(payload, panel), ...panel.notes]),
        ]
      : [
          table(payload, panels),
          ...lines(panels.flatMap((one) => one.notes.map((note) => `${one.title}: ${note}`))),
        ];
    if (isUnscored(payload)) {
      this.node.replaceChildren(...lines([missingLine(payload)]));
      return;
    }
    const belief = single ? [beliefOf(shown, panel)] : [];
    this.node.replaceChildren(...said, ...lines([...belief, missingLine(payload)]));
  }

  private top(payload: Payload, panel: Panel): Node[] {
    const order = largest(panel.values, TOP);
    const most = Math.abs(panel.values[order[0] ?? -1] ?? 0) || 1;
    if (order.length === 0) return [element("p", {}, "No layer of this model has softmax attention heads.")];
    const list = element("ol", { class: "top" });
    for (const cell of order) {
      const value = panel.values[cell] ?? 0;
      const entry = button("", () => undefined, { title: "Select this head" });
      const bar = element("span", { class: "bar" });
      if (payload.kind !== "level") {
        bar.style.background = value > 0 ? RISE : FALL;
        bar.style.opacity = "1";
      }
      bar.style.width = `${(100 * Math.abs(value)) / most}%`;
      entry.append(
        element("span", {}, headName(placeOf(cell, payload), payload)),
        bar,
        element("span", { class: "value" }, number(value)),
      );
      entry.addEventListener("click", (event) => this.events.choose(cell, event.ctrlKey || event.metaKey));
      entry.addEventListener("pointerenter", () => this.events.highlight(cell));
      entry.addEventListener("pointerleave", () => this.events.highlight(null));
      list.append(element("li", {}, entry));
    }
    return [element("h4", {}, topName(payload.kind)), list];
  }
}

function lines(words: readonly string[]): Node[] {
  return words.filter(Boolean).map((line) => element("p", {}, line));
}

/** Statistics of several panels, and what can be believed of each. */
function table(payload: Payload, panels: readonly Panel[]): Node {
  const names = statisticsOf(panels);
  const titles = ["", ...names.map(statisticName), "top head", "samples", "reliability", "samples for 0.90"];
  const rows = panels.map((panel) => {
    const [top] = largest(panel.values, 1);
    const cells = [
      ...names.map((name) => statisticText(panel, name)),
      top === undefined ? "–" : headName(placeOf(top, payload), payload),
      orDash(panel.samples, 0),
      orDash(panel.reliability, 2),
      orDash(panel.samplesFor090, 0),
    ];
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, panel.title),
      ...cells.map((cell) => element("td", {}, cell)),
    );
  });
  const head = element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title)));
  return element(
    "table",
    {},
    element("caption", {}, "Can I believe this?"),
    element("thead", {}, head),
    element("tbody", {}, ...rows),
  );
}

function orDash(value: number | null, digits: number): string {
  return value === null ? "–" : value.toFixed(digits);
}
