/** A head grid on a page, used by the JupyterLab renderer, the live widget and the HTML page. */

import { cellsOf, namesOf, sameHeads } from "../grid/heads";
import { type History, remembered } from "../grid/history";
import type { Box } from "../grid/layout";
import type { Part } from "../grid/parts";
import { isUnscored, type Payload } from "../grid/payload";
import type { Picture } from "../grid/picture";
import { PayloadError, readPayload } from "../grid/reading";
import type { Theme } from "../grid/scene";
import { NOTHING, type Selection, selected } from "../grid/selection";
import { asTabs, tableRows } from "../grid/table";
import {
  changed,
  firstView,
  keepView,
  linesOf,
  ofPanel,
  partsOf,
  type Shown,
  shown,
  type View,
} from "../grid/view";
import { heading, number, progressLine, quantityWithUnits, subtitle } from "../grid/words";
import { Aside } from "./aside";
import { Chooser } from "./chooser";
import { element, show } from "./dom";
import { Drawers } from "./drawers";
import { LossSlider } from "./loss-slider";
import { copy } from "./save";
import { SelectionBar } from "./selection-bar";
import { guardKeys } from "./shortcuts";
import { type Described, type Pointed, Stage } from "./stage";
import { styledRoot, WIDE } from "./style";
import { readTheme, sameTheme, watchTheme } from "./theme";
import { Tooltip } from "./tooltip";

export interface GridEvents {
  /** Called with the names of the selected heads, in the grid's order, when the reader changes the selection. */
  readonly selected?: (names: string[]) => void;
}

const KEYS =
  "Arrow keys move the cursor, Space selects a head, Shift Space its layer, Control Space this head of all layers, " +
  "Shift extends the selection, Control C copies it, Control Z undoes its last change. Escape closes the tooltip, " +
  "and without one it clears the selection.";

export class GridView {
  private readonly card = element("section", { class: "card" });
  private readonly probe = element("span", { class: "probe", "aria-hidden": "true" });
  private readonly title = element("span", { class: "title words" });
  private readonly subtitle = element("span", { class: "quiet words" });
  private readonly progress = element("div", { class: "progress" });
  private readonly status = element("div", { class: "unseen", role: "status" });
  private readonly problem = element("div", { class: "error words", role: "alert" });
  private readonly warning = element("div", { class: "error words", role: "alert" });
  private readonly scroller = element("div", { class: "scroller" });
  private readonly drawers = new Drawers({
    change: (view) => this.change(view),
    choose: (cells) => this.choose(cells),
    front: () => this.front(),
    drawn: () =>
      this.picture && this.theme && { picture: this.picture, theme: this.theme, source: this.source },
    copyTable: () => this.copyTable(),
    toggled: () => this.refreshDrawers(),
  });
  private readonly body = element("div");
  private readonly pictures = element("div", { class: "body" });
  private readonly keys = element("div", { class: "unseen", id: "keys" }, KEYS);
  private readonly tooltip = new Tooltip(this.card);
  private readonly chooser = new Chooser((panel) => this.change({ panel, difference: null }), this.pictures);
  private readonly losses = new LossSlider((panel) => this.change({ panel, difference: null }));
  private readonly aside = new Aside({
    choose: (cell, adding) => this.choose([cell], adding),
    point: (cell, entry) => this.pointBeside(cell, entry),
  });
  private readonly bar = new SelectionBar({
    copy: () => this.copySelection(),
    clear: () => this.choose([]),
    undo: () => this.undo(),
  });
  private readonly stage: Stage;
  private readonly size: ResizeObserver;
  private readonly unguard: () => void;
  private readonly unwatch: () => void;
  private source: unknown = null;
  private payload: Payload | null = null;
  private view: View | null = null;
  private shown: Shown | null = null;
  private picture: Picture | null = null;
  private theme: Theme | null = null;
  private selection: Selection = NOTHING;
  /** The selected cells before a drag that goes on. */
  private settled: ReadonlySet<number> = NOTHING.cells;
  private history: History = [];
  private width = 0;

  constructor(
    private readonly host: HTMLElement,
    private readonly events: GridEvents = {},
  ) {
    this.stage = new Stage(
      {
        selected: (selection, settled) => this.onSelected(selection, settled),
        undone: () => this.undo(),
        pointed: (at) => this.explain(at),
        copied: () => this.copySelection(),
      },
      (cell) => this.describe(cell),
    );
    this.assemble();
    this.unwatch = watchTheme(this.card, this.probe, () => this.onTheme());
    this.unguard = guardKeys(host);
    this.size = new ResizeObserver(() => this.onResize());
    this.size.observe(this.card);
  }

  /** Show a payload (parsed, or as JSON text). If it is invalid, show only an error message. */
  show(source: unknown): void {
    try {
      const payload = readPayload(source);
      this.view = this.view && this.payload ? keepView(this.view, this.payload, payload) : opened(payload);
      if (this.payload && !sameHeads(this.payload, payload)) {
        this.selection = NOTHING;
        this.settled = NOTHING.cells;
        this.history = [];
        this.stage.forget();
      }
      this.payload = payload;
      this.source = source;
      show(this.problem, false);
      show(this.body, true);
      this.refresh();
    } catch (error) {
      const reason =
        error instanceof PayloadError
          ? error.message
          : `this head grid could not be drawn (${String(error)})`;
      this.fail(reason);
    }
  }

  /** Show an error message instead of the grid. */
  private fail(reason: string): void {
    this.chooser.stop();
    this.tooltip.hide();
    this.problem.textContent = reason;
    show(this.problem, true);
    show(this.body, false);
  }

  /** Show a message above the grid, such as an error of Python; none if it is empty. */
  warn(message: string): void {
    this.warning.textContent = message;
    show(this.warning, message !== "");
  }

  /** Select heads by name; names that the model does not have are ignored, and so is anything but a list. */
  select(names: unknown): void {
    if (!this.payload) return;
    this.selection = { ...this.selection, cells: cellsOf(Array.isArray(names) ? names : [], this.payload) };
    this.stage.select(this.selection);
    this.settle(this.selection.cells);
    this.refreshBar();
  }

  dispose(): void {
    this.size.disconnect();
    this.tooltip.hide();
    this.unguard();
    this.unwatch();
    this.chooser.stop();
    this.card.remove();
  }

  private assemble(): void {
    const { options, table, saving, buttons } = this.drawers;
    const tools = element("div", { class: "tools", role: "group", "aria-label": "Head grid" }, ...buttons);
    this.scroller.append(this.stage.node);
    this.stage.node.setAttribute("aria-describedby", this.keys.id);
    this.pictures.append(this.scroller, this.aside.node);
    this.body.append(
      element("header", {}, element("div", {}, this.title, this.subtitle), tools),
      ...[options, saving, this.warning, this.progress, this.losses.node, this.chooser.node],
      ...[this.pictures, this.keys, this.bar.node, table],
    );
    this.card.append(this.probe, this.problem, this.body, this.tooltip.node, this.status);
    show(this.body, false);
    show(this.problem, false);
    show(this.warning, false);
    styledRoot(this.host).replaceChildren(this.card);
  }

  private change(change: Partial<View>): void {
    if (!this.view) return;
    this.view = changed(this.view, change);
    this.refresh();
  }

  private refresh(): void {
    const { payload, view } = this;
    if (!payload || !view) return;
    this.shown = shown(payload, view);
    const name = heading(payload);
    this.title.textContent = name;
    this.subtitle.textContent = subtitle(payload);
    this.card.setAttribute("aria-label", `Head grid: ${name}`);
    this.refreshProgress(payload);
    this.chooser.refresh(payload, view.panel, !view.sideBySide, !view.difference);
    this.aside.refresh(this.shown);
    this.refreshBar();
    this.refreshDrawers();
    this.draw();
    this.stage.explainAgain();
  }

  private refreshBar(): void {
    if (!this.shown) return;
    const panel = this.front();
    const { payload } = ofPanel(this.shown, panel);
    this.bar.refresh(payload, panel, this.selection.cells, this.history.length > 0);
  }

  private refreshProgress(payload: Payload): void {
    const { progress } = payload;
    show(this.progress, progress !== null);
    if (!progress) return;
    const bar = element("progress", {
      max: String(Math.max(progress.total, 1)),
      value: String(progress.done),
      "aria-label": "Progress",
    });
    const words = element("span", { class: "words" }, progressLine(payload));
    this.progress.replaceChildren(...(isUnscored(payload) ? [words] : [bar, words]));
  }

  private refreshDrawers(): void {
    if (this.payload && this.shown) this.drawers.refresh(this.payload, this.shown);
  }

  private draw(): void {
    const width = this.card.clientWidth;
    if (!this.shown || width === 0) return;
    this.width = width;
    this.card.classList.toggle("wide", width >= WIDE);
    this.theme = readTheme(this.card, this.probe);
    if (this.payload && this.view) {
      this.losses.draw(this.payload, this.view.panel, !this.view.difference, this.theme, width);
    }
    this.picture = this.stage.draw(this.shown, this.theme, width, this.selection);
    const { payload } = this.shown;
    const colours = partsOf(this.shown).map(scaleWords).join("; ");
    this.stage.node.setAttribute("aria-label", `${subtitle(payload)}. ${colours}.`);
  }

  private onResize(): void {
    if (this.card.clientWidth !== this.width) this.draw();
  }

  private onTheme(): void {
    if (!sameTheme(this.theme, readTheme(this.card, this.probe))) this.draw();
  }

  private onSelected(selection: Selection, settled = true): void {
    this.selection = selection;
    if (settled) this.settle(selection.cells);
    this.refreshBar();
    if (settled) this.announce();
  }

  private undo(): void {
    const cells = this.history.at(-1);
    if (!cells) return;
    this.history = this.history.slice(0, -1);
    this.settled = cells;
    this.selection = { ...this.selection, cells };
    this.stage.select(this.selection);
    this.refreshBar();
    this.announce();
  }

  /** Remember the selection before a change, for undo. */
  private settle(cells: ReadonlySet<number>): void {
    this.history = remembered(this.history, this.settled, cells);
    this.settled = cells;
  }

  /** Tell screen readers and the host about the selection. */
  private announce(): void {
    if (!this.payload) return;
    const { cells } = this.selection;
    const count = cells.size;
    this.status.textContent = count ? `${count} head${count > 1 ? "s" : ""} selected` : "no head selected";
    this.events.selected?.(namesOf(cells, this.payload));
  }

  private choose(cells: readonly number[], adding = false): void {
    if (!this.payload) return;
    const after = cells.length
      ? selected(this.selection, cells, adding ? "toggle" : "replace", this.payload)
      : NOTHING;
    this.stage.select(after);
    this.onSelected(after);
  }

  private async copyTable(): Promise<void> {
    if (this.shown) this.tellCopied(await copy(asTabs(tableRows(this.shown)), this.card));
  }

  private tellCopied(done: boolean): void {
    this.status.textContent = done ? "copied" : "this page cannot write to the clipboard";
  }

  private async copySelection(): Promise<void> {
    if (!this.payload) return;
    const done = await copy(namesOf(this.selection.cells, this.payload).join(","), this.card);
    this.bar.copied(done);
    this.tellCopied(done);
  }

  private explain(at: Pointed | Part | null): void {
    if (at && "lines" in at) this.tooltip.explainPart(at, this.inCard(at.free, this.stage.node));
    else if (at) this.explainHead(at.panel, at.cell, this.inCard(at.box, this.stage.node));
    else this.tooltip.hide();
  }

  private explainHead(index: number, cell: number, box: Box): void {
    const { payload, shown, theme } = this;
    const panel = shown?.panels[index];
    if (panel && payload && shown && theme) this.tooltip.explain(payload, shown, panel, theme, cell, box);
    else this.tooltip.hide();
  }

  /** A box inside a node, in the card's coordinates. */
  private inCard(box: Box, node: HTMLElement): Box {
    const [inner, card] = [node.getBoundingClientRect(), this.card.getBoundingClientRect()];
    return { ...box, x: box.x + inner.left - card.left, y: box.y + inner.top - card.top };
  }

  /** Outline and explain a head that is pointed at in the text beside the grid; null: none. */
  private pointBeside(cell: number | null, entry: HTMLElement): void {
    this.stage.highlight(cell);
    const { offsetWidth: width, offsetHeight: height } = entry;
    if (cell === null) this.tooltip.hide();
    else this.explainHead(this.frontPlace(), cell, this.inCard({ x: 0, y: 0, width, height }, entry));
  }

  /** What screen readers say of a cell, and the place of the panel that it is about. */
  private describe(cell: number): Described {
    const words = this.shown ? linesOf(this.shown, this.front(), cell).join(", ") : "";
    return { panel: this.frontPlace(), words };
  }

  private frontPlace(): number {
    return this.shown?.panels.indexOf(this.front()) ?? 0;
  }

  /** The panel whose values describe a selection: the change if one is shown, else the first panel. */
  private front() {
    const panel = this.shown?.panels.find(({ own }) => own?.kind === "difference") ?? this.shown?.panels[0];
    if (!panel) throw new Error("nothing is shown");
    return panel;
  }
}

/** `activation level (nats), colour scale from 0 to 0.412`. */
function scaleWords({ payload }: Shown): string {
  const { low, high } = payload.scale;
  return `${quantityWithUnits(payload)}, colour scale from ${number(low)} to ${number(high)}`;
}

/** The initial view; it shows the distribution below a single grid, but not below several. */
function opened(payload: Payload): View {
  const view = firstView(payload);
  return { ...view, distribution: !view.sideBySide && !view.compared };
}
