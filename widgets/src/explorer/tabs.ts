/** Named tab panels, one of which is visible; arrow keys switch between the tabs. */

import { button, element, show } from "../view/dom";

let count = 0;

export class Tabs {
  readonly node = element("div");
  private readonly list = element("div", { class: "tabs", role: "tablist" });
  private readonly tabs = new Map<string, { tab: HTMLButtonElement; panel: HTMLElement }>();

  constructor(panels: ReadonlyMap<string, HTMLElement>) {
    const id = `headnb-tabs-${count++}`;
    this.node.append(this.list);
    for (const [name, contents] of panels) {
      const panel = element(
        "div",
        { class: "tabpanel", role: "tabpanel", "aria-label": name, id: `${id}-${name}` },
        contents,
      );
      const tab = button(name, () => this.open(name), { role: "tab", "aria-controls": panel.id });
      this.tabs.set(name, { tab, panel });
      this.list.append(tab);
      this.node.append(panel);
    }
    this.list.addEventListener("keydown", (event) => this.move(event));
    this.open([...panels.keys()][0] ?? "");
  }

  open(name: string): void {
    for (const [other, { tab, panel }] of this.tabs) {
      const front = other === name;
      tab.setAttribute("aria-selected", String(front));
      tab.tabIndex = front ? 0 : -1;
      show(panel, front);
    }
  }

  private move(event: KeyboardEvent): void {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const names = [...this.tabs.keys()];
    const now = names.findIndex((name) => this.tabs.get(name)?.tab.tabIndex === 0);
    const next = names[(now + step + names.length) % names.length] ?? "";
    this.open(next);
    this.tabs.get(next)?.tab.focus();
    event.preventDefault();
  }
}
