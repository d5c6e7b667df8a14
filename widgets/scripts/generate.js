/**
 * Generate `src/generated` from the payload schema and the drawing constants, which Python reads too.
 *
 * The generated validator does not use `eval`, so it runs on pages whose content security policy forbids it.
 */

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { validator } from "@exodus/schemasafe";

const FOLDER = "src/generated";

function read(name) {
  return JSON.parse(readFileSync(`../headnb/display/${name}`, "utf8"));
}

function write(name, lines) {
  writeFileSync(`${FOLDER}/${name}.ts`, `${lines.join("\n")}\n`);
}

/** The TypeScript type of the values that a part of the schema accepts. */
function type(part, schema) {
  if (part.$ref) return type(schema.$defs[part.$ref.replace("#/$defs/", "")], schema);
  if (part.if) return `${type(part.then, schema)} | ${type(part.else, schema)}`;
  if (part.enum) return part.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (Array.isArray(part.type))
    return part.type.map((name) => type({ ...part, type: name }, schema)).join(" | ");
  if (part.type === "integer") return "number";
  if (part.type === "array") return `readonly (${type(part.items, schema)})[]`;
  if (part.type !== "object") return part.type;
  if (!part.properties) return `Readonly<Record<string, ${type(part.additionalProperties, schema)}>>`;
  const fields = Object.entries(part.properties).map(
    ([name, field]) => `readonly ${name}${part.required?.includes(name) ? "" : "?"}: ${type(field, schema)}`,
  );
  return `{ ${fields.join("; ")} }`;
}

const schema = read("pattern.schema.json");
const validate = validator(schema, { mode: "default", includeErrors: true, isJSON: true });

mkdirSync(FOLDER, { recursive: true });
write("drawing", [`export const DRAWING = ${JSON.stringify(read("drawing.json"))} as const;`]);
write("given", [
  `export type Given = ${type(schema, schema)};`,
  `export type Kind = ${type(schema.properties.kind, schema)};`,
  `export const VERSION = ${schema.properties.version.const};`,
]);
write("validate", [
  "// @ts-nocheck",
  'import type { Given } from "./given";',
  "interface Validate {",
  "  (found: unknown): found is Given;",
  "  errors: readonly { keywordLocation: string; instanceLocation: string }[] | null;",
  "}",
  `export const validate: Validate = ${validate.toModule()}`,
]);
