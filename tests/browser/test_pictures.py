"""The README's pictures, made from the default model in JupyterLab: `make pictures` writes them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from jupyter_pages import command, notebook, start_cell

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from jupyter_pages import Jupyter

pytestmark = pytest.mark.slow

LOAD = "%load_ext headnb\nimport headnb\nmodel, tokenizer = headnb.load_model('smollm2-135m')"
WAIT = 600_000  # milliseconds
FRAME = 700  # milliseconds between two pictures of a grid that fills


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the pictures go: the folder that HEADNB_PICTURES names, or a temporary one."""
    given = Path(os.environ.get("HEADNB_PICTURES", tmp_path))
    given.mkdir(parents=True, exist_ok=True)
    return given


def started(page: Page, jupyter: Jupyter, line: str) -> Locator:
    """The notebook cell that runs a line, with the model already loaded."""
    page.set_viewport_size({"width": 1240, "height": 1500})
    jupyter.open_lab(page, jupyter.save(notebook(LOAD, line)))
    command(page, "application:toggle-left-area")
    start_cell(page, 0)
    done(page, 0)
    start_cell(page, 1)
    return page.locator(".jp-CodeCell").nth(1)


def done(page: Page, cell: int) -> None:
    prompt = f"document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')[{cell}].textContent"
    page.wait_for_function(f"{prompt} === '[{cell + 1}]:'", timeout=WAIT)


def test_a_grid_that_fills(page: Page, jupyter: Jupyter, folder: Path) -> None:
    cell = started(page, jupyter, "scores = %headscore smollm2-135m gsm_symbolic -n 48")
    cell.locator(".headnb-grid canvas").first.wait_for(timeout=WAIT)
    frames = []
    while cell.locator(".progress").first.is_visible():
        frames.append(Image.open(io.BytesIO(cell.screenshot())))
        page.wait_for_timeout(FRAME)
    done(page, 1)
    frames.append(Image.open(io.BytesIO(cell.screenshot(path=folder / "grid.png"))))
    assert len(frames) > 3
    write_animation(frames, folder / "filling.gif")


def write_animation(frames: list[Image.Image], path: Path) -> None:
    """A GIF in three quarters of the size, with the colours of the last frame."""
    width, height = frames[-1].size
    small = [
        frame.convert("RGB")
        .crop((0, 0, width, height))
        .resize((width * 3 // 4, height * 3 // 4), Image.Resampling.LANCZOS)
        for frame in frames
    ]
    palette = small[-1].quantize(96)
    first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in small]
    durations = [250] * len(others) + [4000]
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("fine_tuning", "result = %headsft smollm2-135m gsm_symbolic --steps 16 --every 4 -n 24 --batch-size 4"),
        ("roles", "roles = %headroles smollm2-135m"),
    ],
)
def test_a_result(page: Page, jupyter: Jupyter, folder: Path, name: str, line: str) -> None:
    cell = started(page, jupyter, line)
    done(page, 1)
    cell.locator(".headnb-grid canvas").first.wait_for(timeout=WAIT)
    cell.screenshot(path=folder / f"{name}.png")
