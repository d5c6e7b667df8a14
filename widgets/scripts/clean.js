/** Remove all build outputs: hatch reuses an existing build, so a release must start without one. */

import { rmSync } from "node:fs";

for (const folder of ["lib", "src/generated", "../headnb/static", "../headnb/labextension"])
  rmSync(folder, { recursive: true, force: true });
