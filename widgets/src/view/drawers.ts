/** The drawers above and below a grid: options, the table of its numbers, and saving. */

import { cellsBetween } from "../grid/distribution";
import type { Panel, Payload } from "../grid/payload";
import type { Picture } from "../grid/picture";
import type { Theme } from "../grid/scene";
import { largest } from "../grid/statistics";
import type { Shown, View } from "../grid/view";
import { dataTable } from "./data-table";
import { button, choice, element, fillChoice, show } from "./dom";
import { Options } from "./options";
import { type Form, recoloured, type SavedTheme, save } from "./save";
import { restoreSorting, sortingOf } from "./sortable";

const FORMS: readonly Form[] = ["png", "svg", "csv", "json"];
const SAVED_THEMES: readonly SavedTheme[] = ["page", "light", "dark"];

/** What a saved file is made of. */
export interface Drawn {
  readonly picture: Picture;
  readonly theme: Theme;
  readonly source: unknown;
}

export interface DrawerActions {
  readonly change: (view: Partial<View>) => void;
  readonly choose: (cells: readonly number[]) => void;
  /** The panel whose values a choice of heads uses. */
  readonly front: () => Panel;
  /** Null while nothing is drawn. */
  readonly drawn: () => Drawn | null;
  readonly copyTable: () => void;
  /** Called after a drawer was opened or closed. */
  readonly toggled: () => void;
}

/** A drawer is filled only while it is open. */
export class Drawers {
  readonly options = element("div", { class: "drawer", role: "group", "aria-label": "Options" });
  readonly table = element("div");
  readonly saving = element("div", { class: "drawer", role: "group", "aria-label": "Save" });
  /** The buttons that open and close the drawers. */
  readonly buttons: readonly HTMLButtonElement[];
  private choices: Options | null = null;

  constructor(private readonly actions: DrawerActions) {
    this.buttons = [
      this.toggle("Options", this.options),
      this.toggle("Table", this.table),
      this.toggle("Save", this.saving),
    ];
  }

  refresh(payload: Payload, shown: Shown): void {
    if (!this.options.hidden) this.refreshOptions(payload, shown);
    this.refreshTable(shown);
    if (!this.saving.hidden && !this.saving.hasChildNodes()) this.saving.append(...this.saveButtons());
  }

  private toggle(name: string, drawer: HTMLElement): HTMLButtonElement {
    show(drawer, false);
    const made = button(
      name,
      () => {
        show(drawer, drawer.hidden);
        made.setAttribute("aria-expanded", String(!drawer.hidden));
        this.actions.toggled();
      },
      { "aria-expanded": "false" },
    );
    return made;
  }

  private refreshOptions(payload: Payload, shown: Shown): void {
    const { change, choose, front } = this.actions;
    this.choices ??= new Options(this.options, {
      change,
      selectTop: (count) => choose(largest(front().values, count)),
      selectSignificant: () =>
        choose([...front().values.keys()].filter((cell) => front().significant?.[cell])),
      selectBetween: (low, high) => choose(cellsBetween(front().values, low, high)),
    });
    this.choices.refresh(payload, shown);
  }

  /** Draw the table again at the place where the reader scrolled to, in the order that was chosen. */
  private refreshTable(shown: Shown): void {
    const { scrollLeft = 0, scrollTop = 0 } = this.table.firstElementChild ?? {};
    const sortings = [...this.table.querySelectorAll("table")].map(sortingOf);
    this.table.replaceChildren(...(this.table.hidden ? [] : [dataTable(shown)]));
    const tables = this.table.querySelectorAll("table");
    sortings.forEach((sorting, place) => {
      restoreSorting(tables[place], sorting);
    });
    this.table.firstElementChild?.scrollTo(scrollLeft, scrollTop);
  }

  private saveButtons(): Node[] {
    const theme = choice("Colours of saved pictures", () => {});
    fillChoice(theme, ["colours of the page", "light", "dark"], 0);
    const buttons = FORMS.map((form) =>
      button(form.toUpperCase(), () => {
        const drawn = this.actions.drawn();
        if (!drawn) return;
        const chosen = SAVED_THEMES[theme.selectedIndex] ?? "page";
        void save(form, ...recoloured(drawn.picture, drawn.theme, chosen), drawn.source);
      }),
    );
    const table = button("Copy as table", () => this.actions.copyTable());
    return [element("span", {}, element("span", { class: "name" }, "Save as"), ...buttons, theme), table];
  }
}
