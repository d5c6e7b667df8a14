/** Values of the panels shown as a table of text, for CSV files and spreadsheets: see `headnb/display/csv_table.py`. */

import { headName, headNumber, layerNumber, placeOf } from "./heads";
import type { Panel } from "./payload";
import type { Shown } from "./view";

type Row = readonly string[];

const MATRICES = ["values", "low", "high", "significant", "q"] as const;

/** The header and one row per panel and head; a value that is missing is empty. */
export function tableRows({ payload, panels }: Shown): Row[] {
  const matrices = MATRICES.filter((name) => panels.some((panel) => panel[name]));
  const several = panels.length > 1;
  const unitsOf = ({ own }: Panel) => (own ?? payload).units;
  const known = panels.some((panel) => unitsOf(panel));
  const names = matrices.map((name) => (name === "values" ? "value" : name));
  const header = [several ? ["panel"] : [], "name", "layer", "head", names, known ? ["units"] : []].flat();
  const row = (panel: Panel, cell: number): Row => {
    const place = placeOf(cell, payload);
    const numbers = [layerNumber(place.layer, payload), headNumber(place.head, payload)].map(String);
    const values = matrices.map((name) => exact(panel[name]?.[cell]));
    return [
      several ? [panel.title] : [],
      headName(place, payload),
      numbers,
      values,
      known ? [unitsOf(panel)] : [],
    ].flat();
  };
  return [header, ...panels.flatMap((panel) => Array.from(panel.values, (_, cell) => row(panel, cell)))];
}

export function asCsv(rows: readonly Row[]): string {
  return rows.map((row) => `${row.map(quoted).join(",")}\n`).join("");
}

/** Columns separated by tabs, as spreadsheets paste them. */
export function asTabs(rows: readonly Row[]): string {
  return rows.map((row) => row.map((words) => inert(words).replace(/[\t\r\n]/g, " ")).join("\t")).join("\n");
}

function exact(value: number | undefined): string {
  return value === undefined || Number.isNaN(value) ? "" : String(Number(value.toPrecision(7)));
}

function quoted(words: string): string {
  const text = inert(words);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** A text that no spreadsheet reads as a formula; numbers stay as they are. */
function inert(words: string): string {
  return /^[=+\-@\t\r]/.test(words) && Number.isNaN(Number(words)) ? `'${words}` : words;
}
