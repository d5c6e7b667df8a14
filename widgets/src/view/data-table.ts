/** Table of the values, for screen readers and for reading exact numbers. */

import { headName, headNumber, layerNumber, placeOf } from "../grid/heads";
import type { Panel } from "../grid/payload";
import { letter, rolesLine, rolesOf } from "../grid/roles";
import { ranking } from "../grid/statistics";
import { ofPanel, type Shown } from "../grid/view";
import { number, quantityWithUnits } from "../grid/words";
import { element } from "./dom";
import { makeSortable } from "./sortable";

const MOST_CELLS = 8192; // total of the panels shown; a page with 100,000 table cells freezes
const MOST_LISTED = 500;

export function dataTable(shown: Shown): HTMLElement {
  const cells = shown.panels.reduce((sum, panel) => sum + panel.values.length, 0);
  const listed = Math.max(Math.floor(MOST_LISTED / shown.panels.length), 10);
  const parts = shown.panels.map((panel) =>
    cells <= MOST_CELLS ? whole(shown, panel) : ranked(shown, panel, listed),
  );
  return element(
    "div",
    { class: "data", tabindex: "0", role: "region", "aria-label": "Data table" },
    ...parts,
  );
}

/** A table with one row per layer and one column per head. */
function whole(shown: Shown, panel: Panel): HTMLElement {
  const { layers, heads } = shown.payload;
  const columns = Array.from({ length: heads }, (_, head) =>
    element("th", { scope: "col" }, `H${headNumber(head, shown.payload)}`),
  );
  const rows = Array.from({ length: layers }, (_, layer) => {
    const cells = Array.from(panel.values.subarray(layer * heads, (layer + 1) * heads), (value, head) =>
      numberCell(value, Number.isNaN(value) ? "–" : number(value), ...letters(shown, layer * heads + head)),
    );
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, `L${layerNumber(layer, shown.payload)}`),
      ...cells,
    );
  });
  const title = `${panel.title ? `${panel.title}: ` : ""}${quantityWithUnits(ofPanel(shown, panel).payload)}`;
  return table(
    [title, rolesLine(shown)].filter(Boolean).join(". "),
    [element("th", { scope: "col" }, "layer"), ...columns],
    rows,
  );
}

/** A table of the largest heads, for a grid that is too large for a complete table. */
function ranked(shown: Shown, panel: Panel, listed: number): HTMLElement {
  const order = ranking(panel.values).subarray(0, listed);
  const rows = Array.from(order, (cell, place) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, headName(placeOf(cell, shown.payload), shown.payload)),
      numberCell(panel.values[cell] ?? 0, number(panel.values[cell] ?? 0)),
      numberCell(place + 1, String(place + 1)),
      ...(shown.payload.roles.length ? [element("td", {}, roleNames(shown, cell))] : []),
    ),
  );
  const names = ["head", shown.payload.units || "value", "rank"];
  if (shown.payload.roles.length) names.push("roles");
  const columns = names.map((words) => element("th", { scope: "col" }, words));
  const title = `${panel.title ? `${panel.title}: ` : ""}the ${order.length} largest of ${panel.values.length} heads; save as JSON for all values`;
  return table(title, columns, rows);
}

/** The letters of a head's roles, with their names for screen readers and as a hover text. */
function letters(shown: Shown, cell: number): (Node | string)[] {
  const roles = rolesOf(shown.payload, cell);
  if (roles.length === 0) return [];
  return [" ", element("abbr", { title: roleNames(shown, cell) }, roles.map(letter).join(""))];
}

function roleNames({ payload }: Shown, cell: number): string {
  return rolesOf(payload, cell)
    .map(({ name, scores }) => `${name} ${(scores.get(cell) ?? 0).toFixed(2)}`)
    .join(", ");
}

/** A cell that is sorted by its number, whatever its text. */
function numberCell(value: number, ...content: readonly (Node | string)[]): HTMLElement {
  return element("td", { "data-value": String(value) }, ...content);
}

function table(caption: string, columns: readonly Node[], rows: readonly Node[]): HTMLElement {
  const made = element(
    "table",
    {},
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...columns)),
    element("tbody", {}, ...rows),
  );
  makeSortable(made);
  return made;
}
