"""Half-precision products on processors without instructions for them: rounded once, and not with scalar code."""

from __future__ import annotations

import time

import headnb
import numpy as np
import pytest
import torch
from headnb.models import half_precision
from headnb.models.half_precision import float32_products
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from adapter_models import PAIRS, TOKENIZER
from random_samples import random_samples, token_task
from tiny import tiny_model

DTYPES = [torch.bfloat16, torch.float16]


@pytest.fixture
def no_instructions(monkeypatch):
    monkeypatch.setattr(half_precision, "_has_fast_products", lambda _dtype: False)


@pytest.fixture
def products(monkeypatch):
    """Names of the operations that were computed in float32."""
    names = []
    is_slow = half_precision._Float32Products._is_slow

    def recorded(self, func, args):
        if slow := is_slow(self, func, args):
            names.append(func.name().removeprefix("aten::"))
        return slow

    monkeypatch.setattr(half_precision._Float32Products, "_is_slow", recorded)
    return names


def drawn(*shape, dtype, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def holder(dtype, device="cpu"):
    return nn.Linear(4, 4, dtype=dtype, device=device)


def assert_rounded_once(found, exact, sums):
    """One rounding to the result's dtype, after sums in float32 of terms with the given total magnitude."""
    rounding = torch.finfo(found.dtype).eps / 2
    assert found.dtype in DTYPES
    assert ((found.double() - exact).abs() <= rounding * exact.abs() * 1.001 + 1e-5 * sums).all()


@pytest.mark.usefixtures("no_instructions")
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_float64_products_rounded_once(dtype):
    a, b, bias = drawn(40, 70, dtype=dtype), drawn(70, 30, dtype=dtype, seed=1), drawn(30, dtype=dtype, seed=2)
    exact, sums = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    many, many_bias = a.repeat(3, 1, 1), bias.repeat(3, 40, 1)
    with float32_products(holder(dtype)):
        assert_rounded_once(torch.mm(a, b), exact, sums)
        assert_rounded_once(torch.addmm(bias, a, b, beta=2), exact + 2 * bias.double(), sums)
        assert_rounded_once(torch.bmm(many, b.repeat(3, 1, 1)), exact.repeat(3, 1, 1), sums)
        summed = torch.baddbmm(many_bias, many, b.repeat(3, 1, 1), alpha=0.5)
        assert_rounded_once(summed, (exact / 2 + bias.double()).repeat(3, 1, 1), sums)
        assert_rounded_once(nn.functional.linear(a, b.T.contiguous(), bias), exact + bias.double(), sums)


@pytest.mark.usefixtures("no_instructions")
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_products_are_float64_gradients_rounded_once(dtype, products):
    a, b = (drawn(20, 20, dtype=dtype, seed=seed).requires_grad_() for seed in (0, 1))
    upper = drawn(20, 20, dtype=dtype, seed=2)
    with float32_products(holder(dtype)):
        torch.mm(a, b).backward(upper)
    wide = upper.double()
    assert_rounded_once(a.grad, wide @ b.double().T, wide.abs() @ b.double().abs().T)
    assert_rounded_once(b.grad, a.double().T @ wide, a.double().abs().T @ wide.abs())
    assert products == ["mm"] * 3


@pytest.mark.usefixtures("no_instructions")
@pytest.mark.parametrize("masked", [False, True])
def test_attention_and_its_gradients_agree_with_float64(masked, products):
    heads = [drawn(2, 3, 50, 16, dtype=torch.bfloat16, seed=seed).requires_grad_() for seed in range(3)]
    wide = [head.detach().double().requires_grad_() for head in heads]
    upper = drawn(2, 3, 50, 16, dtype=torch.bfloat16, seed=3)
    mask = torch.ones(50, 50).tril().log().to(torch.bfloat16) if masked else None
    with float32_products(holder(torch.bfloat16)):
        found = scaled_dot_product_attention(*heads, attn_mask=mask, is_causal=not masked)
        found.backward(upper)
    expected = scaled_dot_product_attention(*wide, is_causal=True)
    expected.backward(upper.double())
    pairs = [(found, expected), *((narrow.grad, exact.grad) for narrow, exact in zip(heads, wide, strict=True))]
    for one, other in pairs:
        assert one.dtype == torch.bfloat16
        assert (one.double() - other).abs().max() < 2**-8 * other.abs().max()
    names = [name.removeprefix("_scaled_dot_product_") for name in products]
    assert names == ["flash_attention_for_cpu", "flash_attention_for_cpu_backward"]


@pytest.mark.usefixtures("no_instructions")
@pytest.mark.parametrize(
    "model", [holder(torch.float32), holder(torch.float64), holder(torch.bfloat16, "meta"), nn.Identity()]
)
def test_other_models_are_left_alone(model, products):
    with float32_products(model):
        torch.mm(drawn(20, 20, dtype=torch.bfloat16), drawn(20, 20, dtype=torch.bfloat16))
    assert products == []


def test_processors_with_instructions_are_left_alone(monkeypatch, products):
    monkeypatch.setattr(half_precision, "_has_fast_products", lambda _dtype: True)
    with float32_products(holder(torch.bfloat16)):
        torch.mm(drawn(20, 20, dtype=torch.bfloat16), drawn(20, 20, dtype=torch.bfloat16))
    assert products == []


@pytest.mark.usefixtures("no_instructions")
def test_products_with_few_rows_are_left_alone(products):
    """The conversion of the weight would take longer than the product, for instance for each generated token."""
    weight = drawn(64, 64, dtype=torch.bfloat16)
    with float32_products(holder(torch.bfloat16)):
        for rows in (1, 8, 64):
            torch.mm(drawn(rows, 64, dtype=torch.bfloat16), weight)
    assert products == ["mm"]


@pytest.mark.usefixtures("no_instructions")
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (drawn(20, 20, dtype=torch.bfloat16), drawn(20, 20, dtype=torch.float32)),
        (drawn(20, dtype=torch.bfloat16), drawn(20, 20, dtype=torch.bfloat16)),
    ],
    ids=["mixed dtypes", "a vector"],
)
def test_errors_are_those_of_torch(first, second):
    def error():
        with pytest.raises(RuntimeError) as caught:
            torch.mm(first, second)
        return str(caught.value)

    expected = error()
    with float32_products(holder(torch.bfloat16)):
        assert error() == expected


@pytest.mark.usefixtures("no_instructions")
def test_weights_with_their_own_product_keep_it():
    class Quantized(torch.Tensor):
        @staticmethod
        def __new__(cls, values):
            return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype)

        def __init__(self, values):
            self.values = values

        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            assert func is torch.ops.aten.mm.default
            assert args[1].dtype == torch.bfloat16
            return args[0] * 0 + 7

    with float32_products(holder(torch.bfloat16)):
        found = torch.mm(drawn(20, 20, dtype=torch.bfloat16), Quantized(drawn(20, 20, dtype=torch.bfloat16)))
    assert (found == 7).all()


@pytest.mark.usefixtures("no_instructions")
@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_use_it_and_agree_with_float32(dtype, products):
    samples = random_samples((20, 30, 25), vocabulary=300)
    exact = headnb.score_heads(tiny_model(layers=3, hidden=64), None, token_task(samples)).score.values
    assert products == []
    model = tiny_model(layers=3, hidden=64).to(dtype)
    rough = headnb.score_heads(model, None, token_task(samples)).score.values
    assert np.corrcoef(exact.ravel(), rough.ravel())[0, 1] > 0.99
    assert "mm" in products


@pytest.mark.usefixtures("no_instructions")
def test_trainings_use_it_and_agree_with_float32(products):
    exact, rough = (
        headnb.finetune(model, TOKENIZER, PAIRS, steps=3, track=[], seed=0).study.train_loss.values
        for model in (tiny_model(), tiny_model().bfloat16())
    )
    assert rough == pytest.approx(exact, rel=0.01)
    assert "mm" in products


@pytest.mark.skipif(half_precision._has_fast_products(torch.bfloat16), reason="has bfloat16 instructions")
def test_backward_passes_are_faster():
    """Measured in turn: about twenty times as fast with one thread."""
    model = nn.Sequential(*(nn.Linear(512, 512, bias=False, dtype=torch.bfloat16) for _ in range(2)))
    inputs = drawn(256, 512, dtype=torch.bfloat16)

    def seconds():
        start = time.process_time()
        model(inputs).float().sum().backward()
        return time.process_time() - start

    ratios = []
    for _ in range(3):
        plain = seconds()
        with float32_products(model):
            ratios.append(seconds() / plain)
    assert np.median(ratios) < 0.5
