/** Named tab panels, one of which is visible. */

import { element, show } from "../view/dom";
import { TabList } from "../view/tab-list";

let count = 0;

export class Tabs {
  readonly node = element("div");
  private readonly list = new TabList((place) => this.open(this.names[place] ?? ""), { class: "tabs" });
  private readonly panels: ReadonlyMap<string, HTMLElement>;

  constructor(contents: ReadonlyMap<string, HTMLElement>) {
    const id = `headnb-tabs-${count++}`;
    const panels = [...contents].map(([name, content]): [string, HTMLElement] => [
      name,
      element(
        "div",
        { class: "tabpanel", role: "tabpanel", "aria-label": name, id: `${id}-${name}` },
        content,
      ),
    ]);
    this.panels = new Map(panels);
    this.node.append(this.list.node, ...this.panels.values());
    this.open(this.names[0] ?? "");
  }

  open(name: string): void {
    const panels = [...this.panels.values()];
    this.list.refresh(
      this.names,
      this.names.indexOf(name),
      panels.map(({ id }) => id),
    );
    for (const [other, panel] of this.panels) show(panel, other === name);
  }

  private get names(): string[] {
    return [...this.panels.keys()];
  }
}
