/** Tables that a reader sorts by a column, with a click or with Enter; arrow keys move between the columns. */

import { element } from "./dom";

/** The sorted column of a table; the first column stands for the original order. */
export interface Sorting {
  readonly column: number;
  readonly direction: "ascending" | "descending";
}

/** Put a button into each column header of a table whose cells are numbers, except for its first column. */
export function makeSortable(table: HTMLTableElement): void {
  const headers = headersOf(table);
  const rows = [...(table.tBodies[0]?.rows ?? [])];
  headers.forEach((header, column) => {
    const made = element("button", { type: "button", tabindex: column ? "-1" : "0" }, ...header.childNodes);
    made.addEventListener("click", () => sortBy(table, rows, next(sortingOf(table), column)));
    header.append(made);
  });
  table.tHead?.addEventListener("keydown", (event) => {
    const from = headers.findIndex((header) => header.contains(event.target as Node));
    const to = headers[from + ({ ArrowRight: 1, ArrowLeft: -1 }[event.key] ?? 0)];
    if (!to || to === headers[from]) return;
    event.preventDefault();
    focusable(headers, to).focus();
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
  focusable(headers, header);
  const sign = sorting.direction === "ascending" ? 1 : -1;
  const key = (row: HTMLTableRowElement) =>
    sorting.column ? numberIn(row.cells[sorting.column]) : original.indexOf(row);
  const keyed = original.map((row) => ({ row, key: key(row) }));
  keyed.sort(
    (a, b) => Number(Number.isNaN(a.key)) - Number(Number.isNaN(b.key)) || sign * (a.key - b.key) || 0,
  );
  table.tBodies[0]?.append(...keyed.map(({ row }) => row));
}

/** A click on a column of numbers shows the largest first; the next click reverses the order. */
function next(current: Sorting | null, column: number): Sorting {
  const first = column ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  return { column, direction: current?.column === column && current.direction === first ? other : first };
}

/** Make a column's button the only one that Tab reaches. */
function focusable(headers: readonly HTMLElement[], chosen: HTMLElement): HTMLElement {
  for (const header of headers)
    header.querySelector("button")?.setAttribute("tabindex", header === chosen ? "0" : "-1");
  return chosen.querySelector("button") ?? chosen;
}

/** The number in a cell, or NaN if it has none. */
function numberIn(cell: HTMLTableCellElement | undefined): number {
  const words = cell?.textContent?.replace("−", "-") ?? "";
  return words ? Number(words) : Number.NaN;
}
