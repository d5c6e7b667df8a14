"""Losses by `LossComputer` against losses from the model's own logits."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from headnb import score_heads
from headnb.engine import losses as loss_computer
from headnb.engine.batching import collate
from headnb.engine.tokenization import EncodedSample
from headnb.errors import HeadnbError
from headnb.scoring.gradient import activation, gradient_scorer
from headnb.tasks.row_values import IGNORED
from peft import LoraConfig, get_peft_model
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from architectures import LLAMA_LIKE, build, randomize
from random_samples import mean_loss, random_samples, token_task
from tiny import tiny_model


def test_logits_in_many_parts_give_the_same_scores(monkeypatch):
    scorer = gradient_scorer(build("llama"), activation)
    batch = collate(random_samples())
    expected, losses = scorer(batch)
    monkeypatch.setattr(loss_computer, "MAX_LOGIT_ELEMENTS", 64 * 3)  # three answer tokens at a time
    found, losses_in_parts = scorer(batch)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-14)
    assert torch.allclose(losses, losses_in_parts, rtol=1e-12, atol=0)


def test_finding_heads_and_losses_takes_two_passes():
    model = tiny_model(layers=3)
    passes = []
    with model.model.register_forward_hook(lambda *_: passes.append(None)):
        gradient_scorer(model, activation)
    assert len(passes) == 2


@pytest.mark.parametrize("method", ["activation", "ablate-zero"])
@pytest.mark.parametrize("vocabulary", [3, 5])
def test_a_vocabulary_may_have_fewer_tokens_than_the_trial_passes(vocabulary, method):
    model, samples = tiny_model(vocabulary=vocabulary), random_samples(vocabulary=vocabulary)
    found = score_heads(model, None, token_task(samples), method=method)
    expected = [float(mean_loss(model, sample)) for sample in samples]
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)


class HalvedLogits(LlamaForCausalLM):
    """Changes the logits after the language-model head in a form unknown to headnb."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits / 2
        return output


class LargerEmbeddings(LlamaForCausalLM):
    """Passes scaled embeddings to its decoder, so that the decoder called with the tokens returns other states."""

    def forward(self, input_ids=None, **kwargs):
        return super().forward(inputs_embeds=3 * self.model.embed_tokens(input_ids), **kwargs)


@pytest.mark.parametrize("kind", [HalvedLogits, LargerEmbeddings])
def test_a_model_that_is_more_than_decoder_and_head_runs_as_a_whole(kind):
    model = build("llama")
    model.__class__ = kind
    samples = random_samples()
    scorer = gradient_scorer(model, activation)
    assert not scorer.supports_packing
    _, losses = scorer(collate(samples))
    assert losses.tolist() == pytest.approx([mean_loss(model, sample).item() for sample in samples], rel=1e-12)


def test_a_model_whose_tokens_interact_outside_attention_is_not_packed():
    """For example by token shifts, convolutions or recurrences: a sample would see the sample before it."""
    model = tiny_model(layers=3)
    assert gradient_scorer(model, activation).supports_packing

    def shift(_layer, args):
        return args[0] + functional.pad(args[0], (0, 0, 1, -1)), *args[1:]

    with model.model.layers[1].register_forward_pre_hook(shift):
        assert not gradient_scorer(model, activation).supports_packing
    assert gradient_scorer(model, activation).supports_packing


def test_a_small_interaction_of_samples_is_distinguished_from_rounding_in_half_precision():
    model = tiny_model(layers=3, dtype=torch.bfloat16)
    assert gradient_scorer(model, activation).supports_packing

    def shift(_layer, args):
        return args[0] + functional.pad(args[0], (0, 0, 1, -1)) / 16, *args[1:]

    with model.model.layers[1].register_forward_pre_hook(shift):
        assert not gradient_scorer(model, activation).supports_packing


def test_an_adapter_that_is_activated_by_invocation_tokens_is_scored():
    begins = [50, 51]
    model = get_peft_model(
        tiny_model(),
        LoraConfig(
            target_modules=["q_proj", "up_proj"],
            alora_invocation_tokens=begins,
            init_lora_weights=False,
            task_type="CAUSAL_LM",
        ),
    ).eval()
    ids = np.array([10, 11, 12, *begins, 60, 61, 62])
    sample = EncodedSample(ids, np.where(np.arange(len(ids)) < 5, IGNORED, ids))
    _, loss = gradient_scorer(model, activation)(collate([sample]))
    assert loss.item() == pytest.approx(mean_loss(partial(model, use_cache=False), sample).item(), rel=1e-6)
    with model.disable_adapter():
        _, of_base = gradient_scorer(model, activation)(collate([sample]))
    assert abs(of_base - loss).item() > 1e-3


def test_quantized_weights_without_a_backward_pass_are_refused():
    model = tiny_model()
    method = SimpleNamespace(quant_method="mxfp4")
    model.hf_quantizer = SimpleNamespace(is_trainable=False, quantization_config=method)
    with pytest.raises(HeadnbError, match="gradients cannot pass through weights quantized as mxfp4"):
        score_heads(model, None, token_task(random_samples()))
    score_heads(model, None, token_task(random_samples()), method="output-norm")


@pytest.mark.parametrize("packed", [True, False])
def test_a_long_sample_does_not_change_the_rope_frequencies_of_short_samples(packed):
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [1.5, 4.0, 8.0, 16.0]}
    shape = LLAMA_LIKE | {"pad_token_id": 0, "max_position_embeddings": 512, "original_max_position_embeddings": 32}
    config = AutoConfig.for_model("phi3", **shape, rope_parameters=rope, bos_token_id=None, eos_token_id=None)
    torch.manual_seed(0)
    model = randomize(AutoModelForCausalLM.from_config(config).float().eval())
    samples = random_samples((20, 60, 31, 33))
    scorer = gradient_scorer(model, activation)
    assert scorer.supports_packing
    alone = np.concatenate([scorer(collate([sample]))[0] for sample in samples])
    found = score_heads(model, None, token_task(samples), packed=packed).score
    np.testing.assert_allclose(found, alone, rtol=1e-3, atol=1e-5 * abs(alone).max())
