"""Sequential fine-tuning: the merged weights equal the applied adapter, and weights are restored bitwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import headnb
import pytest
import torch
from headnb.models.restore import restore_weights
from headnb.tuning.learning import finetune_and_merge

from tiny import tiny_model
from trainers import PAIRS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HOW: dict[str, Any] = {"steps": 2, "batch_size": 4, "learning_rate": 3e-3, "track": [], "seed": 0}


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(12)[None]).logits


def weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def test_an_adapter_becomes_a_part_of_the_weights(tokenizer: Any) -> None:
    one, other = tiny_model(), tiny_model()
    before = logits(one)
    with headnb.finetune(one, tokenizer, PAIRS, **HOW).applied(one) as adapted:
        expected = logits(adapted)
    finetune_and_merge(other, tokenizer, PAIRS, full=False, **HOW)
    torch.testing.assert_close(logits(other), expected, rtol=1e-4, atol=1e-5)
    assert (expected - before).abs().max() > 1e-3
    assert {name for name, _ in other.named_parameters()} == {name for name, _ in one.named_parameters()}
    assert [weight.requires_grad for weight in other.parameters()] == [w.requires_grad for w in one.parameters()]


@pytest.mark.parametrize("full", [False, True])
def test_a_second_task_continues_from_the_first_and_the_weights_are_restored(tokenizer: Any, *, full: bool) -> None:
    model = tiny_model()
    before = weights(model)
    with restore_weights(model):
        first = finetune_and_merge(model, tokenizer, PAIRS[:8], full=full, **HOW)
        learnt = weights(model)
        second = finetune_and_merge(model, tokenizer, PAIRS[:8], full=full, **HOW)
        assert any((learnt[name] != before[name]).any() for name in before)
        assert any((weight != learnt[name]).any() for name, weight in weights(model).items())
        assert float(second.study["train_loss"][0]) < float(first.study["train_loss"][0])
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_weights_come_back_after_an_error() -> None:
    model = tiny_model()
    before = weights(model)

    def lose() -> None:
        with restore_weights(model):
            for weight in model.parameters():
                weight.data.zero_()
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        lose()
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
