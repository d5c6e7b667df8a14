"""Errors for unknown names and misspelt keywords suggest the nearest valid name."""

from __future__ import annotations

import importlib
import inspect

import headnb
import pytest
from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError, unknown_name

from tiny import tiny_model, tiny_tokenizer

PUBLIC = [
    name
    for name, module in headnb._lazy_names.public_modules().items()
    if callable(made := getattr(importlib.import_module(f"headnb.{module}"), name))
    and not (inspect.isclass(made) and issubclass(made, BaseException))
    and (not inspect.isclass(made) or name in {"HeadGridWidget", "HeadScoreCallback"})
]


@check_arguments
def add(first: int, second: int = 2, *, third: int = 3) -> int:
    """Sum of three numbers."""
    return first + second + third


def test_right_calls_go_through():
    assert (add(1), add(1, 5), add(first=1, second=5, third=10)) == (6, 9, 16)
    assert add.__doc__ == "Sum of three numbers."
    assert list(inspect.signature(add).parameters) == ["first", "second", "third"]


def test_a_misspelt_keyword_is_answered_with_the_nearest():
    with pytest.raises(HeadnbError, match="unknown argument of add 'secnd'; did you mean 'second'"):
        add(1, secnd=3)
    with pytest.raises(TypeError, match="known: first, second, third"):
        add(1, zzz=3)


def test_other_mistakes_are_pythons_own():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'first'"):
        add()


@pytest.mark.parametrize("name", PUBLIC)
def test_public_functions_name_the_nearest_keyword(name):
    function = getattr(headnb, name)
    parameters = inspect.signature(function).parameters.values()
    named = [found for found in parameters if found.kind in {found.POSITIONAL_OR_KEYWORD, found.KEYWORD_ONLY}]
    required = [found for found in named if found.default is found.empty]
    keyword = max((found.name for found in named), key=len)
    misspelt = keyword[:-1]
    with pytest.raises(HeadnbError, match=f"'{misspelt}'; did you mean.*'{keyword}'"):
        function(*[None for _ in required], **{misspelt: 1})


def test_unknown_name_lists_a_few_when_nothing_is_near():
    assert str(unknown_name("task", "xyz", ["b", "a"])) == "unknown task 'xyz'; known: a, b"
    assert str(unknown_name("option", "xyz", [])) == "unknown option 'xyz'; there are none"


def test_warnings_name_the_line_of_the_user():
    """Whatever wraps the public function: checks of arguments, progress bars, lazy names."""
    half = tiny_model().bfloat16()
    with pytest.warns(UserWarning, match="most updates of full tuning are rounded to zero") as warned:
        headnb.finetune(half, tiny_tokenizer(), [("1 + 1 = ", "2")], steps=1, batch_size=1, track=[], inplace=True)
    assert [one.filename for one in warned if "rounded to zero" in str(one.message)] == [__file__]
