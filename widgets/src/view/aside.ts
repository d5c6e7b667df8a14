/** Text next to a grid: its top heads, statistics and reliability. */

import { FALL, RISE } from "../grid/colours";
import { headName, placeOf } from "../grid/heads";
import { isUnscored, type Panel, type Payload } from "../grid/payload";
import { rolesLine } from "../grid/roles";
import { largest } from "../grid/statistics";
import { ofPanel, type Shown } from "../grid/view";
import { missingLine, number, significanceLine, topName } from "../grid/words";
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
    const content = single
      ? [
          ...this.top(payload, panel),
          ...lines([panel.statisticsLine, significanceLine(payload, panel), ...panel.notes]),
        ]
      : [
          ...panels.filter(({ own }) => own).flatMap((one) => this.change(shown, one)),
          table(payload, panels),
          ...lines(panels.flatMap((one) => one.notes.map((note) => `${one.title}: ${note}`))),
        ];
    if (isUnscored(payload)) {
      this.node.replaceChildren(...lines([missingLine(payload)]));
      return;
    }
    const reliability = single ? [panel.reliabilityLine] : [];
    this.node.replaceChildren(...content, ...lines([...reliability, rolesLine(shown), missingLine(payload)]));
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
  const titles = [{ label: "", help: "" }, ...columns];
  const head = element(
    "tr",
    {},
    ...titles.map(({ label, help }) => element("th", { scope: "col", title: help }, label)),
  );
  return element(
    "table",
    {},
    element("caption", {}, "Statistics and reliability"),
    element("thead", {}, head),
    element("tbody", {}, ...rows),
  );
}
