/** Loss curves with the slider of the steps on them: dragging along a curve or the arrow keys choose a step. */

import { coursesOf, panelAt, stepOf } from "../grid/courses";
import { type LineChart, nearestStop } from "../grid/line-chart";
import { hasLosses, lossChart, lossWords } from "../grid/loss-chart";
import type { Payload } from "../grid/payload";
import type { Theme } from "../grid/scene";
import { element, show } from "./dom";
import { paintOn } from "./paint";

export class LossSlider {
  readonly node = element("div", {
    class: "losses",
    role: "slider",
    tabindex: "0",
    "aria-label": "Training step, on the loss curve",
    "aria-valuemin": "0",
  });
  private readonly canvas = element("canvas", { "aria-hidden": "true" });
  private payload: Payload | null = null;
  private chart: LineChart | null = null;
  private front = 0;
  private dragging = false;

  constructor(private readonly choose: (panel: number) => void) {
    this.node.append(this.canvas);
    show(this.node, false);
    this.node.addEventListener("pointerdown", (event) => this.onDown(event));
    this.node.addEventListener("pointermove", (event) => this.dragging && this.toPointer(event));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
      this.node.addEventListener(end, () => {
        this.dragging = false;
      });
    this.node.addEventListener("keydown", (event) => this.onKey(event));
  }

  draw(payload: Payload, front: number, visible: boolean, theme: Theme, room: number): void {
    this.payload = payload;
    this.front = front;
    show(this.node, visible && hasLosses(payload));
    if (this.node.hidden) return;
    this.chart = lossChart(payload, front, theme, room);
    paintOn(this.canvas, this.chart.scene, theme);
    const { steps } = coursesOf(payload);
    this.node.setAttribute("aria-valuemax", String(steps.length - 1));
    this.node.setAttribute("aria-valuenow", String(this.place));
    this.node.setAttribute("aria-valuetext", lossWords(payload, stepOf(payload, front)));
  }

  /** Index of the chosen step. */
  private get place(): number {
    return this.payload ? coursesOf(this.payload).steps.indexOf(stepOf(this.payload, this.front)) : 0;
  }

  private toPlace(place: number): void {
    const panel = this.payload && panelAt(this.payload, this.front, place);
    if (panel !== null && place !== this.place) this.choose(panel);
  }

  private onDown(event: PointerEvent): void {
    if (event.button !== 0) return;
    this.dragging = true;
    this.node.setPointerCapture(event.pointerId);
    this.toPointer(event);
  }

  private toPointer(event: PointerEvent): void {
    if (!this.payload || !this.chart) return;
    const position = event.clientX - this.canvas.getBoundingClientRect().left;
    this.toPlace(nearestStop(this.chart, coursesOf(this.payload).steps, position));
  }

  private onKey(event: KeyboardEvent): void {
    if (!this.payload || event.altKey || event.ctrlKey || event.metaKey) return;
    const to = placeAfter(event.key, this.place, coursesOf(this.payload).steps.length);
    if (to === null) return;
    event.preventDefault();
    event.stopPropagation();
    this.toPlace(to);
  }
}

/** The place of a slider with `count` places after a key; null for other keys. */
export function placeAfter(key: string, place: number, count: number): number | null {
  const page = Math.max(Math.round(count / 10), 2);
  const moves: Record<string, number> = {
    ArrowLeft: place - 1,
    ArrowDown: place - 1,
    ArrowRight: place + 1,
    ArrowUp: place + 1,
    PageDown: place - page,
    PageUp: place + page,
    Home: 0,
    End: count - 1,
  };
  const to = moves[key];
  return to === undefined ? null : Math.min(Math.max(to, 0), count - 1);
}
