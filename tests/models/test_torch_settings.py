"""The user's torch settings around a call do not change results."""

from __future__ import annotations

from contextlib import contextmanager

import headnb
import numpy as np
import pytest
import torch
from headnb.analysis.representations import layer_grams
from headnb.errors import HeadnbError
from headnb.tuning.adapters import compare_adapter

from adapter_models import PAIRS, TOKENIZER, with_adapter
from tiny import tiny_model


@contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)
        try:
            torch.get_default_device()  # transformers calls it
        except AttributeError:  # torch 2.8 and 2.9, after this reset
            torch.set_default_device("cpu")


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default dtype": default_dtype,
    "default device": default_device,
    "with device": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "deterministic": deterministic,
}
METHODS = ["activation", "taylor-token", "output-norm", "entropy", "ablate-zero", "ablate-mean", "attattr", "gates"]
OPTIONS = {"attattr": {"steps": 3}, "gates": {"steps": 3, "samples": 3}}


def scored(method):
    def call():
        return headnb.score_heads(tiny_model(), TOKENIZER, PAIRS, method=method, options=OPTIONS.get(method)).score

    return call


CALLS = {
    **{method: scored(method) for method in METHODS},
    "left padding": lambda: headnb.score_heads(tiny_model(), TOKENIZER, PAIRS, padding_side="left").score,
    "a sample too long": lambda: headnb.score_heads(tiny_model(), TOKENIZER, PAIRS, batch_tokens=4).score,
    "evaluate": lambda: headnb.evaluate(tiny_model(), TOKENIZER, PAIRS, answer="text", max_new_tokens=3).loss,
    "ablate": lambda: headnb.ablate(tiny_model(), TOKENIZER, PAIRS, "L1H2", controls=2).control_change,
    "head_attention": lambda: headnb.head_attention(tiny_model(), TOKENIZER, PAIRS, "L1H2").products,
    "layer_grams": lambda: layer_grams(tiny_model(), TOKENIZER, PAIRS).gram,
    "compare_adapter": lambda: compare_adapter(with_adapter(tiny_model(), 10), TOKENIZER, PAIRS).difference,
}


def in_setting(setting, call):
    """The result of a call inside a setting. The models are created outside, as users load them."""
    with pytest.MonkeyPatch.context() as patch:
        made = tiny_model()
        wrapped = with_adapter(tiny_model(), 10)
        patch.setitem(globals(), "tiny_model", lambda: made)
        patch.setitem(globals(), "with_adapter", lambda *_: wrapped)
        with setting():
            return np.asarray(call())


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_result_is_that_outside(setting, name):
    np.testing.assert_array_equal(in_setting(SETTINGS[setting], CALLS[name]), np.asarray(CALLS[name]()))


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_come_back(setting):
    def now():
        return (
            torch.get_default_dtype(),
            torch.get_default_device().type,
            torch.is_autocast_enabled("cpu"),
            torch.is_inference_mode_enabled(),
            torch.are_deterministic_algorithms_enabled(),
        )

    model = tiny_model()
    with SETTINGS[setting]():
        before = now()
        headnb.score_heads(model, TOKENIZER, PAIRS)
        assert now() == before


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_model_loads_as_outside(setting, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    with SETTINGS[setting]():
        model, tokenizer = headnb.load_model(tmp_path)
    assert model.dtype == torch.float32
    found = headnb.score_heads(model, tokenizer, PAIRS).score
    np.testing.assert_array_equal(found, headnb.score_heads(tiny_model(), TOKENIZER, PAIRS).score)


def test_weights_that_were_made_in_inference_mode_are_refused():
    with torch.inference_mode():
        model = tiny_model()
    for call in (headnb.score_heads, headnb.evaluate):
        with pytest.raises(HeadnbError, match="load it outside"):
            call(model, TOKENIZER, PAIRS)


@pytest.mark.parametrize("setting", ["autocast", "default dtype", "default device", "inference mode", "no gradients"])
def test_a_training_is_that_outside(setting):
    how = {"steps": 3, "every": 3, "learning_rate": 3e-3, "batch_size": 2}
    expected = headnb.finetune(tiny_model(), TOKENIZER, PAIRS, **how).study["level"]
    model = tiny_model()
    with SETTINGS[setting]():
        found = headnb.finetune(model, TOKENIZER, PAIRS, **how).study["level"]
    np.testing.assert_array_equal(found, expected)
