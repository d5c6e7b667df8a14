/** Script of the offline pages: draws each grid and chart from the JSON after the element that it fills. */

import { showChart } from "./view/chart";
import { GridView } from "./view/grid-view";

for (const source of document.querySelectorAll<HTMLScriptElement>("script[data-shows]")) {
  const host = source.previousElementSibling;
  if (!(host instanceof HTMLElement)) continue;
  if (source.dataset.shows === "chart") {
    showChart(host, source.textContent ?? "", source.dataset.ink ?? "");
  } else {
    host.parentElement?.classList.add("drawn");
    new GridView(host).show(source.textContent ?? "");
  }
}
