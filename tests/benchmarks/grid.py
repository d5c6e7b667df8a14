"""Drawing and hover times of a head grid in headless Chromium: `python tests/benchmarks/grid.py`.

First draw: the time from passing the payload to the live widget, on a new page, until its canvas is painted. Hover: the
time from the mouse event until tooltip and outline are updated. Limits: 100 ms and 16 ms for 126 x 128 heads.

The benchmark also measures the work in Python: a payload of 126 x 128 heads (limit 300 kB), its HTML (2 MB, 0.5 s), and
a study of 200 steps x 12 tasks x 1024 heads from its values to the painted canvas (2 s).
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import xarray as xr
from headnb.display.frontend import bundle
from headnb.display.html import card
from headnb.display.payload import payload
from playwright.sync_api import Browser, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Callable

    from headnb.display.payload_types import Payload

Made = TypeVar("Made")

SHAPES = ((2, 2), (30, 9), (32, 32), (126, 128), (700, 700))
LIMITS = {(126, 128): (100.0, 16.0)}
PAGES = 7
MEASURE = """async ({ payload, script }) => {
  const url = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
  const { default: widget } = await import(url);
  const frame = () => new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)));
  const el = document.body.appendChild(document.createElement('div'));
  const traits = { payload, selected: [] };
  const model = { get: name => traits[name], set() {}, save_changes() {}, send() {}, on() {}, off() {} };
  await frame();
  const start = performance.now();
  widget.render({ model, el });
  const stage = el.shadowRoot.querySelector('.stage');
  while (!stage.querySelector('canvas').style.width) await frame();
  stage.querySelector('canvas').getContext('2d').getImageData(0, 0, 1, 1);
  const draw = performance.now() - start;
  const hover = [];
  for (let place = 1; place < 40; place++) {
    await frame();
    const box = stage.getBoundingClientRect();
    const [x, y] = [box.left + 40 + place * (box.width - 120) / 40, box.top + 100 + place * (box.height - 230) / 40];
    const from = performance.now();
    stage.dispatchEvent(new PointerEvent('pointermove', { clientX: x, clientY: y, bubbles: true }));
    el.shadowRoot.querySelector('.tooltip').getBoundingClientRect();
    hover.push(performance.now() - from);
  }
  return [draw, hover];
}"""


def measure(browser: Browser, found: Payload, script: str) -> tuple[list[float], list[float]]:
    """Milliseconds of first draws, each on a new page, and of hovers."""
    draws, hovers = [], []
    for _ in range(PAGES):
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        draw, hover = page.evaluate(MEASURE, {"payload": found, "script": script})
        draws.append(draw)
        hovers += hover
        page.close()
    return draws, hovers


def made(layers: int, heads: int) -> Payload:
    values = np.random.default_rng(0).lognormal(-4, 0.8, (layers, heads))
    attrs = {"kind": "level", "units": "nats", "kv_heads": heads // 2, "samples": 64}
    coords = {"layer": range(layers), "head": range(heads)}
    return payload(xr.DataArray(values, dims=("layer", "head"), coords=coords, attrs=attrs, name="activation_level"))


def seconds(work: Callable[[], Made]) -> tuple[float, Made]:
    """Seconds of the fastest of three runs, and the result."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        made = work()
        times.append(time.perf_counter() - began)
    return min(times), made


def study(steps: int, tasks: int, layers: int, heads: int) -> xr.DataArray:
    random = np.random.default_rng(0)
    start = random.lognormal(-4, 0.8, (1, tasks, layers, heads))
    values = start * np.exp(np.cumsum(random.normal(0, 0.02, (steps, tasks, layers, heads)), 0))
    coords = {"step": range(steps), "task": [f"task {task}" for task in range(tasks)]}
    coords |= {"layer": range(layers), "head": range(heads)}
    attrs = {"kind": "level", "units": "nats", "kv_heads": heads // 4}
    return xr.DataArray(values, dims=tuple(coords), coords=coords, attrs=attrs, name="activation_level")


def sizes(browser: Browser, script: str) -> None:
    """Print time and size of the payloads that Python prepares before the first draw."""
    grid = made(126, 128)
    took, text = seconds(lambda: card(grid))
    print(f"126 x 128: payload {len(json.dumps(grid)) / 1e3:.0f} kB, HTML {len(text) / 1e6:.2f} MB in {took:.2f} s")
    levels = study(200, 12, 32, 32)
    took, found = seconds(lambda: payload(levels))
    (draw, *_), _ = measure(browser, found, script)
    sent = len(json.dumps(found)) / 1e6
    print(f"200 steps x 12 tasks x 1024 heads: payload {sent:.1f} MB in {took:.2f} s, drawn in {draw / 1e3:.2f} s")


def main() -> int:
    debian = Path("/usr/bin/chromium")
    path = os.environ.get("HEADNB_CHROMIUM") or (str(debian) if debian.exists() else None)
    script = bundle("widget.js").read_text(encoding="utf-8")
    slow = 0
    print(f"{'layers x heads':>15} {'first draw':>12} {'(worst)':>9} {'hover':>9} {'(95 %)':>9}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for layers, heads in SHAPES:
            draw, hover = measure(browser, made(layers, heads), script)
            first, usual, late = statistics.median(draw), statistics.median(hover), float(np.percentile(hover, 95))
            most_draw, most_hover = LIMITS.get((layers, heads), (float("inf"), float("inf")))
            slow += first > most_draw or late > most_hover
            words = f"{layers:>7} x {heads:<5} {first:>9.1f} ms {max(draw):>6.1f} ms {usual:>6.2f} ms {late:>6.2f} ms"
            print(words, "  too slow" if first > most_draw or late > most_hover else "")
        sizes(browser, script)
        browser.close()
    return int(slow > 0)


if __name__ == "__main__":
    sys.exit(main())
