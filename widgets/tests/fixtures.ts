/** The payload files that Python's tests read too. */

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const FOLDER = fileURLToPath(new URL("../../tests/fixtures/payloads", import.meta.url));

export function fixture(name: string): string {
  return readFileSync(`${FOLDER}/${name}.heads.json`, "utf8");
}

/** `[name, text]` of every file of a folder. */
export function fixtures(folder: string): [string, string][] {
  const names = readdirSync(`${FOLDER}/${folder}`).map((name) => name.replace(".heads.json", ""));
  return names.map((name) => [name, fixture(`${folder}/${name}`)]);
}

export function schema(): object {
  const path = fileURLToPath(new URL("../../headnb/display/pattern.schema.json", import.meta.url));
  return JSON.parse(readFileSync(path, "utf8"));
}
