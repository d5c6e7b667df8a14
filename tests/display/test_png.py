"""PNG forms of head grids, decoded by Pillow: every cell has its colour, and marks, missing and selected heads show."""

from __future__ import annotations

import base64
import io
import re

import nbformat
import numpy as np
import pytest
from headnb.display.colours import paint
from headnb.display.geometry import grid_geometry
from headnb.display.grid import HeadGrid, mime_bundle
from headnb.display.html import card
from headnb.display.payload import payload
from headnb.display.png import MARKED_CELL, cells_png, picture_png
from PIL import Image

from synthetic_results import comparison, pattern, random_pattern, scores

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def decoded(png: bytes) -> np.ndarray:
    """Red, green, blue and opacity (height, width, 4)."""
    image = Image.open(io.BytesIO(png))
    assert image.mode == "P"
    return np.asarray(image.convert("RGBA")).astype(int)


def expected_colour(value: float, scale: dict[str, float]) -> list[int]:
    colour, opacity = paint(value, (scale["low"], scale["high"]))
    return [*(int(colour[i : i + 2], 16) for i in (1, 3, 5)), round(255 * opacity)]


@pytest.mark.parametrize("kind", ["level", "difference"])
@pytest.mark.parametrize("shape", [(1, 1), (30, 9), (80, 64)])
def test_every_cell_is_one_pixel_with_its_colour(kind: str, shape: tuple[int, int]) -> None:
    data = random_pattern(*shape)
    made = payload(data if kind == "level" else comparison(data - 0.02, data > 1).drop_vars("significant"))
    pixels = decoded(cells_png(made, made["panels"][0]))
    values = np.array(made["panels"][0]["values"], float)
    expected = np.array([[expected_colour(value, made["scale"]) for value in row] for row in values])
    visible = expected[..., 3:] > 0
    assert np.array_equal(pixels[..., 3], expected[..., 3])
    assert np.array_equal(pixels * visible, expected * visible)


@pytest.mark.parametrize("kv_heads", [1, 3, 9])
def test_the_picture_has_every_cell_in_its_colour_on_white(kv_heads: int) -> None:
    made = payload(random_pattern(30, 9, kv_heads=kv_heads))
    pixels = decoded(picture_png(made, made["panels"], []))[..., :3]
    place = grid_geometry(made, 1)
    values = np.array(made["panels"][0]["values"], float)
    colours = [expected_colour(value, made["scale"])[:3] for value in values.ravel()]
    top = next(y for y in range(pixels.shape[0]) if (pixels[y, 40 : 40 + place.cell_width - 1] == colours[0]).all())
    for cell, colour in enumerate(colours):
        layer, head = divmod(cell, 9)
        box = pixels[top + place.y(layer) :, 40 + place.x(head) :][: place.cell_height - 1, : place.cell_width - 1]
        assert (box == colour).all()


def centre(pixels: np.ndarray, layer: int, head: int) -> tuple[int, ...]:
    return (*pixels[MARKED_CELL * layer + 2, MARKED_CELL * head + 2, :3].tolist(),)


def test_significant_missing_and_selected_heads_are_marked() -> None:
    made = payload(comparison([[0.01, -0.02], [np.nan, 0.03]], [[True, False], [False, False]]))
    pixels = decoded(cells_png(made, made["panels"][0], [(1, 1)]))
    assert pixels.shape[:2] == (2 * MARKED_CELL, 2 * MARKED_CELL)
    assert centre(pixels, 0, 0) == BLACK
    assert (*pixels[1, 2, :3].tolist(),) == WHITE
    assert centre(pixels, 0, 1) == (*expected_colour(-0.02, made["scale"])[:3],)
    missing = pixels[MARKED_CELL:, :MARKED_CELL]
    assert set(missing[..., 3].ravel().tolist()) == {0, 255}
    assert missing[4, 0, 3] == missing[0, 4, 3] == 255
    assert missing[0, 0, 3] == missing[4, 4, 3] == 0
    selected = pixels[MARKED_CELL:, MARKED_CELL:, :3]
    assert (selected[0] == BLACK).all()
    assert (selected[:, -1] == BLACK).all()
    assert (selected[1, 1:-1] == WHITE).all()


def test_the_picture_shows_marks_missing_and_selected_heads() -> None:
    plain = payload(comparison([[0.01, -0.02], [0.01, 0.03]], [[False, False], [False, False]]))
    marked = payload(comparison([[0.01, -0.02], [0.01, 0.03]], [[True, False], [False, False]]))
    first, second = (decoded(picture_png(made, made["panels"], [])) for made in (plain, marked))
    assert ((first != second).any(-1) & (second[..., :3] == BLACK).all(-1)).sum() >= 4
    chosen = decoded(picture_png(plain, plain["panels"], [], [(0, 1)]))
    assert ((first != chosen).any(-1) & (chosen[..., :3] == BLACK).all(-1)).sum() >= 40


def test_the_html_has_the_image_at_the_size_of_the_grid_with_axes_and_alternative_text() -> None:
    data = pattern(np.random.default_rng(0).lognormal(-4, 1, (12, 3)), kv_heads=3)
    made = payload(data.isel(layer=[0, 5, 7]))
    text = card(made)
    image = re.search(
        r'<img src="data:image/png;base64,([^"]+)" width="(\d+)" height="(\d+)" alt="activation[^>]*>', text
    )
    assert image is not None
    assert decoded(base64.b64decode(image[1])).shape[:2] == (3, 3)
    place = grid_geometry(made, 1)
    assert (int(image[2]), int(image[3])) == (place.grid_width, place.grid_height)
    assert "image-rendering:pixelated" in image[0]
    assert "activation level (nats) · 3 layers × 3 heads. Top heads: L" in image[0]
    assert ">0\n5\n7</div>" in text
    assert "<span>0</span> <span>1</span> <span>2</span>" in text


def test_selected_heads_are_named_in_the_html() -> None:
    made = payload(random_pattern(3, 4))
    assert "Selected: L0H1, L2H3" in mime_bundle(made, [(2, 3), (0, 1)])["text/html"]
    assert "Selected" not in mime_bundle(made)["text/html"]


def test_names_in_any_script_and_control_characters_are_drawn() -> None:
    made = payload({"模型\x1b[31m": random_pattern(2, 2), "$x^2$ naïve": random_pattern(2, 2, 1)}, title="Ω\u202e · ≤")
    decoded(picture_png(made, made["panels"], ["naïve ± Ω"]))


def notebook_bytes(grid: HeadGrid, count: int = 1) -> int:
    output = nbformat.v4.new_output("display_data", data=grid._repr_mimebundle_())
    cells = [nbformat.v4.new_code_cell("grid", outputs=[output]) for _ in range(count)]
    return len(nbformat.writes(nbformat.v4.new_notebook(cells=cells)).encode())


def test_grids_take_little_room_in_a_notebook() -> None:
    large, difference = random_pattern(80, 64), random_pattern(30, 9) - 0.02
    assert notebook_bytes(HeadGrid.of(large)) < 75_000
    assert notebook_bytes(HeadGrid.of(scores(16, 80, 64))) < 75_000
    assert notebook_bytes(HeadGrid.of(scores(16, 30, 9, kv_heads=3)), 50) < 1_000_000
    assert notebook_bytes(HeadGrid.of(comparison(difference, difference > 0.05)), 50) < 1_000_000
