"""Options of `%headscore` and `headnb score`: the same, with the defaults of the Python functions."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import headnb
import pytest
import typer
from headnb.cli import main
from headnb.engine.tokenization import ENCODINGS
from headnb.notebook import shared_options as shared
from headnb.notebook.magics import HeadMagics
from headnb.notebook.sft_magic import TuningMagics
from headnb.scoring.ablation import ablate
from headnb.stats.patterns import LOSS_REDUCTIONS
from headnb.tuning.finetuning import finetune

if TYPE_CHECKING:
    from collections.abc import Callable

    from headnb.notebook.shared_options import Option

OF_THE_MAGIC, OF_THE_COMMAND = {"--into"}, {"--save", "--help"}


def of_magic(magic: Any) -> dict[str, Any]:
    return {action.option_strings[-1]: action for action in magic.parser._actions if action.option_strings}


def of_command() -> dict[str, Any]:
    command = typer.main.get_command(main.app).commands["score"]  # type: ignore[attr-defined]
    return {max(param.opts, key=len): param for param in command.params if param.param_type_name == "option"}


def test_the_magic_and_the_command_have_the_same_options() -> None:
    magic, command = of_magic(HeadMagics.headscore), of_command()
    assert magic.keys() - OF_THE_MAGIC == command.keys() - OF_THE_COMMAND
    for flag in magic.keys() & command.keys():
        default = magic[flag].default
        if flag.strip("-").replace("-", "_") in HeadMagics.class_trait_names(config=True) and flag != "--samples":
            default = HeadMagics.class_traits()[magic[flag].dest].default_value
        assert set(magic[flag].option_strings) == set(command[flag].opts)
        assert default == command[flag].default
        said = (magic[flag].help % {}).removesuffix(f" Default: {default}.")
        assert said == command[flag].help


@pytest.mark.parametrize(
    "function", [headnb.score_heads, headnb.load_model, headnb.load_task, ablate, finetune, headnb.HeadScoreCallback]
)
def test_the_defaults_are_those_of_the_functions(function: Callable[..., Any]) -> None:
    defaults = {name: each.default for name, each in inspect.signature(function).parameters.items()}
    found = {option.name: option.default for option in shared.SCORE if option.name in defaults}
    assert found
    assert found == {name: defaults[name] for name in found}


@pytest.mark.parametrize(("option", "known"), [(shared.LOSS, LOSS_REDUCTIONS), (shared.ENCODING, ENCODINGS)])
def test_tab_offers_what_is_accepted(option: Option, known: Any) -> None:
    assert set(option.choices) == set(known)
    assert all(name in option.help for name in known)


@pytest.mark.parametrize("magic", [HeadMagics.headscore, HeadMagics.headablate, TuningMagics.headsft])
def test_what_config_sets_has_no_other_default(magic: Any) -> None:
    """A default in the parser would override the setting."""
    settable = {f"--{name.replace('_', '-')}" for name in HeadMagics.class_trait_names(config=True)}
    options = of_magic(magic)
    assert settable & options.keys() >= {"--samples", "--device", "--dtype"}
    assert {options[flag].default for flag in settable & options.keys()} == {None}


def test_method_options_are_numbers_by_name() -> None:
    assert shared.method_options("steps=50, learning_rate=1e-2") == {"steps": 50, "learning_rate": 0.01}
    assert isinstance(shared.method_options("steps= 50")["steps"], int)
    for text in ("steps", "steps=", "steps=many", "steps=5,", ""):
        with pytest.raises(headnb.HeadnbError, match="write NAME=NUMBER"):
            shared.method_options(text)


@pytest.mark.parametrize("text", ["steps=5,steps=6", "steps=5,penalty=1, steps =5"])
def test_a_method_option_that_is_given_twice_is_refused(text: str) -> None:
    with pytest.raises(headnb.HeadnbError, match=f"--options '{text}': steps is given twice"):
        shared.method_options(text)
