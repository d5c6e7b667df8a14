/** Marks of the heads' roles: letters in the cells, and dimmed heads when the reader chooses roles. */

import { cellX, cellY, type Layout } from "./layout";
import type { Payload, Role } from "./payload";
import { type Mark, rects, type Theme } from "./scene";
import type { Shown } from "./view";
import { short } from "./words";

const LETTER_SIZE = 9;
const LETTER_WIDTH = 6.5;
const SQUARE = 3;
const DIMMED = 0.78;

/** The roles of a head: those whose threshold it exceeds. */
export function rolesOf({ roles }: Pick<Payload, "roles">, cell: number): Role[] {
  return roles.filter(({ scores }) => scores.has(cell));
}

/** The letter that marks a role: I for induction. */
export function letter({ name }: Role): string {
  return name.slice(0, 1).toUpperCase();
}

/** The marked roles: those that the reader has chosen; without a choice those of at most half of the heads. */
export function markedRoles({ payload, view }: Shown): Role[] {
  const half = (payload.layers * payload.heads) / 2;
  const chosen = (role: Role) => view.roles.includes(role.name);
  return payload.roles.filter(view.roles.length ? chosen : ({ scores }) => scores.size <= half);
}

/** Meaning of the letters: `Head roles: I induction (8 above 0.4), P previous-token (10 above 0.4).` */
export function rolesLine(shown: Shown): string {
  const { roles } = shown.payload;
  if (roles.length === 0) return "";
  const parts = roles.map(
    (role) => `${letter(role)} ${role.name} (${role.scores.size} above ${short(role.threshold)})`,
  );
  const line = `Head roles: ${parts.join(", ")}.`;
  const hidden = shown.view.roles.length ? [] : roles.filter((role) => !markedRoles(shown).includes(role));
  if (hidden.length === 0) return line;
  const names = hidden.map(({ name }) => name).join(" and ");
  return `${line} Most heads are ${names} heads; choose ${names} in Options to mark them.`;
}

/** Letters on the heads with a marked role (squares where the cells are small), and a veil over the others. */
export function roleMarks(shown: Shown, layout: Layout, theme: Theme): Mark[] {
  const marked = markedRoles(shown);
  const letters = new Map<number, string>();
  for (const role of marked) {
    for (const cell of role.scores.keys()) letters.set(cell, (letters.get(cell) ?? "") + letter(role));
  }
  const width = layout.cellWidth - layout.gap;
  const height = layout.cellHeight - layout.gap;
  const legible = height >= LETTER_SIZE && width >= 2 * LETTER_WIDTH;
  const marks = legible
    ? [...letters].map(([cell, words]) => letterMark(layout, cell, words, height))
    : squares(layout, [...letters.keys()], width, height);
  return shown.view.roles.length ? [...veil(layout, letters, theme), ...marks] : marks;
}

function letterMark(layout: Layout, cell: number, words: string, height: number): Mark {
  const { x, y } = corner(layout, cell);
  return {
    mark: "label",
    words,
    ...{ x: x + 3, y: y + height / 2 + LETTER_SIZE / 2 - 1.5, size: LETTER_SIZE, anchor: "start" },
    ...{ bold: true, fill: "#ffffff", opacity: 1, upwards: false, halo: "#000000" },
  };
}

/** White squares with a black border in the middle of cells. */
function squares(layout: Layout, cells: readonly number[], width: number, height: number): Mark[] {
  if (cells.length === 0) return [];
  const boxes = (side: number) =>
    cells.flatMap((cell) => {
      const { x, y } = corner(layout, cell);
      return [x + (width - side) / 2, y + (height - side) / 2, side, side];
    });
  const side = Math.min(SQUARE, width - 1, height - 1);
  return [rects("#000000", boxes(side + 1.4)), rects("#ffffff", boxes(side))];
}

/** The page's colour over all heads that are not `kept`. */
function veil(layout: Layout, kept: ReadonlyMap<number, string>, theme: Theme): Mark[] {
  const boxes: number[] = [];
  for (let cell = 0; cell < layout.layers * layout.heads; cell++) {
    const { x, y } = corner(layout, cell);
    if (!kept.has(cell)) boxes.push(x, y, layout.cellWidth - layout.gap, layout.cellHeight - layout.gap);
  }
  return [rects(theme.page, boxes, DIMMED)];
}

function corner(layout: Layout, cell: number): { x: number; y: number } {
  return { x: cellX(layout, cell % layout.heads), y: cellY(layout, Math.floor(cell / layout.heads)) };
}
