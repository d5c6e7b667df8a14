/** Head tab: the distribution of a head's score over samples, and the samples with the largest scores. */

import { number } from "../grid/words";
import { button, element } from "../view/dom";
import { histogram } from "./charts";
import type { HeadDetail, StrongSample } from "./model";

export interface HeadTabEvents {
  readonly focus: (head: string) => void;
  readonly attend: (head: string, place: number) => void;
}

const MOST_CHIPS = 100;

export class HeadTab {
  private readonly chips = element("div", { class: "chips", role: "group", "aria-label": "Selected heads" });
  private readonly contents = element("div");
  readonly node = element("div", {}, this.chips, this.contents);
  private chosen = "";
  private busy = false;

  constructor(private readonly events: HeadTabEvents) {}

  refresh(selected: readonly string[], focused: string, detail: HeadDetail | null): void {
    this.refreshChips(selected, focused);
    this.contents.replaceChildren(...this.words(focused, detail));
    this.setBusy(this.busy);
  }

  /** Reuse the chips if the heads are the same, so that the focused chip keeps the keyboard focus. */
  private refreshChips(selected: readonly string[], focused: string): void {
    const names = selected.slice(0, MOST_CHIPS);
    if (!names.includes(focused) && focused) names.push(focused);
    const more = selected.length - names.length;
    const key = `${names.join()} ${more}`;
    if (key !== this.chosen) {
      this.chosen = key;
      const chips = names.map((name) => button(name, () => this.events.focus(name)));
      this.chips.replaceChildren(...chips, ...(more > 0 ? [`and ${more} more`] : []));
    }
    for (const chip of this.chips.children)
      chip.setAttribute("aria-pressed", String(chip.textContent === focused));
  }

  /** Disable the attention buttons during a computation. */
  setBusy(busy: boolean): void {
    this.busy = busy;
    for (const one of this.node.querySelectorAll<HTMLButtonElement>(".samples button")) one.disabled = busy;
  }

  private words(focused: string, detail: HeadDetail | null): Node[] {
    if (!focused) return [element("p", {}, "Select a head in the grid to see its scores on the samples.")];
    if (!detail)
      return [element("p", {}, `${focused} has no scores on the samples of this task yet: press Run.`)];
    const { task, units, samples, mean, spread } = detail;
    const unit = units ? ` ${units}` : "";
    const figures =
      mean === null
        ? "no softmax head"
        : `mean ${number(mean)}${unit}${spread === null ? "" : `, standard deviation ${number(spread)}`}`;
    const line = `${detail.head} on ${task}: signed score over ${samples} samples, ${figures}`;
    return [
      element("p", { class: "words" }, line),
      histogram(detail.counts, detail.edges, line, units),
      element("p", {}, "Samples with the largest absolute scores"),
      this.samples(detail),
    ];
  }

  private samples({ head, strongest, units }: HeadDetail): Node {
    const titles = ["sample", units ? `score (${units})` : "score", "loss", "prompt and completion"];
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
          element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title)), element("td")),
        ),
        element("tbody", {}, ...rows),
      ),
    );
  }

  private row(head: string, { place, id, score, loss, prompt, completion }: StrongSample): Node {
    const text = element("td", { class: "text" }, prompt, element("span", { class: "answer" }, completion));
    const action = element("td");
    if (place >= 0) {
      action.append(
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
      action,
    );
  }
}
