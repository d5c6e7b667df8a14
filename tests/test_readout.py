"""How a model's losses are read, against the model's own logits."""

from __future__ import annotations

import pytest
import torch
from headnb import readout
from headnb.batching import collate
from headnb.scoring.gradient import activation, gradient_scorer
from torch.nn import functional
from transformers import LlamaForCausalLM

from architectures import build
from test_gradient import mean_loss, random_samples
from tiny import tiny_model


def test_logits_in_many_parts_give_the_same_scores(monkeypatch):
    scorer = gradient_scorer(build("llama"), activation)
    batch = collate(random_samples())
    expected, losses = scorer(batch)
    monkeypatch.setattr(readout, "LOGITS_AT_ONCE", 64 * 3)  # three answer tokens at a time
    found, losses_in_parts = scorer(batch)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-14)
    assert torch.allclose(losses, losses_in_parts, rtol=1e-12, atol=0)


def test_to_look_at_a_model_takes_two_passes():
    model = tiny_model(layers=3)
    passes = []
    with model.model.register_forward_hook(lambda *_: passes.append(None)):
        gradient_scorer(model, activation)
    assert len(passes) == 2


class HalvedLogits(LlamaForCausalLM):
    """Does something behind its head that headnb does not know."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits / 2
        return output


class LargerEmbeddings(LlamaForCausalLM):
    """Gives its decoder something else than the tokens: the decoder called alone gives other states."""

    def forward(self, input_ids=None, **kwargs):
        return super().forward(inputs_embeds=3 * self.model.embed_tokens(input_ids), **kwargs)


@pytest.mark.parametrize("kind", [HalvedLogits, LargerEmbeddings])
def test_a_model_that_is_more_than_decoder_and_head_is_read_as_a_whole(kind):
    model = build("llama")
    model.__class__ = kind
    samples = random_samples()
    scorer = gradient_scorer(model, activation)
    assert not scorer.packs
    _, losses = scorer(collate(samples))
    assert losses.tolist() == pytest.approx([mean_loss(model, sample).item() for sample in samples], rel=1e-12)


def test_a_model_whose_tokens_look_back_beside_attention_is_not_packed():
    """As token shifts, convolutions and recurrences do: the first token of a sample would see the one before it."""
    model = tiny_model(layers=3)
    assert gradient_scorer(model, activation).packs

    def shift(_layer, args):
        return args[0] + functional.pad(args[0], (0, 0, 1, -1)), *args[1:]

    with model.model.layers[1].register_forward_pre_hook(shift):
        assert not gradient_scorer(model, activation).packs
    assert gradient_scorer(model, activation).packs
