/**
 * Parser and validator of payloads from untrusted sources: a notebook, a file, a kernel.
 *
 * `pattern.schema.json` defines valid payloads, here and in `headnb/display/payload_parser.py`; its validator is
 * generated. This module adds the checks that a schema cannot express.
 */

import { DRAWING } from "../generated/drawing";
import { type Given, type Kind, VERSION } from "../generated/given";
import { validate } from "../generated/validate";
import type { Curve, Own, Panel, Payload, Progress, Role, Scale } from "./payload";
import { sharedScale } from "./statistics";

type GivenPanel = Given["panels"][number];
type GivenChange = Exclude<GivenPanel["change"], undefined>;
type GivenRole = Exclude<Given["roles"], undefined>[number];
type Given2D = GivenPanel["values"];
type Matrix = Extract<Given2D, readonly unknown[]>;
type Compact = Exclude<Given2D, Matrix>;

/** The source is not a head grid; the message is one line for the reader. */
export class PayloadError extends Error {
  override readonly name = "PayloadError";
}

/** Validate a payload given as parsed JSON or as JSON text. Throws PayloadError with the name of the invalid field. */
export function readPayload(source: unknown): Payload {
  const found = typeof source === "string" ? parsed(source) : source;
  checkVersion(found);
  if (!validate(found)) return fail(problem(found));
  const { layers, heads, kv_heads: kvHeads = heads, kind, scale } = found;
  const { title = "", model = "", task = "", method = "", quantity = "", dimension = "", units } = found;
  const { loss_reduction: lossReduction = "", alpha = null, interval_level: intervalLevel = 0.95 } = found;
  const { layer_numbers: layerNumbers = null, head_numbers: headNumbers = null, columns = [] } = found;
  checkSizes(found, kvHeads);
  const levels = found.panels.map((panel, i) => readPanel(panel, `panels[${i}]`, layers, heads));
  const panels = withChanges(levels, found);
  return {
    ...{ title, model, task, method, lossReduction, quantity, dimension, units, kind },
    ...{ layers, heads, kvHeads, layerNumbers, headNumbers, alpha, intervalLevel, columns, panels },
    roles: (found.roles ?? []).map((role, i) => readRole(role, `roles[${i}]`, layers * heads)),
    scale: scale
      ? checkedScale("scale", scale, kind)
      : sharedScale(
          panels.filter(({ own }) => own === null),
          kind,
        ),
    curves: (found.curves ?? []).map(readCurve),
    progress: found.progress ? readProgress(found.progress) : null,
  };
}

function parsed(text: string): unknown {
  if (text.length > DRAWING.largest_file) {
    throw new PayloadError(
      `this file is larger than ${DRAWING.largest_file / 2 ** 20} MB, the limit of a head grid`,
    );
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    const reason = error instanceof SyntaxError ? error.message : "nested too deeply";
    return fail(`the text is not JSON (${reason.slice(0, 120)})`);
  }
}

function checkVersion(found: unknown): void {
  const { version } = (found ?? {}) as { version?: unknown };
  if (typeof version === "number" && version > VERSION) {
    throw new PayloadError(
      `this head grid has version ${version}, written by a newer headnb: pip install -U headnb`,
    );
  }
}

/** The first invalid field, the rule of the schema that it violates, and its value. */
function problem(found: unknown): string {
  const [
    { keywordLocation: rule, instanceLocation: place } = { keywordLocation: "", instanceLocation: "#" },
  ] = validate.errors ?? [];
  const keys = place.split("/").slice(1).map(unescaped);
  const where = keys.map((key) => (/^\d+$/.test(key) ? `[${key}]` : `.${key}`)).join("");
  const value = keys.reduce((at, key) => (at as Record<string, unknown> | undefined)?.[key], found);
  const named = where.replace(/^\./, "").slice(0, 120) || "payload";
  return `${named} violates the schema rule ${rule.split("/").at(-1)}, got ${shown(value)}`;
}

/** A key of a JSON pointer without escapes. */
function unescaped(key: string): string {
  return key.replaceAll("~1", "/").replaceAll("~0", "~");
}

function checkSizes({ layers, heads, panels, ...found }: Given, kvHeads: number): void {
  const cells = layers * heads * panels.length;
  const compact = panels.every(({ values }) => isCompact(values));
  const most = compact ? DRAWING.most_compact_cells : DRAWING.most_cells;
  if (cells > most)
    throw new PayloadError(`this head grid has ${cells} cells, but at most ${most} are drawn`);
  if (heads % kvHeads !== 0) fail(`kv_heads must divide heads (${heads}), got ${kvHeads}`);
  if ((found.layer_numbers?.length ?? layers) !== layers) fail(`layer_numbers must have ${layers} numbers`);
  if ((found.head_numbers?.length ?? heads) !== heads) fail(`head_numbers must have ${heads} numbers`);
}

/** The panels with their changes, which are drawn on one diverging scale. */
function withChanges(panels: readonly Panel[], found: Given): readonly Panel[] {
  const { layers, heads, change_scale: given } = found;
  const changes = found.panels.map(({ change }, i) =>
    change ? readPanel(change, `panels[${i}].change`, layers, heads) : null,
  );
  const known = changes.filter((change) => change !== null);
  const scale = given ? checkedScale("change_scale", given, "difference") : sharedScale(known, "difference");
  const quantity = `change in ${found.quantity || "score"}`;
  const own: Own = { kind: "difference", scale, quantity, units: found.units };
  return panels.map((panel, i) => {
    const change = changes[i];
    return change ? { ...panel, change: { ...change, own } } : panel;
  });
}

function readPanel(panel: GivenPanel | GivenChange, where: string, layers: number, heads: number): Panel {
  const { title = "", step = null, course = "", notes = [], own } = panel as Partial<GivenPanel>;
  const matrix = (name: "low" | "high" | "significant" | "q") =>
    panel[name] ? numbers(panel[name], `${where}.${name}`, layers, heads) : null;
  const significant = matrix("significant");
  if (significant?.some((mark) => mark !== 0 && mark !== 1)) fail(`${where}.significant must be 0 or 1`);
  return {
    ...{ title, step, course, notes, change: null, own: readOwn(own, where) },
    values: numbers(panel.values, `${where}.values`, layers, heads),
    low: matrix("low"),
    high: matrix("high"),
    significant,
    q: matrix("q"),
    statisticsLine: panel.statistics_line ?? "",
    reliabilityLine: panel.reliability_line ?? "",
    cells: panel.cells ?? [],
  };
}

function readOwn(own: GivenPanel["own"], where: string): Own | null {
  if (!own) return null;
  const { kind, scale, quantity, units } = own;
  return { kind, quantity, units, scale: checkedScale(`${where}.own.scale`, scale, kind) };
}

function readRole({ name, threshold, cells, scores }: GivenRole, where: string, size: number): Role {
  if (cells.length !== scores.length || cells.some((cell) => cell >= size)) {
    fail(`${where} must have a score for each cell, and cells of the grid`);
  }
  return { name, threshold, scores: new Map(cells.map((cell, i) => [cell, scores[i] ?? 0])) };
}

function isCompact(values: Given2D): values is Compact {
  return !Array.isArray(values);
}

function numbers(found: Given2D, where: string, layers: number, heads: number): Float64Array {
  return isCompact(found) ? unpacked(found, where, layers, heads) : flat(found, where, layers, heads);
}

/** Decode binary numbers in base64: see `headnb/display/compact.py`. */
function unpacked(found: Compact, where: string, layers: number, heads: number): Float64Array {
  const [text, size, read] = binary(found);
  const digits = size === 4 ? sevenDigits : (value: number) => value;
  const all = bytes(text, where);
  if (found.heads !== heads || all.byteLength !== size * layers * heads) wrongShape(where, layers, heads);
  const values = new Float64Array(layers * heads);
  for (let cell = 0; cell < values.length; cell++) {
    const value = digits(read(all, size * cell) * found.factor);
    if (Math.abs(value) === Number.POSITIVE_INFINITY) fail(`${where} has an infinite value`);
    values[cell] = value;
  }
  return values;
}

/** The text of a compact matrix, the bytes of one number, and the function that reads it. */
function binary({ float16, float32, uint8 = "" }: Compact): [string, number, Reader] {
  if (float16) return [float16, 2, (all, at) => half(all.getUint16(at, true))];
  if (float32) return [float32, 4, (all, at) => all.getFloat32(at, true)];
  return [uint8, 1, (all, at) => all.getUint8(at)];
}

/** The decimal number that was rounded to float32. */
function sevenDigits(value: number): number {
  return Number(value.toPrecision(7));
}

type Reader = (all: DataView, at: number) => number;

function bytes(text: string, where: string): DataView {
  try {
    if (text.length % 4) throw new RangeError();
    const letters = atob(text);
    const found = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) found[i] = letters.charCodeAt(i);
    return new DataView(found.buffer);
  } catch {
    return fail(`${where} is not base64`);
  }
}

/** The value of the last bit of a float16, by its exponent. */
const POWERS = Float64Array.from({ length: 32 }, (_, exponent) => 2 ** (Math.max(exponent, 1) - 25));

/** The value of a float16: 1 sign bit, 5 exponent bits, 10 fraction bits. */
function half(bits: number): number {
  const exponent = (bits >> 10) & 31;
  if (exponent === 31) return bits & 1023 ? Number.NaN : Number.POSITIVE_INFINITY;
  const size = (POWERS[exponent] ?? 0) * ((exponent ? 1024 : 0) + (bits & 1023));
  return bits & 0x8000 ? -size : size;
}

function flat(rows: Matrix, where: string, layers: number, heads: number): Float64Array {
  if (rows.length !== layers) wrongShape(where, layers, heads);
  const values = new Float64Array(layers * heads);
  rows.forEach((row, layer) => {
    if (row.length !== heads) wrongShape(where, layers, heads);
    for (let head = 0; head < heads; head++) values[layer * heads + head] = row[head] ?? Number.NaN;
  });
  return values;
}

function wrongShape(where: string, layers: number, heads: number): never {
  return fail(`${where} must have ${layers} rows of ${heads} entries`);
}

function checkedScale(name: string, scale: Scale, kind: Kind): Scale {
  const { low, high } = scale;
  if (!(kind === "level" ? low >= 0 : low === -high) || !(high - low >= DRAWING.smallest_scale)) {
    fail(`${name}.low must be at least 0 for levels, and -${name}.high for others; got ${low} to ${high}`);
  }
  return { low, high };
}

function readCurve({ label, units, steps, values }: Curve, index: number): Curve {
  if (steps.length !== values.length || steps.some((step, i) => step <= (steps[i - 1] ?? -Infinity))) {
    fail(`curves[${index}] must have a value for each of its ascending steps`);
  }
  return { label, units, steps, values };
}

function readProgress({
  done,
  total,
  unit = "samples",
  message = "",
}: Exclude<Given["progress"], undefined>): Progress {
  return { done, total, unit, message };
}

function fail(what: string): never {
  throw new PayloadError(`not a head grid: ${what}`);
}

/** The first characters of a value of any type. */
function shown(found: unknown): string {
  if (found === undefined || found === null) return "nothing";
  if (typeof found === "string") return JSON.stringify(found.slice(0, 50));
  if (typeof found === "object") return Array.isArray(found) ? "a list" : "an object";
  return String(found).slice(0, 60);
}
