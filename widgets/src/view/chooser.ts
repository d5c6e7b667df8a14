/** Which panel is in front: tabs, a list where there are many, or a slider along steps that can be played. */

import type { Payload } from "../grid/payload";
import { isTrajectory } from "../grid/view";
import { button, choice, element, fillChoice, show } from "./dom";

const MOST_TABS = 12;
const STEP_MILLISECONDS = 600;

export class Chooser {
  readonly node = element("div", { class: "chooser" });
  private readonly tabs = element("div", { role: "tablist", "aria-label": "Panels" });
  private readonly list = choice("Panel", (place) => this.choose(place));
  private readonly slider = element("input", { type: "range", min: "0", step: "1" });
  private readonly place = element("output", { class: "count" });
  private readonly play = button("▶ Play", () => this.toggle(), { "aria-pressed": "false" });
  private readonly steps = element("div", { class: "steps" }, this.play, this.slider, this.place);
  private timer: ReturnType<typeof setInterval> | null = null;
  private titles: readonly string[] = [];
  private front = 0;

  constructor(private readonly choose: (panel: number) => void) {
    this.node.append(this.tabs, this.list, this.steps);
    this.slider.addEventListener("input", () => this.choose(Number(this.slider.value)));
    this.tabs.addEventListener("keydown", (event) => this.onKey(event));
  }

  refresh(payload: Payload, front: number, visible: boolean): void {
    this.titles = payload.panels.map((panel, i) => panel.title || `panel ${i + 1}`);
    this.front = front;
    const several = this.titles.length > 1;
    const steps = isTrajectory(payload);
    const many = this.titles.length > MOST_TABS;
    show(this.node, visible && several);
    show(this.tabs, !steps && !many);
    show(this.list, !steps && many);
    show(this.steps, steps);
    if (!visible || !steps) this.stop();
    if (steps) this.refreshSlider(payload.dimension);
    else if (many) fillChoice(this.list, this.titles, front);
    else this.refreshTabs();
  }

  stop(): void {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
    this.play.textContent = "▶ Play";
    this.play.setAttribute("aria-pressed", "false");
  }

  private refreshSlider(dimension: string): void {
    const title = this.titles[this.front] ?? "";
    this.slider.max = String(this.titles.length - 1);
    this.slider.value = String(this.front);
    this.slider.setAttribute("aria-label", dimension);
    this.slider.setAttribute("aria-valuetext", title);
    this.place.value = title;
  }

  private refreshTabs(): void {
    const had = this.tabs.contains((this.tabs.getRootNode() as ShadowRoot).activeElement);
    const made = this.titles.map((title, i) => {
      const front = i === this.front;
      const tab = button(title, () => this.choose(i), {
        role: "tab",
        "aria-selected": String(front),
        tabindex: front ? "0" : "-1",
      });
      return tab;
    });
    this.tabs.replaceChildren(...made);
    if (had) made[this.front]?.focus();
  }

  private onKey(event: KeyboardEvent): void {
    const last = this.titles.length - 1;
    const places: Record<string, number> = {
      ArrowLeft: this.front === 0 ? last : this.front - 1,
      ArrowRight: this.front === last ? 0 : this.front + 1,
      Home: 0,
      End: last,
    };
    const to = places[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.choose(to);
  }

  private toggle(): void {
    if (this.timer !== null) {
      this.stop();
      return;
    }
    const last = this.titles.length - 1;
    if (this.front === last) this.choose(0);
    this.play.textContent = "❚❚ Pause";
    this.play.setAttribute("aria-pressed", "true");
    this.timer = setInterval(() => {
      if (this.front >= last) this.stop();
      else this.choose(this.front + 1);
    }, STEP_MILLISECONDS);
  }
}
