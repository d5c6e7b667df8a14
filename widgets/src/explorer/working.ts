/** Line that shows that the kernel is working: a progress bar and what is being done. */

import { element, show } from "../view/dom";
import type { Status } from "./model";

export class Working {
  private readonly bar = element("progress", { max: "1", "aria-label": "Progress" });
  private readonly line = element("span", { class: "words" });
  readonly node: HTMLElement;

  /** `result` is marked as busy until the work is done. */
  constructor(
    private readonly result: HTMLElement,
    attributes: Readonly<Record<string, string>> = {},
  ) {
    this.node = element("div", { class: "working", ...attributes }, this.bar, this.line);
    show(this.bar, false);
  }

  /** Show a status, or without one that nothing is done; the bar moves without an end while the total is unknown. */
  refresh(status: Status | null): void {
    const busy = status !== null && status.state !== "idle";
    this.result.setAttribute("aria-busy", String(busy));
    show(this.bar, busy);
    if (status?.total) {
      this.bar.max = status.total;
      this.bar.value = status.done;
    } else this.bar.removeAttribute("value");
    this.line.textContent = status ? status.line || status.note : "";
  }
}
