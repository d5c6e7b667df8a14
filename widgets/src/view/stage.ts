/** The picture on two canvases, one of them for the overlay that follows the mouse; handles pointer and keyboard. */

import { clicked, dragged } from "../grid/drag";
import { placeOf } from "../grid/heads";
import { cellBox, type Hit, hitTest } from "../grid/hit";
import type { Box } from "../grid/layout";
import { framed, overlay } from "../grid/overlay";
import { type Part, partAt } from "../grid/parts";
import { type Picture, picture } from "../grid/picture";
import type { Theme } from "../grid/scene";
import { type Key, pressed, type Selection, type SelectMode, selected } from "../grid/selection";
import type { Shown } from "../grid/view";
import { element, show } from "./dom";
import { paintOn } from "./paint";

export interface StageEvents {
  /** Called with `settled` false while a drag goes on. */
  readonly selected: (selection: Selection, settled: boolean) => void;
  readonly undone: () => void;
  /** The head or part under the mouse, or the head at the keyboard cursor; null if there is none. */
  readonly pointed: (at: Pointed | Part | null) => void;
  readonly copied: () => void;
}

export interface Pointed {
  readonly panel: number;
  readonly cell: number;
  /** The cell in CSS pixels from the stage's top left corner. */
  readonly box: Box;
}

export interface Described {
  readonly panel: number;
  readonly words: string;
}

interface Drag {
  readonly from: Hit;
  readonly anchor: number | undefined;
  /** Cells that stay selected in addition to the rectangle. */
  readonly kept: ReadonlySet<number>;
  moved: boolean;
}

export class Stage {
  readonly node = element("div", {
    class: "stage",
    tabindex: "0",
    role: "grid",
    "aria-multiselectable": "true",
  });
  private readonly base = element("canvas", { "aria-hidden": "true" });
  private readonly above = element("canvas", { "aria-hidden": "true" });
  // Two cells alternate, since a screen reader speaks only when the active descendant changes.
  private readonly spoken = [0, 1].map((i) => element("div", { role: "gridcell", id: `cell-${i}` }));
  private readonly row = element("div", { role: "row", class: "unseen" }, ...this.spoken);
  private picture: Picture | null = null;
  private theme: Theme = { ink: "#000000", page: "#ffffff", font: "sans-serif" };
  private selection: Selection = { cells: new Set(), cursor: null, anchor: null };
  private pointed: Pointed | null = null;
  private part: Part | null = null;
  private explained: Pointed | Part | null = null;
  private keyboard = false;
  private drag: Drag | null = null;

  constructor(
    private readonly events: StageEvents,
    private readonly describe: (cell: number) => Described,
  ) {
    this.node.append(this.base, this.above, this.row);
    this.node.addEventListener("pointermove", (event) => this.onMove(event));
    this.node.addEventListener("pointerdown", (event) => this.onDown(event));
    this.node.addEventListener("pointerup", (event) => this.onUp(event));
    this.node.addEventListener("pointercancel", () => this.endDrag());
    this.node.addEventListener("pointerleave", () => this.drag ?? this.point(null));
    this.node.addEventListener("keydown", (event) => this.onKey(event));
    this.node.addEventListener("blur", () => this.leave());
  }

  draw(shown: Shown, theme: Theme, width: number, selection: Selection): Picture {
    this.theme = theme;
    this.selection = selection;
    this.picture = picture(shown, theme, width);
    const { scene } = this.picture;
    this.node.style.width = `${scene.width}px`;
    this.node.setAttribute("aria-rowcount", String(shown.payload.layers));
    this.node.setAttribute("aria-colcount", String(shown.payload.heads));
    paintOn(this.base, scene, theme);
    this.drawAbove();
    return this.picture;
  }

  select(selection: Selection): void {
    this.selection = selection;
    this.drawAbove();
  }

  /** Update the tooltip after the picture has changed. */
  explainAgain(): void {
    const { explained: at, picture: drawn } = this;
    if (at && drawn && "lines" in at) {
      const { x, y, width, height } = at.box;
      this.explain(partAt(drawn, x + width / 2, y + height / 2));
    } else this.explain(at && "cell" in at ? this.at(at.panel, at.cell) : null);
  }

  /** Forget the head under the mouse, after the grid's heads have changed. */
  forget(): void {
    this.pointed = this.explained = this.part = null;
  }

  /** Outline a head in all panels, as if the mouse were on it. */
  highlight(cell: number | null): void {
    this.pointed = cell === null ? null : this.at(0, cell);
    this.drawAbove();
  }

  private drawAbove(): void {
    if (!this.picture) return;
    const pointed = this.pointed?.cell ?? null;
    const scene = overlay(this.picture, this.theme, this.selection, pointed, this.keyboard);
    const marks = [...scene.marks, ...(this.part ? framed(corners(this.part.box), this.theme) : [])];
    show(this.above, marks.length > 0);
    if (marks.length) paintOn(this.above, { ...scene, marks }, this.theme);
  }

  private hit(event: PointerEvent): Hit | null {
    if (!this.picture) return null;
    const box = this.node.getBoundingClientRect();
    return hitTest(this.picture.layout, event.clientX - box.left, event.clientY - box.top);
  }

  private point(at: Pointed | null, part: Part | null = null): void {
    const same =
      at?.cell === this.pointed?.cell &&
      at?.panel === this.pointed?.panel &&
      part?.box.x === this.part?.box.x &&
      part?.box.y === this.part?.box.y;
    this.pointed = at;
    this.part = part;
    if (!same) this.drawAbove();
    this.explain(at ?? part);
  }

  private at(panel: number, cell: number): Pointed | null {
    if (!this.picture) return null;
    const [x, y, width, height] = cellBox(this.picture.layout, panel, cell);
    return { panel, cell, box: { x, y, width, height } };
  }

  private explain(at: Pointed | Part | null): void {
    this.explained = at;
    this.events.pointed(at);
  }

  private onMove(event: PointerEvent): void {
    const hit = this.hit(event);
    const cell = hit?.at === "head" ? hit.cells[0] : undefined;
    this.dragTo(hit, event);
    if (!hit || cell === undefined) {
      const box = this.node.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      this.point(null, this.picture && partAt(this.picture, x, y));
      return;
    }
    this.keyboard = false;
    this.point(this.at(hit.panel, cell));
  }

  private onDown(event: PointerEvent): void {
    const hit = this.hit(event);
    if (event.button !== 0 || !hit) return;
    this.keyboard = false;
    const anchor = event.shiftKey ? (this.selection.anchor ?? hit.cells[0]) : hit.cells[0];
    const kept = event.ctrlKey || event.metaKey ? this.selection.cells : new Set<number>();
    this.drag = { from: hit, anchor, kept, moved: event.shiftKey };
    if (event.shiftKey) this.change(hit.cells, "extend", false);
    capture(this.node, event.pointerId);
  }

  private dragTo(hit: Hit | null, event: PointerEvent): void {
    const { drag, picture: drawn } = this;
    if (!drag || !drawn) return;
    const left = drawn.layout.origins[drag.from.panel]?.x ?? 0;
    const x = event.clientX - this.node.getBoundingClientRect().left - left;
    if (!drag.moved && !leftStart(drag, hit, x)) return;
    const anchor = drag.from.at === "head" ? drag.anchor : undefined;
    const cells = dragged(drawn, drag.from, anchor, hit, x);
    if (!cells) return;
    drag.moved = true;
    const cursor = hit?.at === "head" ? (hit.cells[0] ?? null) : this.selection.cursor;
    this.set({ cells: new Set([...drag.kept, ...cells]), cursor, anchor: drag.anchor ?? null }, false);
  }

  private onUp(event: PointerEvent): void {
    const { drag, picture: drawn } = this;
    if (drag && !drag.moved && drawn) {
      this.drag = null;
      const adding = event.ctrlKey || event.metaKey;
      this.change(clicked(drawn, drag.from), adding ? "toggle" : "replace");
    }
    this.endDrag();
  }

  private endDrag(): void {
    if (this.drag?.moved) this.events.selected(this.selection, true);
    this.drag = null;
  }

  private onKey(event: KeyboardEvent): void {
    if (!this.picture || event.altKey) return;
    const key: Key = { key: event.key, shift: event.shiftKey, control: event.ctrlKey || event.metaKey };
    if (key.control && key.key === "c" && this.selection.cells.size) {
      this.events.copied();
    } else if (key.control && key.key === "z" && !key.shift) {
      this.events.undone();
    } else {
      const forPage = key.shift && (key.control || key.key === "Enter"); // Shift Enter runs a notebook cell
      const after = forPage ? null : pressed(this.selection, key, this.picture.layout);
      if (!after) return;
      this.keyboard = true;
      this.set(after);
      this.speak();
    }
    event.preventDefault();
    event.stopPropagation();
  }

  private change(cells: readonly number[], mode: SelectMode, settled = true): void {
    if (this.picture) this.set(selected(this.selection, cells, mode, this.picture.layout), settled);
  }

  private set(selection: Selection, settled = true): void {
    this.selection = selection;
    this.drawAbove();
    this.events.selected(selection, settled);
  }

  /** Announce the head at the keyboard cursor to screen readers, show its tooltip, and scroll to it. */
  private speak(): void {
    const { cursor, cells } = this.selection;
    const layout = this.picture?.layout;
    const [quiet, next] = this.spoken[0]?.textContent ? this.spoken : [...this.spoken].reverse();
    if (cursor === null || !layout || !next || !quiet) return;
    const { layer, head } = placeOf(cursor, layout);
    const { panel, words } = this.describe(cursor);
    const [left, top] = cellBox(layout, panel, cursor);
    next.textContent = words;
    quiet.textContent = "";
    next.setAttribute("aria-rowindex", String(layer + 1));
    next.setAttribute("aria-colindex", String(head + 1));
    next.setAttribute("aria-selected", String(cells.has(cursor)));
    this.node.setAttribute("aria-activedescendant", next.id);
    this.row.style.left = `${left}px`;
    this.row.style.top = `${top}px`;
    this.row.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.explain(this.at(panel, cursor));
  }

  private leave(): void {
    this.keyboard = false;
    this.point(null);
    this.drawAbove();
  }
}

const DRAG_PIXELS = 3; // a smaller movement over a distribution is a click

function leftStart({ from }: Drag, to: Hit | null, x: number): boolean {
  return from.at === "distribution" ? Math.abs(x - from.x) >= DRAG_PIXELS : to?.cells[0] !== from.cells[0];
}

function corners({ x, y, width, height }: Box): readonly [number, number, number, number] {
  return [x, y, width, height];
}

function capture(node: HTMLElement, pointer: number): void {
  try {
    node.setPointerCapture(pointer);
  } catch {
    // The pointer may already be gone.
  }
}
