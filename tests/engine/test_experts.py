"""Mixtures of experts are recognized as decoders; models that see later tokens are refused."""

from __future__ import annotations

import pytest
import torch
from headnb.engine.losses import find_loss_computer
from headnb.engine.packing import check_packed_training
from headnb.errors import HeadnbError
from transformers import AutoConfig, AutoModelForCausalLM

from architectures import LLAMA_LIKE
from moe_models import FLOAT32_ONLY, KINDS, WITHOUT_SOFTMAX, build_moe, seeing_later_tokens

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def refused_as_encoder(model):
    try:
        find_loss_computer(model)
    except HeadnbError as error:
        if "attends to later tokens" not in str(error):
            raise
        return True
    return False


def check(kind, dtype, seeds):
    for seed in seeds:
        model = build_moe(kind, seed, dtype)
        assert not refused_as_encoder(model), seed
        if kind not in WITHOUT_SOFTMAX:
            with seeing_later_tokens(model):
                assert refused_as_encoder(model), seed


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_mixture_that_sees_later_tokens_is_refused(kind):
    """In float32 grouped matrix products round each row differently, which must not count as a dependence."""
    check(kind, torch.float32, range(3))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_only_a_mixture_that_sees_later_tokens_is_refused_in_any_precision(kind, dtype):
    if kind not in FLOAT32_ONLY or dtype == torch.float32:
        check(kind, dtype, range(20))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["gpt_oss", "mixtral", "deepseek_v3"])
def test_precision_makes_no_difference(kind, dtype):
    check(kind, dtype, range(1))


def larger(kind, seed):
    """A model of a size at which two threads split matrix products, with different rounding in each thread."""
    shape = LLAMA_LIKE | {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 4096, "head_dim": 16}
    experts = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape | experts)).float().eval()


@pytest.mark.parametrize("kind", ["gpt_oss", "mixtral", "granitemoe", "olmoe"])
def test_products_in_two_threads_are_not_taken_for_an_encoder(kind):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert [refused_as_encoder(larger(kind, seed)) for seed in range(3)] == [False] * 3
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["mixtral", "olmoe", "qwen3_moe"])
def test_mixtures_may_be_trained_on_packed_samples(kind, dtype):
    for seed in range(3):
        check_packed_training(build_moe(kind, seed, dtype))
