/** Choice of a panel from two lists, its course and its step. */

import { coursesOf, stepOf } from "../grid/courses";
import type { Payload } from "../grid/payload";
import { choice, element, fillChoice, show } from "./dom";

export class PanelChoice {
  readonly node = element("span");
  private readonly course: HTMLSelectElement;
  private readonly step: HTMLSelectElement;
  private payload: Payload | null = null;

  constructor(label: string, changed: () => void) {
    this.course = choice(label, changed);
    this.step = choice(`${label}, step`, changed);
    this.node.append(this.course, this.step);
  }

  get panel(): number {
    if (!this.payload) return 0;
    const { steps, panel } = coursesOf(this.payload);
    return panel(this.course.selectedIndex, steps[this.step.selectedIndex] ?? Number.POSITIVE_INFINITY);
  }

  refresh(payload: Payload, panel: number): void {
    this.payload = payload;
    const { titles, steps, courseOf } = coursesOf(payload);
    fillChoice(this.course, titles, courseOf(panel));
    fillChoice(
      this.step,
      steps.map((step) => `step ${step}`),
      steps.indexOf(stepOf(payload, panel)),
    );
    show(this.course, titles.length > 1);
    show(this.step, steps.length > 0);
  }
}
