/** Remove what a build makes: hatch keeps an existing build, so a release must begin without one. */

import { rmSync } from "node:fs";

for (const folder of ["lib", "src/generated", "../headnb/static", "../headnb/labextension"])
  rmSync(folder, { recursive: true, force: true });
