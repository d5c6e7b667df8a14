/**
 * Reading a payload that came from somewhere else: a notebook, a file, a kernel. Nothing in it is believed.
 *
 * The checks are those of `pattern.schema.json` and of `headnb/display/reading.py`; the fixture files in
 * `tests/fixtures/payloads` hold both to the same answers.
 */

import { evidenceFrom } from "./evidence";
import {
  KINDS,
  type Kind,
  type Panel,
  type Payload,
  type Progress,
  type Scale,
  type Statistic,
} from "./payload";
import { sharedScale } from "./statistics";

const VERSION = 1;
const LARGEST_SIDE = 4096;
const MOST_CELLS = 500_000;
const MOST_COMPACT_CELLS = 4_000_000;
const LARGEST_FACTOR = 1e95;
const MOST_PANELS = 4096;
const MOST_NOTES = 20;
const LONGEST_TEXT = 2000;
const LARGEST_NUMBER = 1e100;
const SMALLEST_SCALE = 1e-100;
const LARGEST_FILE = 64 * 2 ** 20;

/** Something that is not a head grid; the message is one plain line for the reader. */
export class PayloadError extends Error {
  override readonly name = "PayloadError";
}

type Fields = Readonly<Record<string, unknown>>;
type Entry = (found: unknown, where: string) => number;

/** A checked payload from parsed JSON, or from JSON text. Throws PayloadError, naming the field. */
export function readPayload(source: unknown): Payload {
  const top = mapping(typeof source === "string" ? parsed(source) : source, "payload");
  checkVersion(top.version);
  const kind = readKind(top.kind);
  const layers = whole(top.layers, "layers", 1, LARGEST_SIDE);
  const heads = whole(top.heads, "heads", 1, LARGEST_SIDE);
  const grids = sequence(top.panels, "panels", MOST_PANELS);
  if (grids.length === 0) fail("panels is empty");
  const cells = layers * heads * grids.length;
  const most = grids.every(isCompact) ? MOST_COMPACT_CELLS : MOST_CELLS;
  if (cells > most) {
    throw new PayloadError(`this head grid has ${cells} cells; at most ${most} are drawn`);
  }
  const kvHeads = whole(given(top.kv_heads, heads), "kv_heads", 1, heads);
  if (heads % kvHeads !== 0) fail(`kv_heads must divide heads (${heads}), got ${kvHeads}`);
  const text = (name: string) => readText(given(top[name], ""), name);
  const numbers = (name: string, size: number) =>
    top[name] === undefined ? null : readNumbers(top[name], name, size);
  const panels = grids.map((panel, i) => readPanel(panel, `panels[${i}]`, layers, heads));
  return {
    title: text("title"),
    model: text("model"),
    task: text("task"),
    method: text("method"),
    lossReduction: text("loss_reduction"),
    quantity: text("quantity"),
    dimension: text("dimension"),
    units: readText(top.units, "units"),
    kind,
    layers,
    heads,
    kvHeads,
    layerNumbers: numbers("layer_numbers", layers),
    headNumbers: numbers("head_numbers", heads),
    alpha: orNull(top.alpha, "alpha", share),
    intervalLevel: share(given(top.interval_level, 0.95), "interval_level"),
    panels,
    scale: top.scale === undefined ? sharedScale(panels, kind) : readScale(top.scale, kind),
    progress: top.progress === undefined ? null : readProgress(top.progress),
  };
}

function parsed(text: string): unknown {
  if (text.length > LARGEST_FILE) {
    throw new PayloadError(`this file is larger than ${LARGEST_FILE / 2 ** 20} MB: no head grid is`);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    const reason = error instanceof SyntaxError ? error.message : "nested too deeply";
    return fail(`the text is not JSON (${reason.slice(0, 120)})`);
  }
}

function checkVersion(version: unknown): void {
  if (typeof version === "number" && version > VERSION) {
    throw new PayloadError(
      `this head grid has version ${version}, written by a newer headnb: pip install -U headnb`,
    );
  }
  if (version !== VERSION) fail(`expected version ${VERSION}, got ${shown(version)}`);
}

function readKind(found: unknown): Kind {
  return (
    KINDS.find((kind) => kind === found) ??
    fail(`kind must be one of ${KINDS.join(", ")}, got ${shown(found)}`)
  );
}

function readPanel(found: unknown, where: string, layers: number, heads: number): Panel {
  const fields = mapping(found, where);
  const matrix = (name: string, entry: Entry) =>
    readMatrix(fields[name], `${where}.${name}`, layers, heads, entry);
  const notes = sequence(given(fields.notes, []), `${where}.notes`, MOST_NOTES);
  return {
    title: readText(given(fields.title, ""), `${where}.title`),
    step: fields.step === undefined ? null : readNumber(fields.step, `${where}.step`),
    course: readText(given(fields.course, ""), `${where}.course`),
    values: isCompact(fields)
      ? readCompact(fields.values, `${where}.values`, layers, heads)
      : matrix("values", numberOrNaN),
    low: fields.low === undefined ? null : matrix("low", numberOrNaN),
    high: fields.high === undefined ? null : matrix("high", numberOrNaN),
    significant: fields.significant === undefined ? null : matrix("significant", mark),
    ...evidenceFrom((name) =>
      orNull(fields[name], `${where}.${name}`, name === "reliability" ? atMostOne : count),
    ),
    statistics: readNamed(fields.statistics, `${where}.statistics`, readStatistic),
    withheld: readNamed(fields.withheld, `${where}.withheld`, readText),
    notes: notes.map((note) => readText(note, `${where}.notes`)),
  };
}

function readNamed<Read>(
  found: unknown,
  where: string,
  read: (found: unknown, where: string) => Read,
): Map<string, Read> {
  const entries = Object.entries(mapping(given(found, {}), where));
  if (entries.length > MOST_NOTES) fail(`${where} has more than ${MOST_NOTES} entries`);
  return new Map(
    entries.map(([name, value]) => [
      readText(name, `a name in ${where}`),
      read(value, `${where}.${name.slice(0, 40)}`),
    ]),
  );
}

function readNumbers(found: unknown, where: string, size: number): number[] {
  const numbers = sequence(found, where, LARGEST_SIDE).map((number) =>
    whole(number, where, 0, LARGEST_SIDE - 1),
  );
  if (numbers.length === size && new Set(numbers).size === size) return numbers;
  return fail(`${where} must have ${size} numbers, none of them twice`);
}

function isCompact(panel: unknown): boolean {
  const values = (panel as Fields | null)?.values;
  return typeof values === "object" && values !== null && !Array.isArray(values);
}

/** Half-precision numbers in base64: see `headnb/display/compact.py`. */
function readCompact(found: unknown, where: string, layers: number, heads: number): Float64Array {
  const fields = mapping(found, where);
  const factor = readNumber(fields.factor, `${where}.factor`);
  if (typeof fields.float16 !== "string" || !(factor > 0 && factor <= LARGEST_FACTOR)) {
    return fail(`${where} has half-precision numbers as base64, and a factor above 0`);
  }
  const halves = bytes(fields.float16, where);
  if (fields.heads !== heads || halves.byteLength !== 2 * layers * heads) {
    return fail(`${where} must have ${layers} rows of ${heads} entries`);
  }
  const values = new Float64Array(layers * heads);
  for (let cell = 0; cell < values.length; cell++)
    values[cell] = half(halves.getUint16(2 * cell, true)) * factor;
  if (values.includes(Number.POSITIVE_INFINITY) || values.includes(Number.NEGATIVE_INFINITY)) {
    return fail(`${where} has an infinite value`);
  }
  return values;
}

function bytes(text: string, where: string): DataView {
  try {
    const letters = atob(text);
    const found = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) found[i] = letters.charCodeAt(i);
    return new DataView(found.buffer);
  } catch {
    return fail(`${where} is not base64`);
  }
}

/** An IEEE half: sign, 5 bits of exponent, 10 of fraction. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
}

function readMatrix(
  found: unknown,
  where: string,
  layers: number,
  heads: number,
  entry: Entry,
): Float64Array {
  const rows = sequence(found, where, LARGEST_SIDE);
  if (rows.length !== layers || rows.some((row) => !Array.isArray(row) || row.length !== heads)) {
    fail(`${where} must have ${layers} rows of ${heads} entries`);
  }
  const values = new Float64Array(layers * heads);
  (rows as unknown[][]).forEach((row, layer) => {
    for (let head = 0; head < heads; head++) values[layer * heads + head] = entry(row[head], where);
  });
  return values;
}

function readScale(found: unknown, kind: Kind): Scale {
  const fields = mapping(found, "scale");
  const low = readNumber(fields.low, "scale.low");
  const high = readNumber(fields.high, "scale.high");
  if (!(kind === "level" ? low >= 0 : low === -high) || !(high - low >= SMALLEST_SCALE)) {
    fail(`scale goes from ${low} to ${high}; levels start at 0 or above, others at -high`);
  }
  return { low, high };
}

function readStatistic(found: unknown, where: string): Statistic {
  const fields = mapping(found, where);
  const end = (name: string) => (fields[name] === undefined ? null : readNumber(fields[name], where));
  return { value: readNumber(fields.value, where), low: end("low"), high: end("high") };
}

function readProgress(found: unknown): Progress {
  const fields = mapping(found, "progress");
  const done = whole(fields.done, "progress.done", 0, Number.MAX_SAFE_INTEGER);
  const total = whole(fields.total, "progress.total", 0, Number.MAX_SAFE_INTEGER);
  const unit = readText(given(fields.unit, "samples"), "progress.unit");
  return { done, total, unit, message: readText(given(fields.message, ""), "progress.message") };
}

function given(found: unknown, fallback: unknown): unknown {
  return found === undefined ? fallback : found;
}

function mapping(found: unknown, where: string): Fields {
  if (typeof found !== "object" || found === null || Array.isArray(found)) {
    fail(`${where} must be an object, got ${shown(found)}`);
  }
  return found as Fields;
}

function sequence(found: unknown, where: string, most: number): readonly unknown[] {
  if (!Array.isArray(found)) return fail(`${where} must be a list, got ${shown(found)}`);
  if (found.length > most) fail(`${where} has ${found.length} entries, at most ${most} are allowed`);
  return found;
}

function readText(found: unknown, where: string): string {
  if (typeof found === "string" && codePoints(found) <= LONGEST_TEXT) return found;
  return fail(`${where} must be text of at most ${LONGEST_TEXT} characters`);
}

/** JSON Schema and Python count characters, not UTF-16 units. */
function codePoints(text: string): number {
  return text.length <= LONGEST_TEXT || text.length > 2 * LONGEST_TEXT ? text.length : [...text].length;
}

function readNumber(found: unknown, where: string): number {
  if (typeof found === "number" && Math.abs(found) <= LARGEST_NUMBER) return found;
  return fail(`${where} must be a number, got ${shown(found)}`);
}

function numberOrNaN(found: unknown, where: string): number {
  return found === null ? Number.NaN : readNumber(found, where);
}

function orNull(found: unknown, where: string, read: Entry): number | null {
  return found === null || found === undefined ? null : read(found, where);
}

function atMostOne(found: unknown, where: string): number {
  const number = readNumber(found, where);
  return number <= 1 ? number : fail(`${where} must be at most 1, got ${number}`);
}

function share(found: unknown, where: string): number {
  const number = readNumber(found, where);
  return number > 0 && number < 1 ? number : fail(`${where} must be between 0 and 1, got ${number}`);
}

function mark(found: unknown, where: string): number {
  return whole(found, where, 0, 1);
}

function count(found: unknown, where: string): number {
  return whole(found, where, 0, Number.MAX_SAFE_INTEGER);
}

function whole(found: unknown, where: string, least: number, most: number): number {
  const number = readNumber(found, where);
  if (Number.isInteger(number) && number >= least && number <= most) return number;
  return fail(`${where} must be a whole number from ${least} to ${most}`);
}

function fail(what: string): never {
  throw new PayloadError(`not a head grid: ${what}`);
}

/** A few characters of something that may be anything. */
function shown(found: unknown): string {
  if (found === undefined || found === null) return "nothing";
  if (typeof found === "string") return JSON.stringify(found.slice(0, 50));
  return typeof found === "object"
    ? Array.isArray(found)
      ? "a list"
      : "an object"
    : String(found).slice(0, 60);
}
