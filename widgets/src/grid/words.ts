/** Text of a grid, equal to that of `headnb/display/grid_text.py`. */

import { type HeadPlace, headName, layerNumber } from "./heads";
import { isUnscored, type Kind, type Panel, type Payload } from "./payload";
import { furthest, joined, rankOf } from "./statistics";

const MOST_NAMED = 40;

/** A measured value with a fixed number of significant digits: `0.0120`, `−0.400`, `2.10e-7`. */
export function number(value: number, digits = 3): string {
  if (value === 0) return "0";
  const power = Math.floor(Math.log10(Math.abs(Number(value.toPrecision(digits)))));
  if (power < -4 || power >= digits) return typographic(value.toExponential(digits - 1));
  return typographic(value.toPrecision(digits));
}

/** A round number without trailing zeros: `0.05`. */
export function short(value: number): string {
  const digits = Number(value.toPrecision(6));
  const size = Math.abs(digits);
  return typographic(size !== 0 && (size < 1e-4 || size >= 1e6) ? digits.toExponential() : String(digits));
}

function typographic(text: string): string {
  return text.replace("e+", "e").replace(/^-/, "−");
}

/** Title of the picture, in one line. */
export function heading(payload: Payload): string {
  return payload.title || [payload.model, payload.task].filter(Boolean).join(" · ") || "attention heads";
}

/** Shape and scoring settings, in one line. */
export function subtitle(payload: Payload): string {
  const { layers, heads, kvHeads, method, lossReduction } = payload;
  const parts = [`${layers} layers × ${heads} heads`];
  if (kvHeads < heads) parts.push(`${kvHeads} key/value head${kvHeads > 1 ? "s" : ""}`);
  if (method) parts.push(`method ${method}`);
  if (lossReduction) parts.push(`loss ${lossReduction}`);
  return parts.join(" · ");
}

/** A fraction in percent, with two digits: `4.7`, `62`, `100`. */
export function percent(share: number): string {
  const value = 100 * share;
  return value < 99.5 ? number(value, 2) : value.toFixed(0);
}

/** Name of the quantity with its units: `activation level (nats)`. */
export function quantityWithUnits(payload: Pick<Payload, "quantity" | "units">): string {
  const name = payload.quantity || "score";
  return payload.units ? `${name} (${payload.units})` : name;
}

/** A value with its units: `0.1200 nats`. */
export function measured(value: number, units: string, digits = 4): string {
  return units ? `${number(value, digits)} ${units}` : number(value, digits);
}

/** `L3H5, L7H1 and 12 more`. */
export function namesLine(names: readonly string[]): string {
  const more = names.length - MOST_NAMED;
  return names.slice(0, MOST_NAMED).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** Heading of the list of top heads. */
export function topName(kind: Kind): string {
  return { level: "Top heads", signed: "Largest", difference: "Largest changes" }[kind];
}

/** Number of heads that changed significantly; empty if the panel has no test. */
export function significanceLine(payload: Payload, panel: Panel): string {
  if (!panel.significant) return "";
  const marked = panel.significant.reduce((sum, one) => sum + one, 0);
  const alpha = payload.alpha === null ? "" : ` (q < ${short(payload.alpha)})`;
  const present = panel.values.filter(Number.isFinite).length;
  return marked
    ? `${marked} of ${present} heads changed significantly${alpha}.`
    : `No head changed significantly${alpha}.`;
}

/** Sentence about the layers without values in any panel; empty if all layers have values. */
export function missingLine(payload: Payload): string {
  const { layers, heads, panels } = payload;
  const missing = Array.from({ length: layers }, (_, layer) => layer).filter((layer) =>
    panels.every((panel) => panel.values.subarray(layer * heads, (layer + 1) * heads).every(Number.isNaN)),
  );
  const numbers = missing.map((layer) => layerNumber(layer, payload));
  if (numbers.length === 0) return "";
  return numbers.length === 1
    ? `Layer ${numbers[0]} is hatched: it has no softmax attention heads.`
    : `Layers ${runs(numbers)} are hatched: they have no softmax attention heads.`;
}

/** Progress of the computation; empty for a finished result. */
export function progressLine({ progress }: Payload): string {
  if (progress?.done === 0) return progress.message;
  return progress
    ? `${progress.done} of ${progress.total} ${progress.unit} done. ${progress.message}`.trimEnd()
    : "";
}

/** Number of heads off the colour scale: `2 heads off scale, up to 0.412`; empty if there are none. */
export function offScaleLine(panels: readonly Panel[], low: number, high: number): string {
  const offScale = joined(panels).filter((value) => value > high || value < low);
  if (offScale.length === 0) return "";
  return `${offScale.length} head${offScale.length > 1 ? "s" : ""} off scale, up to ${number(furthest(offScale))}`;
}

/** Lines about one head, for the tooltip and for screen readers. */
export function headLines(payload: Payload, panel: Panel, place: HeadPlace): string[] {
  const cell = place.layer * payload.heads + place.head;
  const value = panel.values[cell];
  if (value === undefined || Number.isNaN(value)) return [headName(place, payload), "no softmax head"];
  if (isUnscored(payload)) return [headName(place, payload), "not scored yet"];
  const lines = [`${headName(place, payload)}  ${measured(value, payload.units)}`];
  const low = panel.low?.[cell] ?? Number.NaN;
  const high = panel.high?.[cell] ?? Number.NaN;
  if (Number.isFinite(low) && Number.isFinite(high)) {
    lines.push(`${short(100 * payload.intervalLevel)} % interval ${number(low)} to ${number(high)}`);
  }
  const { rank, of } = rankOf(panel.values, cell);
  lines.push(`rank ${rank} of ${of}`);
  const group = payload.heads / payload.kvHeads;
  if (group > 1) lines.push(`key/value head ${Math.floor(place.head / group)}`);
  const q = panel.q?.[cell] ?? Number.NaN;
  const tested = [panel.significant?.[cell] ? "significant" : "", Number.isNaN(q) ? "" : `q ${number(q, 2)}`];
  if (tested.some(Boolean)) lines.push(tested.filter(Boolean).join(", "));
  for (const { name, scores } of payload.roles) {
    const score = scores.get(cell);
    if (score !== undefined) lines.push(`${name} ${score.toFixed(2)}`);
  }
  return lines;
}

/** `0–2, 4, 6–9`. */
function runs(layers: readonly number[]): string {
  const groups: [number, number][] = [];
  for (const layer of layers) {
    const last = groups.at(-1);
    if (last && last[1] === layer - 1) last[1] = layer;
    else groups.push([layer, layer]);
  }
  return groups.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`)).join(", ");
}
