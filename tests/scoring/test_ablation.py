"""Losses with scaled heads equal those of a model whose output projection is scaled by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from headnb.errors import HeadnbError
from headnb.scoring.ablation import ablate, generate_both
from scipy import stats

from architectures import build
from model_state import state
from reference_ablation import TEXT, TOKENIZER, reference_loss
from tiny import tiny_model


def by_hand(model, heads, factor):
    """Scale heads by scaling their columns of W_o."""
    size = model.config.head_dim
    with torch.no_grad():
        for layer, head in heads:
            model.model.layers[layer].self_attn.o_proj.weight[:, head * size : (head + 1) * size] *= factor
    return model


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
def test_losses_are_those_of_a_model_with_scaled_projection_columns(factor):
    model = tiny_model(layers=3, dtype=torch.float64)
    changed = by_hand(tiny_model(layers=3, dtype=torch.float64), [(0, 1), (2, 3)], factor)
    found = ablate(model, TOKENIZER, TEXT, "L0H1,L2H3", factor, batch_tokens=60)
    before = [reference_loss(model, *pair) for pair in TEXT]
    after = [reference_loss(changed, *pair) for pair in TEXT]
    np.testing.assert_allclose(found["loss_before"], before, rtol=1e-10)
    np.testing.assert_allclose(found["loss_after"], after, rtol=1e-10)
    assert np.abs(np.subtract(after, before)).max() > 0.01


def test_change_and_its_interval_are_the_paired_t_interval():
    found = ablate(tiny_model(), TOKENIZER, TEXT, ["L0H1"], level=0.9)
    paired = stats.ttest_rel(found["loss_after"].values, found["loss_before"].values).confidence_interval(0.9)
    assert float(found["mean_change"]) == pytest.approx((found["loss_after"] - found["loss_before"]).values.mean())
    assert (float(found["low"]), float(found["high"])) == pytest.approx((paired.low, paired.high))
    assert found.attrs["heads"] == "L0H1"
    assert list(found["sample"].values) == [0, 1, 2, 3]


def test_one_sample_has_no_interval():
    found = ablate(tiny_model(), TOKENIZER, TEXT[:1], "L0H1")
    assert np.isnan(found[["low", "high"]].to_array()).all()


def test_controls_are_as_many_other_heads_of_the_same_layers():
    model = tiny_model(layers=3, dtype=torch.float64)
    found = ablate(model, TOKENIZER, TEXT, "L0H1,L2H3,L2H0", controls=6)
    assert found.sizes["control"] == 6
    for names, change in zip(found["control_heads"].values, found["control_change"].values, strict=True):
        heads = [(int(name[1]), int(name[3])) for name in str(names).split(",")]
        assert [layer for layer, _ in heads] == [0, 2, 2]
        assert len(set(heads)) == 3
        assert not set(heads) & {(0, 1), (2, 3), (2, 0)}
        changed = by_hand(tiny_model(layers=3, dtype=torch.float64), heads, 0.0)
        expected = np.mean([reference_loss(changed, *pair) - reference_loss(model, *pair) for pair in TEXT])
        assert change == pytest.approx(expected, abs=1e-10)
    assert len(set(found["control_heads"].values)) > 1
    with pytest.raises(HeadnbError, match="not enough heads left in layer 0"):
        ablate(model, TOKENIZER, TEXT, "L0H1,L0H2,L0H3", controls=1)


def greedy_by_hand(model, prompt, count):
    ids = TOKENIZER(prompt, add_special_tokens=False)["input_ids"]
    for _ in range(count):
        token = int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        ids.append(token)
        if token == TOKENIZER.eos_token_id:
            break
    return ids[-count:]


def test_generation_is_greedy_before_and_after():
    model = tiny_model(layers=3)
    heads = [(0, 1), (1, 2), (2, 3)]
    found = generate_both(model, TOKENIZER, TEXT, "L0H1,L1H2,L2H3", sample=1, max_new_tokens=6)
    texts = [
        TOKENIZER.decode(greedy_by_hand(variant, TEXT[1][0], 6), skip_special_tokens=True)
        for variant in (model, by_hand(tiny_model(layers=3), heads, 0.0))
    ]
    assert [found.before, found.after] == texts
    assert texts[0] != texts[1]
    assert found.prompt == TEXT[1][0]
    assert found.sample == 1


def test_the_prompt_of_a_generation_has_the_tokens_of_the_chosen_encoding():
    pair = ("What is 2 + 3? The", "re are 5.")  # tokenized together, " There" is one token
    for encoding, prompt in (("official", pair[0]), ("trl", "What is 2 + 3?")):
        found = generate_both(tiny_model(), TOKENIZER, [pair], "L0H1", max_new_tokens=4, encoding=encoding)
        expected = TOKENIZER.decode(greedy_by_hand(tiny_model(), prompt, 4), skip_special_tokens=True)
        assert (found.prompt, found.before) == (prompt, expected)


@pytest.mark.parametrize("name", ["llama", "gpt_oss", "bloom"])
def test_model_is_as_before_after_success_and_when_stopped(name):
    model = build(name, torch.float32).train()
    before = state(model)
    encoded = [{"input_ids": [1, 2, 3, 4, 5], "labels": [-100, -100, 3, 4, 5]}] * 3
    ablate(model, None, encoded, "L0H1")
    assert state(model) == before

    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(model, None, encoded, "L0H1", on_progress=stop, batch_tokens=5)
    assert state(model) == before


def test_generation_leaves_the_model_as_before_when_stopped():
    model = tiny_model().train()
    before, generation = state(model), model.generation_config.to_dict()
    tokens = []

    def stop():
        tokens.append(0)
        if len(tokens) == 8:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        generate_both(model, TOKENIZER, TEXT, "L0H1", max_new_tokens=5, on_token=stop)
    assert state(model) == before
    assert model.generation_config.to_dict() == generation


@pytest.mark.parametrize(
    ("tokenizer", "tokens", "options", "message"),
    [
        (None, 3, {}, "generate_both needs the model's tokenizer"),
        (TOKENIZER, 3, {"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
        (TOKENIZER, 3, {"max_new_tokens": -1}, "max_new_tokens must be at least 1, not -1"),
        (TOKENIZER, 65, {}, "a prompt has 65 tokens, more than the model's context of 64"),
    ],
)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_what_cannot_be_generated_is_refused(name, tokenizer, tokens, options, message):
    model = build(name, torch.float32)
    model.config.max_position_embeddings = 64
    rows = [{"input_ids": [5] * (tokens + 1), "labels": [-100] * tokens + [5]}]
    with pytest.raises(HeadnbError, match=message):
        generate_both(model, tokenizer, rows, "L0H1", **options)


def test_progress_counts_samples_up_to_their_number():
    seen = []
    ablate(tiny_model(), TOKENIZER, TEXT, "L0H1", on_progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 4)
    assert seen[-1] == (4, 4)
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("heads", "message"), [("L9H0", "layers L0 to L1"), ("L0H9", "4 heads"), ("", "no heads given"), ("x", "L3H10")]
)
def test_heads_that_are_not_there_are_refused(heads, message):
    with pytest.raises(HeadnbError, match=message):
        ablate(tiny_model(), TOKENIZER, TEXT, heads)


def test_heads_named_twice_count_once():
    once, twice = (ablate(tiny_model(), TOKENIZER, TEXT, heads, 0.5) for heads in ("L0H1", "L0H1,L0H1,l0h1"))
    np.testing.assert_array_equal(once["loss_after"], twice["loss_after"])
    assert twice.attrs["heads"] == "L0H1"


def test_a_loss_that_is_not_finite_is_named():
    with pytest.raises(HeadnbError, match=r"loss of sample 0 with L0H1 scaled by 1e\+300"):
        ablate(tiny_model(), TOKENIZER, TEXT, "L0H1", factor=1e300)
