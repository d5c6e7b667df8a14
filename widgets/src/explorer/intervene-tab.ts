/** Intervene tab: ablate or scale the selected heads, and show the change of each task's loss and of generated text. */

import { namesLine, number } from "../grid/words";
import { button, element, field, show } from "../view/dom";
import { intervalChart } from "./charts";
import type { Ablation, AblationRow, Status } from "./model";
import { Working } from "./working";

const CONTROLS = 3;
const MOST_TASKS = 24;

export interface InterveneEvents {
  readonly ablate: (factor: number, tasks: string[], controls: number) => void;
}

export class InterveneTab {
  readonly node = element("div");
  private readonly heads = element("p", { class: "words" });
  private readonly factor = field(
    "Multiply head outputs by",
    { type: "number", step: "0.1", value: "0" },
    () => undefined,
  );
  private readonly controls = field(
    `compare with ${CONTROLS} random sets of other heads of the same layers`,
    { type: "checkbox" },
    () => undefined,
  );
  private readonly tasks = element("fieldset", { class: "tasks", "aria-label": "Tasks" });
  private readonly go = button("Measure", () => this.measure(), { class: "main" });
  private readonly result = element("div");
  private readonly working = new Working(this.result);
  private names: readonly string[] = [];
  private selected: readonly string[] = [];
  private busy = false;

  constructor(private readonly events: InterveneEvents) {
    this.node.append(
      this.heads,
      element(
        "div",
        { class: "row" },
        this.factor.node,
        element("span", { class: "quiet" }, "0 ablates the heads, 1 leaves them unchanged"),
        this.controls.node,
      ),
      element("div", { class: "row" }, element("span", {}, "Loss on"), this.tasks, this.go),
      this.working.node,
      this.result,
    );
  }

  refresh(selected: readonly string[], tasks: readonly string[], task: string): void {
    this.selected = selected;
    this.heads.textContent = selected.length
      ? `Selected: ${namesLine(selected)}`
      : "Select heads in the grid to ablate or scale them.";
    const offered = tasks.length > MOST_TASKS ? [task] : tasks;
    if (offered.join("\n") !== this.names.join("\n")) {
      this.names = offered;
      const boxes = offered.map((name) =>
        field(name, { type: "checkbox", value: name }, () => this.enable()),
      );
      this.tasks.replaceChildren(...boxes.map((box) => box.node));
      for (const { input } of boxes) input.checked = input.value === task;
    }
    this.enable();
  }

  showStatus(status: Status): void {
    this.busy = status.state !== "idle";
    this.working.refresh(status.job === "ablate" ? status : null);
    this.enable();
  }

  showResult(ablation: Ablation | null): void {
    show(this.result, ablation !== null);
    if (!ablation) return;
    const done = ablation.factor === 0 ? "ablated" : `scaled by ${ablation.factor}`;
    this.result.replaceChildren(
      element("p", { class: "words" }, `${namesLine(ablation.heads)} ${done}`),
      ablation.rows.length ? element("div", { class: "scroller" }, table(ablation.rows)) : "",
      ...texts(ablation),
    );
  }

  private wanted(): string[] {
    return [...this.tasks.querySelectorAll("input")].flatMap((box) => (box.checked ? [box.value] : []));
  }

  private enable(): void {
    this.go.disabled = this.busy || !this.selected.length || !this.wanted().length;
  }

  private measure(): void {
    const factor = this.factor.input.valueAsNumber;
    if (!Number.isFinite(factor)) {
      this.factor.input.focus();
      return;
    }
    this.events.ablate(factor, this.wanted(), this.controls.input.checked ? CONTROLS : 0);
  }
}

function table(rows: readonly AblationRow[]): Node {
  const reach = Math.max(
    1e-9,
    ...rows.flatMap((row) => [row.change, row.low ?? 0, row.high ?? 0, ...row.controls].map(Math.abs)),
  );
  const compared = rows.some((row) => row.controls.length);
  const titles = [
    "task",
    "loss before",
    "loss after",
    `change, 95 % interval (nats; axis ±${number(reach, 2)})`,
    ...(compared ? ["random heads (○)"] : []),
    "samples",
  ];
  const head = element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title)));
  const body = rows.map((row) => {
    const interval =
      row.low === null || row.high === null ? "" : ` (${signed(row.low)} to ${signed(row.high)})`;
    const others = row.controls.map(signed).join(", ");
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, row.task),
      element("td", { class: "number" }, number(row.before)),
      element("td", { class: "number" }, number(row.after)),
      element(
        "td",
        { class: "change" },
        element("div", {}, `${signed(row.change)}${interval}`),
        intervalChart(row.change, row.low, row.high, row.controls, reach),
      ),
      ...(compared ? [element("td", {}, others)] : []),
      element("td", { class: "number" }, String(row.samples)),
    );
  });
  return element("table", { class: "changes" }, element("thead", {}, head), element("tbody", {}, ...body));
}

function texts({ generation }: Ablation): Node[] {
  if (!generation) return [];
  const { task, sample, prompt, before, after } = generation;
  const named = {
    [`prompt (sample ${sample} of ${task})`]: prompt,
    "before intervention": before,
    "after intervention": after,
  };
  const entries = Object.entries(named).flatMap(([name, text]) => [
    element("dt", {}, name),
    element("dd", { class: name.split(" ")[0] ?? "" }, text || "(nothing)"),
  ]);
  return [element("dl", { class: "texts" }, ...entries)];
}

/** `+0.0120`, `−0.400`. */
export function signed(value: number): string {
  return value > 0 ? `+${number(value)}` : number(value);
}
