/** Text next to a grid: its top heads, statistics and reliability. */

import { FALL, RISE } from "../grid/colours";
import { headName, placeOf } from "../grid/heads";
import { isUnscored, type Panel, type Payload } from "../grid/payload";
import { rolesLine } from "../grid/roles";
import { largest } from "../grid/statistics";
import { ofPanel, type Shown } from "../grid/view";
import { missingLine, number, quantityWithUnits, significanceLine, topName } from "../grid/words";
import { button, element } from "./dom";

const TOP = 5;

export interface AsideEvents {
  readonly choose: (cell: number, adding: boolean) => void;
  /** Called with the head of the entry under the mouse or the keyboard focus, and with null when it leaves. */
  readonly point: (cell: number | null, entry: HTMLElement) => void;
}

export class Aside {
  readonly node = element("div", { class: "aside words" });

  constructor(private readonly events: AsideEvents) {}

  refresh(shown: Shown): void {
    const { payload, panels } = shown;
    const [panel] = panels;
    const single = panels.length === 1 && panel !== undefined;
    this.node.classList.toggle("below", !single);
    if (isUnscored(payload)) {
      this.node.replaceChildren(...lines([missingLine(payload)]));
      return;
    }
    const heads = single
      ? this.top(payload, panel)
      : [
          ...panels.filter(({ own }) => own).flatMap((one) => this.change(shown, one)),
          table(payload, panels),
        ];
    const words = single
      ? [panel.statisticsLine, significanceLine(payload, panel), ...panel.notes, panel.reliabilityLine]
      : panels.flatMap((one) => one.notes.map((note) => `${one.title}: ${note}`));
    this.node.replaceChildren(
      element("div", {}, ...heads),
      element("div", {}, ...lines([...words, rolesLine(shown), missingLine(payload)])),
    );
  }

  /** The largest changes with their tests and reliability. */
  private change(shown: Shown, panel: Panel): Node[] {
    const { payload } = ofPanel(shown, panel);
    return [...this.top(payload, panel), ...lines([significanceLine(payload, panel), panel.reliabilityLine])];
  }

  private top(payload: Payload, panel: Panel): Node[] {
    const order = largest(panel.values, TOP);
    const most = Math.abs(panel.values[order[0] ?? -1] ?? 0) || 1;
    if (order.length === 0) return [element("p", {}, "No layer of this model has softmax attention heads.")];
    const list = element("ol", { class: "top" });
    for (const cell of order) {
      const value = panel.values[cell] ?? 0;
      const entry = button("", () => undefined);
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
      for (const event of ["pointerenter", "focus"])
        entry.addEventListener(event, () => this.events.point(cell, entry));
      for (const event of ["pointerleave", "blur"])
        entry.addEventListener(event, () => this.events.point(null, entry));
      list.append(element("li", {}, entry));
    }
    return [
      element("h4", {}, quantityWithUnits({ quantity: topName(payload.kind), units: payload.units })),
      list,
    ];
  }
}

function lines(words: readonly string[]): Node[] {
  return words.filter(Boolean).map((line) => element("p", {}, line));
}

/** Table of the statistics and reliability of several panels. */
function table({ columns }: Payload, panels: readonly Panel[]): Node {
  const rows = panels.map((panel) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, panel.title),
      ...panel.cells.map((cell) => element("td", {}, cell)),
    ),
  );
  const head = element(
    "tr",
    {},
    element("td"),
    ...columns.map(({ label, help }) => element("th", { scope: "col", title: help }, label)),
  );
  return element(
    "table",
    {},
    element("caption", {}, "Statistics and reliability"),
    element("thead", {}, head),
    element("tbody", {}, ...rows),
  );
}
