/** Payload files shared with Python's tests. */

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const FOLDER = fileURLToPath(new URL("../../tests/fixtures/payloads", import.meta.url));

export function fixture(name: string): string {
  return readFileSync(`${FOLDER}/${name}.heads.json`, "utf8");
}

/** `[name, text]` of every file in a folder. */
export function fixtures(folder: string): [string, string][] {
  const names = readdirSync(`${FOLDER}/${folder}`).map((name) => name.replace(".heads.json", ""));
  return names.map((name) => [name, fixture(`${folder}/${name}`)]);
}

interface Change {
  readonly file: string;
  readonly path: readonly (string | number)[];
  /** Index of the new value among `values`; absent for a removal. */
  readonly value?: number;
  readonly schema: boolean;
  readonly reader: boolean;
}

/** `[name, payload, change]` of every change recorded by `tests/support/payload_changes.py`. */
export function changes(): [string, unknown, Change][] {
  const recorded: { values: unknown[]; changes: Change[] } = JSON.parse(
    readFileSync(`${FOLDER}/../payload_changes.json`, "utf8"),
  );
  return recorded.changes.map((change) => {
    const payload = JSON.parse(fixture(`valid/${change.file}`));
    const last = change.path.at(-1) ?? "";
    const at = change.path.slice(0, -1).reduce((found, key) => found[key], payload);
    if (change.value !== undefined) at[last] = structuredClone(recorded.values[change.value]);
    else if (Array.isArray(at)) at.splice(Number(last), 1);
    else delete at[last];
    return [`${change.file}: ${change.path.join(".")} ${change.value ?? "gone"}`, payload, change];
  });
}

export function schema(): object {
  const path = fileURLToPath(new URL("../../headnb/display/pattern.schema.json", import.meta.url));
  return JSON.parse(readFileSync(path, "utf8"));
}
