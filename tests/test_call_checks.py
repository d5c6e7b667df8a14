"""Arguments of every public function: wrong types, NaN and invalid seeds give a one-line error."""

from __future__ import annotations

import importlib
import inspect

import headnb
import headnb.accessor
import numpy as np
import pytest
from headnb.call_checks import MAX_SEED, MAX_TRAINING_SEED, checked_seed
from headnb.cli.main import app
from headnb.errors import HeadnbError
from typer.testing import CliRunner

from tiny import tiny_model, tiny_tokenizer

PAIRS = [("2 + 3 = ", "5"), ("The sky is", " blue"), ("One, two,", " three"), ("def f(n):\n", "    return n")]
BAD = {
    "bool": ["false", "", 1, None],
    "int": ["3", 2.5, True, float("nan"), None],
    "float": ["0.1", float("nan"), float("inf"), True, None],
}
SEEDS = [-1, 2**64, 2**70, "0", 1.5, True, None]


def public_functions():
    """Name -> public function of headnb and of `.heads`."""
    found = {}
    for name, module in headnb._lazy_names.public_modules().items():
        value = getattr(importlib.import_module(f"headnb.{module}"), name)
        found[name] = value.__init__ if inspect.isclass(value) else value
    for kind in (headnb.accessor.ScoresHeads, headnb.accessor.PatternHeads):
        found |= {f"{kind.__name__}.{name}": value for name, value in vars(kind).items() if inspect.isfunction(value)}
    return {name: value for name, value in found.items() if not name.rpartition(".")[2].startswith("_")}


def plain_arguments():
    """(function, argument, annotation) of all bool, int and float arguments, seeds included."""
    for name, function in public_functions().items():
        for argument, annotation in inspect.get_annotations(inspect.unwrap(function)).items():
            kind = str(annotation).removesuffix(" | None")
            if kind in BAD and argument != "return":
                yield pytest.param(function, argument, str(annotation), id=f"{name}-{argument}")


@pytest.mark.parametrize(("function", "argument", "annotation"), list(plain_arguments()))
def test_a_value_of_another_type_is_refused_before_anything_else(function, argument, annotation):
    required = {
        name: 1 if parameter.annotation == "int" else None
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    for value in SEEDS if argument == "seed" else BAD[annotation.removesuffix(" | None")]:
        if value is None and annotation.endswith("None"):
            continue
        with pytest.raises(HeadnbError, match=rf"^{argument} must .*$") as refused:
            function(**{**required, argument: value})
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("seed", [0, 7, MAX_SEED, MAX_TRAINING_SEED, np.int64(7), np.uint64(MAX_SEED)])
def test_seeds_that_all_libraries_take_stay_as_they_are(seed):
    import random

    import torch
    import transformers

    assert checked_seed(seed) == seed
    assert type(checked_seed(seed)) is int
    np.random.default_rng(checked_seed(seed))
    torch.Generator().manual_seed(checked_seed(seed))
    random.Random(checked_seed(seed))
    if seed <= MAX_TRAINING_SEED:
        transformers.set_seed(checked_seed(seed))


def test_the_limits_are_those_of_torch_and_of_numpys_global_generator():
    import torch

    with pytest.raises(ValueError, match="Overflow"):
        torch.Generator().manual_seed(MAX_SEED + 1)
    with pytest.raises(ValueError, match="Seed must be between"):
        np.random.seed(MAX_TRAINING_SEED + 1)  # noqa: NPY002
    with pytest.raises(HeadnbError, match="seed must be from 0 to 4294967295, not 4294967296"):
        headnb.finetune(tiny_model(), tiny_tokenizer(), PAIRS, seed=MAX_TRAINING_SEED + 1)


@pytest.mark.parametrize("seed", [3, np.int64(3)])
def test_numpys_numbers_draw_the_same_samples(seed):
    assert headnb.load_task(PAIRS, n=np.int64(2), seed=seed).ids == headnb.load_task(PAIRS, n=2, seed=3).ids


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m, t: headnb.ablate(m, t, PAIRS, "L0H1", controls=-1), "controls must be at least 0"),
        (lambda m, t: headnb.finetune(m, t, PAIRS, learning_rate=-1), "learning_rate must not be negative"),
        (lambda m, t: headnb.finetune(m, t, PAIRS, bf16="false"), "bf16 must be of type bool, not the text 'false'"),
        (lambda m, t: headnb.finetune(m, t, PAIRS, weight_decay="0.1"), "weight_decay must be of type float"),
        (lambda m, t: headnb.finetune(m, t, PAIRS, warmup_steps="5"), "warmup_steps must be of type float"),
        (lambda m, t: headnb.explore(m, t, samples=0), "must be at least 1, not 0"),
        (lambda m, t: headnb.deletion_curve(m, t, PAIRS, ks=[]), "a number of heads"),
        (lambda m, t: headnb.deletion_curve(m, t, PAIRS, ks="3"), "ks must be a list, such as \\['3'\\]"),
        (lambda m, t: headnb.compare_methods(m, t, PAIRS, methods="activation"), "methods must be a list"),
        (lambda m, t: headnb.compare_methods(m, t, PAIRS, methods=["activation", "gates"], ks=[0]), "ks must"),
        (lambda m, t: headnb.mixture({"a": 1.0}, 3, sources="gsm8k"), "sources must be a dict"),
    ],
)  # fmt: skip
def test_values_that_a_library_would_refuse_or_misread_are_one_line(call, said):
    with pytest.raises(HeadnbError, match=said) as refused:
        call(tiny_model(), tiny_tokenizer())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--seed -1", "seed must be from 0"),
        (f"--seed {2**70}", "seed must be from 0"),
        ("-n 0", "n must be a whole number of samples, 1 or more"),
        ("-n -3", "n must be a whole number of samples, 1 or more"),
        ("--until nan", "until='nan' is not a relative"),
        ("--batch-tokens 0", "batch_tokens must be at least 1"),
        ("--max-length 0", "max_length must be at least 1"),
    ],
)
def test_the_command_line_refuses_them_in_a_line(folder, jsonl, words, said):
    file = jsonl(*[{"prompt": prompt, "completion": answer} for prompt, answer in PAIRS])
    result = CliRunner().invoke(app, ["score", str(folder), str(file), *words.split()])
    assert isinstance(result.exception, HeadnbError)  # `main` prints its one line
    assert said in str(result.exception)
