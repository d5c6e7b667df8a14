"""What a user got wrong is named, and so is what was probably meant."""

from __future__ import annotations

import inspect

import headnb
import pytest
from headnb.errors import HeadnbError, known_keywords, unknown_name

FUNCTIONS = [
    "ablate",
    "compare",
    "explore",
    "head_attention",
    "load_model",
    "load_task",
    "scale_heads",
    "score_heads",
]


@known_keywords
def add(first: int, second: int = 2, *, third: int = 3) -> int:
    """Three numbers."""
    return first + second + third


def test_right_calls_go_through():
    assert (add(1), add(1, 5), add(first=1, second=5, third=10)) == (6, 9, 16)
    assert add.__doc__ == "Three numbers."
    assert list(inspect.signature(add).parameters) == ["first", "second", "third"]


def test_a_misspelt_keyword_is_answered_with_the_nearest():
    with pytest.raises(HeadnbError, match="unknown argument of add 'secnd'; did you mean 'second'"):
        add(1, secnd=3)
    with pytest.raises(TypeError, match="known: first, second, third"):
        add(1, zzz=3)


def test_other_mistakes_are_pythons_own():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'first'"):
        add()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_name_the_nearest_keyword(name):
    function = getattr(headnb, name)
    keyword = next(
        found.name
        for found in reversed(inspect.signature(function).parameters.values())
        if found.kind is not found.VAR_KEYWORD and len(found.name) > 3
    )
    misspelt = keyword[0] + keyword[2] + keyword[1] + keyword[3:]
    with pytest.raises(HeadnbError, match=f"'{misspelt}'; did you mean.*'{keyword}'"):
        function(None, **{misspelt: 1})


def test_unknown_name_lists_a_few_when_nothing_is_near():
    assert str(unknown_name("task", "xyz", ["b", "a"])) == "unknown task 'xyz'; known: a, b"
