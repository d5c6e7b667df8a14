/** Choice of the panel in front: tabs, or a list for many panels, and a slider with a Play button for steps. */

import { coursesOf, panelAt, stepOf } from "../grid/courses";
import { hasLosses } from "../grid/loss-chart";
import type { Payload } from "../grid/payload";
import { button, choice, element, fillChoice, show } from "./dom";
import { TabList } from "./tab-list";

const MOST_TABS = 12;
const STEP_MILLISECONDS = 600;

export class Chooser {
  readonly node = element("div", { class: "chooser" });
  private readonly tabs = new TabList((course) => this.toCourse(course), { "aria-label": "Panels" });
  private readonly list = choice("Panel", (course) => this.toCourse(course));
  private readonly slider = element("input", { type: "range", min: "0", step: "1" });
  private readonly place = element("output", { class: "count" });
  private readonly play = button("▶ Play", () => this.toggle());
  private readonly steps = element("div", { class: "steps" }, this.play, this.slider, this.place);
  private timer: ReturnType<typeof setInterval> | null = null;
  private payload: Payload | null = null;
  private front = 0;

  /** `shown` is the element that shows the chosen panel. */
  constructor(
    private readonly choose: (panel: number) => void,
    private readonly shown: HTMLElement,
  ) {
    shown.id = "panel";
    this.node.append(this.tabs.node, this.list, this.steps);
    this.slider.addEventListener("input", () => this.toStep(Number(this.slider.value)));
  }

  /** `apart`: whether one course is shown at a time, which needs tabs. */
  refresh(payload: Payload, front: number, apart: boolean, visible: boolean): void {
    this.payload = payload;
    this.front = front;
    const { titles, steps, courseOf } = coursesOf(payload);
    const tabbed = apart && titles.length > 1;
    const many = titles.length > MOST_TABS;
    show(this.node, visible && (tabbed || steps.length > 0));
    show(this.tabs.node, tabbed && !many);
    show(this.list, tabbed && many);
    show(this.steps, steps.length > 0);
    show(this.slider, !hasLosses(payload)); // the loss curve has a slider of its own
    if (!visible || !steps.length) this.stop();
    if (many) fillChoice(this.list, titles, courseOf(front));
    else
      this.tabs.refresh(
        titles,
        courseOf(front),
        titles.map(() => this.shown.id),
      );
    this.refreshShown(visible && tabbed && !many, titles[courseOf(front)] ?? "");
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
    const panel = this.payload && panelAt(this.payload, this.front, place);
    if (panel !== null) this.choose(panel);
  }

  /** The element that shows the panel is a tab panel while there are tabs. */
  private refreshShown(ofTab: boolean, title: string): void {
    const attributes = { role: "tabpanel", "aria-label": title };
    for (const [name, value] of Object.entries(attributes))
      if (ofTab) this.shown.setAttribute(name, value);
      else this.shown.removeAttribute(name);
  }

  private refreshSlider(steps: readonly number[], place: number): void {
    this.slider.max = String(Math.max(steps.length - 1, 0));
    this.slider.value = String(place);
    this.slider.setAttribute("aria-label", "step");
    this.place.value = place < 0 ? "" : `step ${steps[place]}`;
    this.slider.setAttribute("aria-valuetext", this.place.value);
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
