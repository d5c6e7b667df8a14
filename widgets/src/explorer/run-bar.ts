/** Run bar: task, method and number of samples, Run and Stop buttons, and progress. */

import { button, choice, element, field, fillChoice, show } from "../view/dom";
import type { Choices, Status } from "./model";

export interface RunEvents {
  readonly task: (name: string) => void;
  readonly method: (name: string) => void;
  readonly samples: (count: number) => void;
  readonly run: () => void;
  readonly stop: () => void;
}

export class RunBar {
  readonly node = element("div", { class: "run", role: "group", "aria-label": "What to score" });
  readonly state = element("div", { class: "state", role: "status" });
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
  private readonly bar = element("progress", { max: "1", value: "0" });
  private readonly line = element("span", { class: "words" });
  private shownSamples = "1";

  constructor(private readonly events: RunEvents) {
    this.node.append(
      element("label", {}, "Task", this.task),
      element("label", {}, "Method", this.method),
      this.samples.node,
      this.runButton,
      this.stopButton,
    );
    this.state.append(this.bar, this.line);
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
    show(this.bar, !idle && status.total > 0);
    this.bar.max = Math.max(status.total, 1);
    this.bar.value = status.done;
    this.line.textContent = status.state === "stopping" ? "stopping…" : status.line || status.note;
    this.problem.textContent = status.error;
    show(this.problem, status.error !== "");
  }
}
