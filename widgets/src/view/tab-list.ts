/** A row of tabs, of which one is selected. The arrow keys, Home and End select another one. */

import { button, element } from "./dom";

export class TabList {
  readonly node: HTMLElement;

  /** `chosen` receives the place of the tab that the reader selects; it must call `refresh`. */
  constructor(
    private readonly chosen: (place: number) => void,
    attributes: Readonly<Record<string, string>> = {},
  ) {
    this.node = element("div", { role: "tablist", ...attributes });
    this.node.addEventListener("keydown", (event) => this.onKey(event));
  }

  /** `controlled`: the ids of the panels of the tabs. Existing tabs keep clicks and the focus, also in a live grid. */
  refresh(titles: readonly string[], selected: number, controlled: readonly string[]): void {
    const had = this.node.contains((this.node.getRootNode() as ShadowRoot).activeElement);
    if (this.tabs.length !== titles.length || this.tabs.some((tab, i) => tab.textContent !== titles[i])) {
      const made = titles.map((title, i) => button(title, () => this.chosen(i), { role: "tab" }));
      this.node.replaceChildren(...made);
    }
    this.tabs.forEach((tab, i) => {
      tab.setAttribute("aria-controls", controlled[i] ?? "");
      tab.setAttribute("aria-selected", String(i === selected));
      tab.tabIndex = i === selected ? 0 : -1;
    });
    if (had) this.tabs[selected]?.focus();
  }

  private get tabs(): HTMLElement[] {
    return [...this.node.children] as HTMLElement[];
  }

  private onKey(event: KeyboardEvent): void {
    const last = this.tabs.length - 1;
    const now = this.tabs.findIndex((tab) => tab.tabIndex === 0);
    const places: Record<string, number> = {
      ArrowLeft: now === 0 ? last : now - 1,
      ArrowRight: now === last ? 0 : now + 1,
      Home: 0,
      End: last,
    };
    const to = places[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.chosen(to);
  }
}
