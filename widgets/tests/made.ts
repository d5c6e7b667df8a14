/** Synthetic payloads for tests. */

import type { Kind, Panel, Payload } from "../src/grid/payload";
import { sharedScale } from "../src/grid/statistics";

export function panel(values: readonly number[], fields: Partial<Panel> = {}): Panel {
  return {
    title: "gsm8k",
    step: null,
    course: "",
    values: Float64Array.from(values),
    low: null,
    high: null,
    significant: null,
    change: null,
    own: null,
    statisticsLine: "",
    reliabilityLine: "",
    cells: [],
    notes: [],
    ...fields,
  };
}

export function payload(
  layers: number,
  heads: number,
  panels: readonly Panel[],
  fields: Partial<Payload> = {},
): Payload {
  const kind: Kind = fields.kind ?? "level";
  return {
    title: "",
    model: "m",
    task: "",
    method: "activation",
    lossReduction: "",
    kind,
    quantity: "activation level",
    units: "nats",
    layers,
    heads,
    kvHeads: heads,
    dimension: "",
    scale: sharedScale(panels, kind),
    alpha: null,
    intervalLevel: 0.95,
    columns: [],
    panels,
    roles: [],
    curves: [],
    progress: null,
    ...fields,
  };
}
