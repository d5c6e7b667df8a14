/** The explorer on a page: run bar, grid, and tabs with details of the selected heads. */

import { element } from "../view/dom";
import { GridView } from "../view/grid-view";
import { guardKeys } from "../view/shortcuts";
import { styledRoot } from "../view/style";
import { AttentionTab } from "./attention-tab";
import { addExplorerStyle } from "./explorer-style";
import { HeadTab } from "./head-tab";
import { InterveneTab } from "./intervene-tab";
import { type Command, type ExplorerModel, given } from "./model";
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
  private readonly unguard: () => void;

  constructor(
    private readonly host: HTMLElement,
    private readonly traits: Traits,
  ) {
    this.bar = new RunBar({
      task: (name) => traits.set("task", name),
      method: (name) => traits.set("method", name),
      samples: (count) => traits.set("samples", count),
      run: () => traits.send({ do: "run" }),
      stop: () => traits.send({ do: "stop" }),
    });
    this.grid = new GridView(this.gridHost, { selected: (names) => traits.set("selected", names) });
    this.headTab = new HeadTab({
      focus: (head) => traits.set("focused", head),
      attend: (head, place) => this.attend(head, place),
    });
    this.interveneTab = new InterveneTab({
      ablate: (factor, tasks, controls) =>
        traits.send({ do: "ablate", factor, heads: traits.get("selected"), tasks, controls }),
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
    const card = element("section", { class: "card", "aria-label": "Head explorer" });
    card.append(this.bar.node, this.bar.state, this.bar.problem, this.gridHost, this.tabs.node);
    root.replaceChildren(card);
    this.unguard = guardKeys(host);
    for (const name of TRAITS) this.refresh(name);
  }

  /** Update the parts of the view that show a trait. */
  refresh(name: keyof ExplorerModel): void {
    this.parts[name]();
  }

  dispose(): void {
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
    status: () => this.showStatus(),
    attention: () => this.attentionTab.refresh(given(this.traits.get("attention"))),
    ablation: () => this.interveneTab.showResult(given(this.traits.get("ablation"))),
  };

  private attend(head: string, place: number): void {
    this.traits.send({ do: "attend", head, place });
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
    const status = this.traits.get("status");
    const busy = status.state !== "idle";
    this.bar.showStatus(status);
    this.headTab.setBusy(busy);
    this.interveneTab.setBusy(busy);
  }
}

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
