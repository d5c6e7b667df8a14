/** One head: the distribution of its score over samples, and the samples that use it most. */

import { number } from "../grid/words";
import { button, element } from "../view/dom";
import { histogram } from "./charts";
import type { HeadDetail, StrongSample } from "./model";

export interface HeadTabEvents {
  readonly focus: (head: string) => void;
  readonly attend: (head: string, place: number) => void;
}

export class HeadTab {
  readonly node = element("div");
  private busy = false;

  constructor(private readonly events: HeadTabEvents) {}

  refresh(selected: readonly string[], focused: string, detail: HeadDetail | null): void {
    const chips = element("div", { class: "chips", role: "group", "aria-label": "Selected heads" });
    for (const name of selected) {
      chips.append(button(name, () => this.events.focus(name), { "aria-pressed": String(name === focused) }));
    }
    this.node.replaceChildren(chips, ...this.contents(focused, detail));
    this.say(this.busy);
  }

  /** While something is computed no attention can be asked for. */
  say(busy: boolean): void {
    this.busy = busy;
    for (const one of this.node.querySelectorAll<HTMLButtonElement>(".samples button")) one.disabled = busy;
  }

  private contents(focused: string, detail: HeadDetail | null): Node[] {
    if (!focused) return [element("p", {}, "Select a head in the grid to see which samples use it.")];
    if (!detail) return [element("p", {}, `${focused} has no scores of samples yet: press Run.`)];
    const { task, units, samples, mean, spread } = detail;
    const unit = units ? ` ${units}` : "";
    const figures =
      mean === null
        ? "no softmax head"
        : `mean ${number(mean)}${unit}${spread === null ? "" : `, standard deviation ${number(spread)}`}`;
    const line = `${detail.head} on ${task}: signed score over ${samples} samples, ${figures}`;
    return [
      element("p", { class: "words" }, line),
      histogram(detail.counts, detail.edges, line),
      element("p", {}, "Samples that use it most"),
      this.samples(detail),
    ];
  }

  private samples({ head, strongest, units }: HeadDetail): Node {
    const titles = ["sample", units ? `score (${units})` : "score", "loss", "prompt and completion", ""];
    const rows = strongest.map((sample) => this.row(head, sample));
    return element(
      "div",
      { class: "samples" },
      element(
        "table",
        {},
        element(
          "thead",
          {},
          element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title))),
        ),
        element("tbody", {}, ...rows),
      ),
    );
  }

  private row(head: string, { place, id, score, loss, prompt, completion }: StrongSample): Node {
    const text = element("td", { class: "text" }, prompt, element("span", { class: "answer" }, completion));
    const look = element("td");
    if (place >= 0) {
      look.append(
        button("Attention", () => this.events.attend(head, place), {
          "aria-label": `Attention of ${head} on sample ${id}`,
        }),
      );
    }
    return element(
      "tr",
      {},
      element("td", {}, id),
      element("td", { class: "number" }, number(score)),
      element("td", { class: "number" }, loss === null ? "–" : number(loss)),
      text,
      look,
    );
  }
}
