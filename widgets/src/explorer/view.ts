/** The explorer on a page: run bar, grid, and tabs with details of the selected heads. */

import { element } from "../view/dom";
import { GridView } from "../view/grid-view";
import { guardKeys } from "../view/shortcuts";
import { styledRoot, WIDE } from "../view/style";
import { AttentionTab } from "./attention-tab";
import { addExplorerStyle } from "./explorer-style";
import { HeadTab } from "./head-tab";
import { InterveneTab } from "./intervene-tab";
import { type Command, type ExplorerModel, given, type Job, type Status } from "./model";
import { RunBar } from "./run-bar";
import { Tabs } from "./tabs";

/** Access of a view to the traits and commands. */
export interface Traits {
  readonly get: <Name extends keyof ExplorerModel>(name: Name) => ExplorerModel[Name];
  readonly set: <Name extends keyof ExplorerModel>(name: Name, value: ExplorerModel[Name]) => void;
  readonly send: (command: Command) => void;
}

export class ExplorerView {
  private readonly bar: RunBar;
  private readonly grid: GridView;
  private readonly gridHost = element("div");
  private readonly headTab: HeadTab;
  private readonly attentionTab = new AttentionTab();
  private readonly interveneTab: InterveneTab;
  private readonly tabs: Tabs;
  private readonly card = element("section", { class: "card", "aria-label": "Head explorer" });
  private readonly size: ResizeObserver;
  private readonly unguard: () => void;
  /** Work that was requested and that the kernel has not begun. */
  private asked: Job | "" = "";

  constructor(
    private readonly host: HTMLElement,
    private readonly traits: Traits,
  ) {
    this.bar = new RunBar(
      {
        task: (name) => traits.set("task", name),
        method: (name) => traits.set("method", name),
        samples: (count) => traits.set("samples", count),
        run: () => this.ask({ do: "run" }),
        stop: () => traits.send({ do: "stop" }),
      },
      this.gridHost,
    );
    this.grid = new GridView(this.gridHost, { selected: (names) => traits.set("selected", names) });
    this.headTab = new HeadTab({
      focus: (head) => traits.set("focused", head),
      attend: (head, place) => this.attend(head, place),
    });
    this.interveneTab = new InterveneTab({
      ablate: (factor, tasks, controls) =>
        this.ask({ do: "ablate", factor, heads: traits.get("selected"), tasks, controls }),
    });
    this.tabs = new Tabs(
      new Map([
        ["Head", this.headTab.node],
        ["Attention", this.attentionTab.node],
        ["Intervene", this.interveneTab.node],
      ]),
    );
    const root = styledRoot(host);
    addExplorerStyle(root);
    const main = element("div", { class: "columns" }, this.gridHost, this.tabs.node);
    this.card.append(this.bar.node, this.bar.state, this.bar.problem, main);
    root.replaceChildren(this.card);
    this.arrange();
    this.size = new ResizeObserver(() => this.arrange());
    this.size.observe(this.card);
    this.unguard = guardKeys(host);
    for (const name of TRAITS) this.refresh(name);
  }

  /** Update the parts of the view that show a trait. */
  refresh(name: keyof ExplorerModel): void {
    this.parts[name]();
  }

  dispose(): void {
    this.size.disconnect();
    this.grid.dispose();
    this.unguard();
    this.host.shadowRoot?.replaceChildren();
  }

  private readonly parts: Readonly<Record<keyof ExplorerModel, () => void>> = {
    payload: () => this.showGrid(),
    selected: () => {
      this.grid.select(this.traits.get("selected"));
      this.showHead();
      this.showIntervene();
    },
    focused: () => this.showHead(),
    head: () => this.showHead(),
    task: () => this.showChoices(),
    method: () => this.showChoices(),
    samples: () => this.showChoices(),
    choices: () => this.showChoices(),
    status: () => {
      this.asked = "";
      this.showStatus();
    },
    attention: () => this.attentionTab.refresh(given(this.traits.get("attention"))),
    ablation: () => this.interveneTab.showResult(given(this.traits.get("ablation"))),
  };

  /** Put the tabs beside the grid if there is room, so that a click in the grid needs no scrolling. */
  private arrange(): void {
    this.card.classList.toggle("wide", this.card.clientWidth >= WIDE);
  }

  /** Send a command that starts a job, and show at once that something happens. */
  private ask(command: Command & { do: Job }): void {
    this.traits.send(command);
    this.asked = command.do;
    this.showStatus();
  }

  private attend(head: string, place: number): void {
    this.ask({ do: "attend", head, place });
    this.tabs.open("Attention");
  }

  private showGrid(): void {
    this.grid.show(this.traits.get("payload"));
    this.grid.select(this.traits.get("selected"));
  }

  private showHead(): void {
    const detail = given(this.traits.get("head"));
    const focused = this.traits.get("focused");
    this.headTab.refresh(this.traits.get("selected"), focused, detail?.head === focused ? detail : null);
  }

  private showIntervene(): void {
    const { tasks } = this.traits.get("choices");
    this.interveneTab.refresh(this.traits.get("selected"), tasks ?? [], this.traits.get("task"));
  }

  private showChoices(): void {
    const choices = this.traits.get("choices");
    if (!choices.tasks) return;
    this.bar.refresh(choices, this.traits.get("task"), this.traits.get("method"), this.traits.get("samples"));
    this.showIntervene();
  }

  private showStatus(): void {
    const last = this.traits.get("status");
    const status: Status = this.asked ? { ...last, ...WAITING, job: this.asked, error: "" } : last;
    this.bar.showStatus(status);
    this.headTab.setBusy(status.state !== "idle");
    this.attentionTab.showStatus(status);
    this.interveneTab.showStatus(status);
  }
}

const WAITING = { state: "running", line: "waiting for the kernel…", done: 0, total: 0 } as const;

export const TRAITS = [
  "choices",
  "task",
  "method",
  "samples",
  "payload",
  "selected",
  "focused",
  "head",
  "attention",
  "ablation",
  "status",
] as const satisfies readonly (keyof ExplorerModel)[];
