/** The offline HTML page of `headnb.display.page`: one grid, whose payload stands in the page itself. */

import { GridView } from "./view/grid-view";

const host = document.getElementById("headnb-grid");
const source = document.getElementById("headnb-payload");
if (host && source) new GridView(host).show(source.textContent ?? "");
