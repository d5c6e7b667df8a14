/** The picture on two canvases, one of them for the overlay that follows the mouse; handles pointer and keyboard. */

import { paintScene, sharpness } from "../grid/canvas";
import { placeOf } from "../grid/heads";
import { cellBox, type Hit, hitTest } from "../grid/hit";
import type { Box } from "../grid/layout";
import { framed, overlay } from "../grid/overlay";
import { type Part, partAt } from "../grid/parts";
import { type Picture, picture } from "../grid/picture";
import type { Scene, Theme } from "../grid/scene";
import { between, type Key, pressed, type Selection, type SelectMode, selected } from "../grid/selection";
import type { Shown } from "../grid/view";
import { element, show } from "./dom";

export interface StageEvents {
  readonly selected: (selection: Selection) => void;
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
    private readonly describe: (panel: number, cell: number) => string,
  ) {
    this.node.append(this.base, this.above, this.row);
    this.node.addEventListener("pointermove", (event) => this.onMove(event));
    this.node.addEventListener("pointerdown", (event) => this.onDown(event));
    this.node.addEventListener("pointerup", (event) => this.onUp(event));
    this.node.addEventListener("pointercancel", () => {
      this.drag = null;
    });
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
    if (this.drag && cell !== undefined && this.picture) this.dragTo(cell);
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
    if (event.shiftKey) this.change(hit.cells, "extend");
    capture(this.node, event.pointerId);
  }

  private dragTo(cell: number): void {
    const { drag, picture: drawn } = this;
    if (!drag || !drawn || drag.anchor === undefined || drag.from.at !== "head") return;
    if (cell === drag.anchor && !drag.moved) return;
    drag.moved = true;
    const cells = new Set([...drag.kept, ...between(drag.anchor, cell, drawn.layout)]);
    this.set({ cells, cursor: cell, anchor: drag.anchor });
  }

  private onUp(event: PointerEvent): void {
    const { drag } = this;
    if (drag && !drag.moved)
      this.change(drag.from.cells, event.ctrlKey || event.metaKey ? "toggle" : "replace");
    this.drag = null;
  }

  private onKey(event: KeyboardEvent): void {
    if (!this.picture || event.altKey) return;
    const key: Key = { key: event.key, shift: event.shiftKey, control: event.ctrlKey || event.metaKey };
    if (key.control && key.key === "c" && this.selection.cells.size) {
      this.events.copied();
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

  private change(cells: readonly number[], mode: SelectMode): void {
    if (this.picture) this.set(selected(this.selection, cells, mode, this.picture.layout));
  }

  private set(selection: Selection): void {
    this.selection = selection;
    this.drawAbove();
    this.events.selected(selection);
  }

  /** Announce the head at the keyboard cursor to screen readers, show its tooltip, and scroll to it. */
  private speak(): void {
    const { cursor, cells } = this.selection;
    const layout = this.picture?.layout;
    const [quiet, next] = this.spoken[0]?.textContent ? this.spoken : [...this.spoken].reverse();
    if (cursor === null || !layout || !next || !quiet) return;
    const { layer, head } = placeOf(cursor, layout);
    const [left, top] = cellBox(layout, 0, cursor);
    next.textContent = this.describe(0, cursor);
    quiet.textContent = "";
    next.setAttribute("aria-rowindex", String(layer + 1));
    next.setAttribute("aria-colindex", String(head + 1));
    next.setAttribute("aria-selected", String(cells.has(cursor)));
    this.node.setAttribute("aria-activedescendant", next.id);
    this.row.style.left = `${left}px`;
    this.row.style.top = `${top}px`;
    this.row.scrollIntoView({ block: "nearest", inline: "nearest" });
    this.explain(this.at(0, cursor));
  }

  private leave(): void {
    this.keyboard = false;
    this.point(null);
    this.drawAbove();
  }
}

/** Paint a scene on a canvas of its size, at the resolution of the screen. */
function paintOn(canvas: HTMLCanvasElement, scene: Scene, theme: Theme): void {
  const ratio = sharpness(scene, window.devicePixelRatio || 1);
  const width = Math.ceil(scene.width * ratio);
  const height = Math.ceil(scene.height * ratio);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
    canvas.style.width = `${scene.width}px`;
    canvas.style.height = `${scene.height}px`;
  }
  const context = canvas.getContext("2d");
  if (!context) return;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  paintScene(context, scene, theme);
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
