"""Selection of heads in Python: validation, callbacks, links between grids, and messages of a hostile page."""

from __future__ import annotations

import headnb
import pytest
from headnb.errors import HeadnbError

from synthetic_results import random_pattern, scores
from tiny import tiny_model


def live(layers=3, heads=4, seed=0):
    return headnb.grid(random_pattern(layers, heads, seed), live=True)


@pytest.fixture(params=["grid", "explorer"])
def grid(request):
    return live() if request.param == "grid" else scores(8).heads.explore()


@pytest.mark.parametrize(
    "given", ["L2H3,L0H1", "L2H3 L0H1", ["L2H3", "L0H1"], ("L2H3", "L0H1"), {"L2H3": 1, "L0H1": 2}.keys()]
)
def test_heads_are_selected_by_names_in_any_form(grid, given):
    grid.selected = given
    assert grid.selected == ["L0H1", "L2H3"]


def test_index_of_a_table_of_heads_is_a_selection():
    pattern = random_pattern(3, 4)
    grid = headnb.grid(pattern, live=True)
    grid.selected = pattern.heads.top(2).index
    assert set(grid.selected) == set(pattern.heads.top(2).index)


@pytest.mark.parametrize("given", ["L9H4", ["L0H1", "L9H4"], ["0"], ["L0H1", "<b>"]])
def test_unknown_head_is_one_line_and_the_selection_stays(grid, given):
    grid.selected = ["L1H1"]
    with pytest.raises(HeadnbError, match="unknown head") as error:
        grid.selected = given
    assert "\n" not in str(error.value)
    assert grid.selected == ["L1H1"]


def test_callback_gets_the_names_until_it_is_removed(grid):
    seen = []
    remove = grid.on_select(seen.append)
    grid.selected = ["L1H1"]
    grid.set_state({"selected": ["L2H3", "L0H1"]})
    grid.selected = ["L0H1", "L2H3"]  # no change
    remove()
    remove()
    grid.selected = []
    assert seen == [["L1H1"], ["L0H1", "L2H3"]]


def test_exception_in_a_callback_is_shown_and_the_widget_goes_on(grid):
    def broken(_):
        raise ValueError("no such thing")

    seen = []
    grid.on_select(broken)
    grid.on_select(seen.append)
    grid.set_state({"selected": ["L1H1"]})
    shown = grid.problem if hasattr(grid, "problem") else grid.status["error"]
    assert shown == "on_select(broken): ValueError: no such thing"
    assert isinstance(grid.error, ValueError)
    assert seen == [["L1H1"]]
    assert grid.selected == ["L1H1"]


def test_callback_must_be_a_function(grid):
    with pytest.raises(HeadnbError, match="needs a function of the selected heads, not a list"):
        grid.on_select([])


def test_linked_grids_share_their_selection_until_unlinked():
    one, other = live(seed=1), live(seed=2)
    one.selected = ["L1H1"]
    linked = headnb.link(one, other)
    assert other.selected == ["L1H1"]
    other.set_state({"selected": ["L0H0", "L2H2"]})
    assert one.selected == ["L0H0", "L2H2"]
    linked.unlink()
    one.selected = []
    assert other.selected == ["L0H0", "L2H2"]


def test_grid_links_with_an_explorer():
    grid, explorer = live(), scores(8).heads.explore()
    grid.link(explorer)
    explorer.selected = ["L2H1"]
    assert grid.selected == ["L2H1"]


def test_grids_of_other_heads_are_not_linked():
    with pytest.raises(
        HeadnbError, match=r"cannot share a selection: their layers or heads differ \(3 x 4 and 2 x 4\)"
    ):
        headnb.link(live(), live(layers=2))
    one = live()
    with pytest.raises(HeadnbError, match="with itself"):
        one.link(one)
    with pytest.raises(HeadnbError, match="only live grids share a selection"):
        headnb.link(one, random_pattern(3, 4).heads.grid())


@pytest.mark.parametrize(
    "message",
    [
        {"selected": 3},
        {"selected": None},
        {"selected": [None]},
        {"selected": {"L0H1": 1}},
        {"selected": ["L0H1"] * 3 + ["L" + "9" * 100_000]},
        {"selected": [["L0H1"]]},
        {"payload": {"version": 1}},
        {"_esm": "alert(1)"},
        {"problem": "x"},
        [],
        None,
    ],
)
def test_hostile_message_changes_nothing(grid, message):
    grid.selected = ["L1H1"]
    script, payload = grid._esm, grid.payload
    grid.set_state(message)
    assert grid.selected == ["L1H1"]
    assert (grid._esm, grid.payload) == (script, payload)
    shown = grid.problem if hasattr(grid, "problem") else grid.status["error"]
    assert len(shown) < 1000
    assert shown != "x"
    grid.set_state({"selected": ["L0H2"]})
    assert grid.selected == ["L0H2"]


def test_selection_ablates_heads_directly():
    model = tiny_model()
    grid = live(layers=2)
    grid.selected = ["L0H1", "L1H2"]
    ids = model.dummy_inputs["input_ids"]
    with headnb.scale_heads(model, grid.selected):
        selected = model(ids).logits
    with headnb.scale_heads(model, {"L0H1": 0.0, "L1H2": 0.0}):
        expected = model(ids).logits
    assert (selected == expected).all()
    assert (selected != model(ids).logits).any()
    with pytest.raises(HeadnbError, match="no heads given"), headnb.scale_heads(model, []):
        pass
