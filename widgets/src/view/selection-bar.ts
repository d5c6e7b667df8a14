/** Line about the selected heads: their names, their fraction of the total level, and buttons to copy and clear. */

import { namesOf } from "../grid/heads";
import type { Panel, Payload } from "../grid/payload";
import { percent } from "../grid/words";
import { button, element, show } from "./dom";

const MOST_NAMED = 40;
const HINT =
  "Click or drag over heads, layer or head numbers, or bars of the distribution; Shift extends the selection, Control adds to it.";

export class SelectionBar {
  readonly node = element("div", { class: "selection" });
  private readonly words = element("span", { class: "quiet" });
  private readonly names = element("span", { class: "names" });
  private readonly copy: HTMLButtonElement;
  private readonly clear: HTMLButtonElement;
  private readonly undo: HTMLButtonElement;

  constructor(events: {
    readonly copy: () => void;
    readonly clear: () => void;
    readonly undo: () => void;
  }) {
    this.copy = button("Copy", events.copy);
    this.clear = button("Clear", events.clear);
    this.undo = button("Undo", events.undo, { "aria-label": "Undo the last change of the selection" });
    this.node.append(this.words, this.names, this.copy, this.clear, this.undo);
  }

  refresh(payload: Payload, panel: Panel, cells: ReadonlySet<number>, undoable: boolean): void {
    const some = cells.size > 0;
    this.copy.textContent = "Copy";
    for (const part of [this.names, this.copy, this.clear]) show(part, some);
    show(this.undo, undoable);
    if (!some) {
      this.words.textContent = HINT;
      return;
    }
    const first = namesOf(cells, payload).slice(0, MOST_NAMED).join(",");
    this.names.textContent = cells.size > MOST_NAMED ? `${first},…` : first;
    this.words.textContent = `${cells.size} head${cells.size > 1 ? "s" : ""}${share(payload, panel, cells)}`;
  }

  copied(done: boolean): void {
    this.copy.textContent = done ? "Copied" : "Not allowed here";
  }
}

/** The selected heads' fraction of the sum over all heads, for levels only. */
function share(payload: Payload, panel: Panel, cells: ReadonlySet<number>): string {
  if (payload.kind !== "level") return "";
  const sum = (values: Iterable<number>) => [...values].filter(Number.isFinite).reduce((a, b) => a + b, 0);
  const all = sum(panel.values);
  const part = sum([...cells].map((cell) => panel.values[cell] ?? 0));
  return all > 0 ? `, ${percent(part / all)} % of the sum over all heads` : "";
}
