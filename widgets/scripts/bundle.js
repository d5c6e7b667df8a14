/** Bundle the live widgets (one ES module each, for anywidget) and the script of the HTML page. */

import { build } from "esbuild";

const common = {
  bundle: true,
  minify: true,
  target: "es2022",
  legalComments: "none",
  charset: "ascii",
  logLevel: "warning",
};

for (const name of ["widget", "explorer"]) {
  await build({
    ...common,
    entryPoints: [`src/${name}.ts`],
    format: "esm",
    outfile: `../headnb/static/${name}.js`,
  });
}
await build({ ...common, entryPoints: ["src/page.ts"], format: "iife", outfile: "../headnb/static/page.js" });
