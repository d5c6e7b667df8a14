/** Run bar: task, method and number of samples, Run and Stop buttons, and progress. */

import { button, choice, element, field, fillChoice, show } from "../view/dom";
import type { Choices, Status } from "./model";
import { Working } from "./working";

export interface RunEvents {
  readonly task: (name: string) => void;
  readonly method: (name: string) => void;
  readonly samples: (count: number) => void;
  readonly run: () => void;
  readonly stop: () => void;
}

export class RunBar {
  readonly node = element("div", { class: "run", role: "group", "aria-label": "What to score" });
  readonly state: HTMLElement;
  readonly problem = element("div", { class: "error words", role: "alert" });
  private choices: Choices = { model: "", tasks: [], methods: {} };
  private readonly task = choice("Task", (index) => this.events.task(this.choices.tasks[index] ?? ""));
  private readonly method = choice("Method", (index) =>
    this.events.method(Object.keys(this.choices.methods)[index] ?? ""),
  );
  private readonly samples = field("Samples", { type: "number", min: "1", step: "1" }, (input) => {
    const count = Math.floor(input.valueAsNumber);
    if (count >= 1) this.events.samples(count);
    else input.value = this.shownSamples;
  });
  private readonly runButton = button("Run", () => this.events.run(), { class: "main" });
  private readonly stopButton = button("Stop", () => this.events.stop());
  private readonly working: Working;
  private shownSamples = "1";

  /** `result` is marked as busy during scoring. */
  constructor(
    private readonly events: RunEvents,
    result: HTMLElement,
  ) {
    this.working = new Working(result, { class: "working state", role: "status" });
    this.state = this.working.node;
    this.node.append(
      element("label", {}, "Task", this.task),
      element("label", {}, "Method", this.method),
      this.samples.node,
      this.runButton,
      this.stopButton,
    );
  }

  refresh(choices: Choices, task: string, method: string, samples: number): void {
    this.choices = choices;
    const methods = Object.keys(choices.methods);
    fillChoice(this.task, choices.tasks, choices.tasks.indexOf(task));
    fillChoice(this.method, methods, methods.indexOf(method));
    this.method.title = choices.methods[method] ?? "";
    this.shownSamples = String(samples);
    this.samples.input.value = this.shownSamples;
    show(this.node, methods.length > 0);
  }

  showStatus(status: Status): void {
    const idle = status.state === "idle";
    this.runButton.disabled = !idle;
    this.stopButton.disabled = status.state !== "running";
    this.task.disabled = this.method.disabled = this.samples.input.disabled = !idle;
    this.working.refresh(status.state === "stopping" ? { ...status, line: "stopping…" } : status);
    this.problem.textContent = status.error;
    show(this.problem, status.error !== "");
  }
}
