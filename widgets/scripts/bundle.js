/** Bundle the live widget (one ES module, for anywidget) and the HTML page's script. */

import { build } from "esbuild";

const common = {
  bundle: true,
  minify: true,
  target: "es2022",
  legalComments: "none",
  charset: "ascii",
  logLevel: "warning",
};

await build({
  ...common,
  entryPoints: ["src/widget.ts"],
  format: "esm",
  outfile: "../headnb/static/widget.js",
});
await build({ ...common, entryPoints: ["src/page.ts"], format: "iife", outfile: "../headnb/static/page.js" });
