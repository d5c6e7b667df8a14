/** Choice of the panel in front: tabs, or a list for many panels, and a slider with a Play button for steps. */

import { coursesOf, stepOf } from "../grid/courses";
import { hasLosses } from "../grid/loss-chart";
import type { Payload } from "../grid/payload";
import { button, choice, element, fillChoice, show } from "./dom";

const MOST_TABS = 12;
const STEP_MILLISECONDS = 600;

export class Chooser {
  readonly node = element("div", { class: "chooser" });
  private readonly tabs = element("div", { role: "tablist", "aria-label": "Panels" });
  private readonly list = choice("Panel", (course) => this.toCourse(course));
  private readonly slider = element("input", { type: "range", min: "0", step: "1" });
  private readonly place = element("output", { class: "count" });
  private readonly play = button("▶ Play", () => this.toggle());
  private readonly steps = element("div", { class: "steps" }, this.play, this.slider, this.place);
  private timer: ReturnType<typeof setInterval> | null = null;
  private payload: Payload | null = null;
  private front = 0;

  constructor(private readonly choose: (panel: number) => void) {
    this.node.append(this.tabs, this.list, this.steps);
    this.slider.addEventListener("input", () => this.toStep(Number(this.slider.value)));
    this.tabs.addEventListener("keydown", (event) => this.onKey(event));
  }

  /** `apart`: whether one course is shown at a time, which needs tabs. */
  refresh(payload: Payload, front: number, apart: boolean, visible: boolean): void {
    this.payload = payload;
    this.front = front;
    const { titles, steps, courseOf } = coursesOf(payload);
    const tabbed = apart && titles.length > 1;
    const many = titles.length > MOST_TABS;
    show(this.node, visible && (tabbed || steps.length > 0));
    show(this.tabs, tabbed && !many);
    show(this.list, tabbed && many);
    show(this.steps, steps.length > 0);
    show(this.slider, !hasLosses(payload)); // the loss curve has a slider of its own
    if (!visible || !steps.length) this.stop();
    if (many) fillChoice(this.list, titles, courseOf(front));
    else this.refreshTabs(titles, courseOf(front));
    this.refreshSlider(steps, steps.indexOf(stepOf(payload, front)));
  }

  stop(): void {
    if (this.timer !== null) clearInterval(this.timer);
    this.timer = null;
    this.play.textContent = "▶ Play";
  }

  private toCourse(course: number): void {
    if (this.payload) this.choose(coursesOf(this.payload).panel(course, stepOf(this.payload, this.front)));
  }

  private toStep(place: number): void {
    if (!this.payload) return;
    const { steps, panel, courseOf } = coursesOf(this.payload);
    const step = steps[place];
    if (step !== undefined) this.choose(panel(courseOf(this.front), step));
  }

  private refreshSlider(steps: readonly number[], place: number): void {
    this.slider.max = String(Math.max(steps.length - 1, 0));
    this.slider.value = String(place);
    this.slider.setAttribute("aria-label", "step");
    this.place.value = place < 0 ? "" : `step ${steps[place]}`;
    this.slider.setAttribute("aria-valuetext", this.place.value);
  }

  /** Reuse existing tabs: replacing them during updates of a live grid would lose clicks and focus. */
  private refreshTabs(titles: readonly string[], chosen: number): void {
    const had = this.tabs.contains((this.tabs.getRootNode() as ShadowRoot).activeElement);
    let tabs = [...this.tabs.children] as HTMLElement[];
    if (tabs.length !== titles.length || tabs.some((tab, i) => tab.textContent !== titles[i])) {
      tabs = titles.map((title, i) => button(title, () => this.toCourse(i), { role: "tab" }));
      this.tabs.replaceChildren(...tabs);
    }
    tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", String(i === chosen));
      tab.tabIndex = i === chosen ? 0 : -1;
    });
    if (had) tabs[chosen]?.focus();
  }

  private onKey(event: KeyboardEvent): void {
    if (!this.payload) return;
    const { titles, courseOf } = coursesOf(this.payload);
    const [last, front] = [titles.length - 1, courseOf(this.front)];
    const places: Record<string, number> = {
      ArrowLeft: front === 0 ? last : front - 1,
      ArrowRight: front === last ? 0 : front + 1,
      Home: 0,
      End: last,
    };
    const to = places[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.toCourse(to);
  }

  private toggle(): void {
    if (this.timer !== null) {
      this.stop();
      return;
    }
    const last = () => Number(this.slider.max);
    const now = () => Number(this.slider.value);
    if (now() === last()) this.toStep(0);
    this.play.textContent = "❚❚ Pause";
    this.timer = setInterval(() => {
      if (now() >= last()) this.stop();
      else this.toStep(now() + 1);
    }, STEP_MILLISECONDS);
  }
}
