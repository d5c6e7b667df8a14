/** Tables that a reader sorts by a column, with a click or with Enter; arrow keys move between the columns. */

import { element } from "./dom";

/** The sorted column of a table; the first column stands for the original order. */
export interface Sorting {
  readonly column: number;
  readonly direction: "ascending" | "descending";
}

/** Put a button into the header of the first column and of each column of numbers, cells with a `data-value`. */
export function makeSortable(table: HTMLTableElement): void {
  const headers = headersOf(table);
  const rows = [...(table.tBodies[0]?.rows ?? [])];
  headers.forEach((header, column) => {
    if (column && rows.every((row) => Number.isNaN(numberIn(row.cells[column])))) return;
    const made = element("button", { type: "button", tabindex: column ? "-1" : "0" }, ...header.childNodes);
    made.addEventListener("click", () => sortBy(table, rows, next(sortingOf(table), column)));
    header.append(made);
  });
  table.tHead?.addEventListener("keydown", (event) => {
    const buttons = headers.flatMap((header) => header.querySelector("button") ?? []);
    const from = buttons.indexOf(event.target as HTMLButtonElement);
    const to = buttons[from + ({ ArrowRight: 1, ArrowLeft: -1 }[event.key] ?? 0)];
    if (!to || to === buttons[from]) return;
    event.preventDefault();
    focusable(buttons, to);
    to.focus();
  });
}

/** How a table is sorted; null for its original order. */
export function sortingOf(table: HTMLTableElement): Sorting | null {
  const headers = headersOf(table);
  const column = headers.findIndex((header) => header.hasAttribute("aria-sort"));
  const direction = headers[column]?.getAttribute("aria-sort") === "ascending" ? "ascending" : "descending";
  return column < 0 ? null : { column, direction };
}

/** Sort a table that `makeSortable` prepared and that has its original order. */
export function restoreSorting(table: HTMLTableElement | undefined, sorting: Sorting | null): void {
  if (table && sorting) sortBy(table, [...(table.tBodies[0]?.rows ?? [])], sorting);
}

function headersOf(table: HTMLTableElement): HTMLTableCellElement[] {
  return [...(table.tHead?.rows[0]?.cells ?? [])];
}

function sortBy(table: HTMLTableElement, original: readonly HTMLTableRowElement[], sorting: Sorting): void {
  const headers = headersOf(table);
  for (const header of headers) header.removeAttribute("aria-sort");
  const header = headers[sorting.column];
  if (!header) return;
  header.setAttribute("aria-sort", sorting.direction);
  focusable([...(table.tHead?.querySelectorAll("button") ?? [])], header.querySelector("button"));
  const keys = original.map((row, place) => (sorting.column ? numberIn(row.cells[sorting.column]) : place));
  table.tBodies[0]?.append(...order(keys, sorting.direction).flatMap((place) => original[place] ?? []));
}

/** The places of the keys in sorted order; NaN is last in both directions, and equal keys keep their order. */
export function order(keys: readonly number[], direction: Sorting["direction"]): number[] {
  const sign = direction === "ascending" ? 1 : -1;
  const keyed = keys.map((key, place) => ({ key, place, missing: Number(Number.isNaN(key)) }));
  keyed.sort((a, b) => a.missing - b.missing || sign * (a.key - b.key) || 0);
  return keyed.map(({ place }) => place);
}

/** A click on a column of numbers shows the largest first; the next click reverses the order. */
function next(current: Sorting | null, column: number): Sorting {
  const first = column ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  return { column, direction: current?.column === column && current.direction === first ? other : first };
}

/** Make a column's button the only one that Tab reaches. */
function focusable(buttons: readonly HTMLButtonElement[], chosen: HTMLButtonElement | null): void {
  for (const button of buttons) button.tabIndex = button === chosen ? 0 : -1;
}

/** The number of a cell, or NaN if it has none. */
function numberIn(cell: HTMLTableCellElement | undefined): number {
  return Number(cell?.dataset.value ?? Number.NaN);
}
