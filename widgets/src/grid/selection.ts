/** Selection state: the selected heads and the keyboard cursor, with pure functions from one state to the next. */

import { cellOf, placeOf } from "./heads";
import { column, rectangle, row } from "./hit";
import type { Shape } from "./payload";

export interface Selection {
  readonly cells: ReadonlySet<number>;
  /** The cell of the keyboard cursor. */
  readonly cursor: number | null;
  /** The fixed corner of a rectangle that is extended. */
  readonly anchor: number | null;
}

export const NOTHING: Selection = { cells: new Set(), cursor: null, anchor: null };

/** `replace` selects only these cells, `toggle` adds or removes them, `extend` selects from the anchor to the last. */
export type SelectMode = "replace" | "toggle" | "extend";

export function selected(
  before: Selection,
  cells: readonly number[],
  mode: SelectMode,
  shape: Shape,
): Selection {
  const last = cells.at(-1);
  if (last === undefined) return before;
  if (mode === "extend") {
    const anchor = before.anchor ?? last;
    return { cells: new Set(between(anchor, last, shape)), cursor: last, anchor };
  }
  if (mode === "toggle") {
    const all = cells.every((cell) => before.cells.has(cell));
    const after = new Set(before.cells);
    for (const cell of cells) all ? after.delete(cell) : after.add(cell);
    return { cells: after, cursor: last, anchor: last };
  }
  const same = cells.length === before.cells.size && cells.every((cell) => before.cells.has(cell));
  return { cells: new Set(same ? [] : cells), cursor: last, anchor: last };
}

/** All cells of the rectangle with two cells at opposite corners. */
export function between(from: number, to: number, shape: Shape): number[] {
  return rectangle(shape, placeOf(from, shape), placeOf(to, shape));
}

export interface Key {
  readonly key: string;
  readonly shift: boolean;
  /** Whether Control is pressed, or Command on a Mac. */
  readonly control: boolean;
}

const STRIDE = 5;

/** The state after a key, or null for a key without a function here. */
export function pressed(before: Selection, key: Key, shape: Shape): Selection | null {
  const from = before.cursor ?? 0;
  if (key.key === "Escape") return before.cells.size ? { ...before, cells: new Set() } : null;
  if (key.key === "a" && key.control) {
    const all = Array.from({ length: shape.layers * shape.heads }, (_, cell) => cell);
    return { ...before, cells: new Set(all), cursor: from };
  }
  if (key.key === " ") return toggled(before, from, key, shape);
  if (key.key === "Enter") return selected(before, [from], "replace", shape);
  const to = before.cursor === null && key.key.startsWith("Arrow") ? 0 : moved(from, key, shape);
  if (to === null) return null;
  return key.shift
    ? selected({ ...before, anchor: before.anchor ?? from }, [to], "extend", shape)
    : { ...before, cursor: to, anchor: to };
}

/** Space toggles the head at the cursor, with Shift its layer, with Control the same head of all layers. */
function toggled(before: Selection, cursor: number, key: Key, shape: Shape): Selection {
  const { layer, head } = placeOf(cursor, shape);
  const cells = key.shift ? row(shape, layer) : key.control ? column(shape, head) : [cursor];
  return { ...selected(before, cells, "toggle", shape), cursor, anchor: cursor };
}

function moved(from: number, { key, control }: Key, shape: Shape): number | null {
  const { layer, head } = placeOf(from, shape);
  const to = (l: number, h: number) =>
    cellOf({ layer: clamp(l, shape.layers - 1), head: clamp(h, shape.heads - 1) }, shape);
  switch (key) {
    case "ArrowLeft":
      return to(layer, head - 1);
    case "ArrowRight":
      return to(layer, head + 1);
    case "ArrowUp":
      return to(layer - 1, head);
    case "ArrowDown":
      return to(layer + 1, head);
    case "PageUp":
      return to(layer - STRIDE, head);
    case "PageDown":
      return to(layer + STRIDE, head);
    case "Home":
      return to(control ? 0 : layer, 0);
    case "End":
      return to(control ? shape.layers - 1 : layer, shape.heads - 1);
    default:
      return null;
  }
}

function clamp(value: number, most: number): number {
  return Math.min(Math.max(value, 0), most);
}
