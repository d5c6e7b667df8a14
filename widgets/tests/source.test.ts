import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const SOURCE = fileURLToPath(new URL("../src", import.meta.url));
const files = readdirSync(SOURCE, { recursive: true, encoding: "utf8" }).filter((name) =>
  name.endsWith(".ts"),
);
const MARKUP =
  /innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTML/;
const NETWORK = /\bfetch\(|XMLHttpRequest|WebSocket|import\(|sendBeacon|EventSource/;
const PAGE = /\b(document|window|navigator)\./;

test.each(files)("%s does not turn data into markup or code, and sends no requests", (name) => {
  const source = readFileSync(`${SOURCE}/${name}`, "utf8");
  expect(source).not.toMatch(MARKUP);
  expect(source).not.toMatch(NETWORK);
  expect(source).not.toMatch(/\beval\(|new Function/);
});

test.each(files.filter((name) => name.startsWith("grid")))(
  "%s of the drawing core does not use the page",
  (name) => {
    expect(readFileSync(`${SOURCE}/${name}`, "utf8")).not.toMatch(PAGE);
  },
);
