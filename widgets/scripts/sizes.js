/** Print the gzipped size of each bundle; fail if one is too large. */

import { readdirSync, readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const MOST_KILOBYTES = 150;

function gzipped(paths) {
  return paths.reduce((sum, path) => sum + gzipSync(readFileSync(path), { level: 9 }).length, 0) / 1000;
}

function scripts(folder) {
  return readdirSync(folder, { recursive: true })
    .filter((name) => name.endsWith(".js"))
    .map((name) => `${folder}/${name}`);
}

const bundles = {
  "live widget": ["../headnb/static/widget.js"],
  explorer: ["../headnb/static/explorer.js"],
  "HTML page": ["../headnb/static/page.js"],
  "JupyterLab renderer": scripts("../headnb/labextension"),
};

for (const [name, paths] of Object.entries(bundles)) {
  const size = gzipped(paths);
  console.log(`${name.padEnd(20)} ${size.toFixed(1).padStart(6)} kB gzip`);
  if (size > MOST_KILOBYTES) {
    console.error(`more than ${MOST_KILOBYTES} kB`);
    process.exitCode = 1;
  }
}
