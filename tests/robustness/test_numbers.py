"""Non-finite numbers are reported with layer and sample; unusual text is scored like any other or refused."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import torch
from headnb import HeadnbError, load_task, score_heads

from scoring_samples import TASK
from tiny import tiny_model

BROKEN = (torch.nan, torch.inf, -torch.inf)


def cases(few, many):
    return pytest.mark.parametrize("cases", [few, pytest.param(many, marks=pytest.mark.slow)])


@cases(4, 200)
def test_weights_that_are_not_finite_are_named_with_their_layer(cases, model):
    weights, moments = dict(model.named_parameters()), random.Random(cases)
    for _ in range(cases):
        name = moments.choice(sorted(weights))
        flat = weights[name].data.view(-1)
        index = 1 if "embed" in name else moments.randrange(len(flat))  # an embedding of a token that the task has
        original = flat[index].item()
        flat[index] = moments.choice(BROKEN)
        task = [{"input_ids": list(range(40)), "labels": list(range(40))}]
        with pytest.raises(HeadnbError) as named:
            score_heads(model, None, task)
        assert name in str(named.value)
        layer = re.search(r"layers\.(\d)", name)
        assert layer is None or f"(layer {layer[1]})" in str(named.value)
        flat[index] = original
    print(f"weights that are not finite: {cases} tried, {cases} named with their layer")


@cases(3, 100)
def test_activations_that_are_not_finite_are_named_by_layer_and_sample(cases):
    """Only one sample of a batch is broken."""
    moments, layers = random.Random(cases), 4
    model = tiny_model(layers=layers)
    for _ in range(cases):
        layer, broken, value = moments.randrange(layers - 1), moments.randrange(4), moments.choice(BROKEN)
        task = [{"input_ids": [number + 10, 1, 2, 3, 4], "labels": [-100, 1, 2, 3, 4]} for number in range(4)]
        now = []

        def remember(_module, inputs, now=now, token=broken + 10):
            now[:] = [inputs[0] == token]

        def break_one(_module, _inputs, output, now=now, value=value):
            return output.masked_fill(now[0][..., None], value)

        hooks = [
            model.model.embed_tokens.register_forward_pre_hook(remember),
            model.model.layers[layer].mlp.register_forward_hook(break_one),
        ]
        try:
            with pytest.raises(HeadnbError) as named:
                score_heads(model, None, task, packed=False)
        finally:
            for hook in hooks:
                hook.remove()
        assert f"sample {broken}" in str(named.value)
        assert f"not finite from layer {layer + 1} on" in str(named.value)
    print(f"activations that are not finite: {cases} tried, {cases} named by layer and sample")


def test_overflow_in_half_precision_is_named_with_what_to_do():
    model = tiny_model(dtype=torch.float16)
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight.mul_(3e3)
        model.model.layers[1].self_attn.o_proj.weight.mul_(3e3)
    advice = r"sample \d .*; float16 overflows above 65504: use load_model\(\.\.\., dtype='bfloat16'\) or 'float32'"
    with pytest.raises(HeadnbError, match=advice):
        score_heads(model, None, TASK[:2])
    assert np.isfinite(score_heads(model.float(), None, TASK[:2]).score).all()


def test_samples_without_an_answer_are_left_out_and_counted(model, tokenizer):
    pairs = [("Question: How many apples are there?\nAnswer: ", "3"), ("x" * 100, "y"), ("a", "b")]
    scores = score_heads(model, tokenizer, pairs, max_length=40)
    assert scores["sample"].values.tolist() == [0, 2]
    assert scores.attrs["left_out"] == 1


UNUSUAL = {
    "right to left": ("العربية: كم؟ עברית", " ثلاثة שלוש"),
    "emoji": ("🙂🏽‍👩‍👩‍👧 how many?", " 🇪🇺3️⃣"),
    "control characters": ("a\x00b\x07c\x1b[2J\x7f\x85", "\x1b[31m3\r\n\t"),
    "marks and invisible": ("z\u0301\u200b\u202e\ufeff\u2028", "\u2066x\u2069"),
    "beyond the basic plane": ("\U0001f9ff\U000e0001\U0010ffff", "𝟛"),
    "an empty prompt": ("", "3"),
    "a prompt of blanks": ("   \n\t ", "3"),
    "one letter": ("a", "b"),
    "special tokens as text": ("</s><s><pad>", "</s>3"),
    "a very long prompt": ("many words " * 10_000, "3"),
}
REFUSED = {
    "half of a character pair": (("\ud800", "3"), "unpaired surrogate"),
    "half of a pair in the answer": (("a", "\udfff"), "unpaired surrogate"),
    "an empty completion": (("a", ""), "the completion is empty"),
    "a completion of blanks": (("a", " \n\t"), "the completion is empty"),
    "one token": ({"input_ids": [5], "labels": [5]}, "no token has a label"),
    "no token": ({"input_ids": [], "labels": []}, "no token has a label"),
    "all masked": ({"input_ids": [1, 2], "labels": [-100, -100]}, "no token has a label"),
}


def test_unusual_text_is_scored_or_refused_in_one_line(model, tokenizer):
    usual = ("Question: What is 12 + 30?\nAnswer: ", "42")
    expected = score_heads(model, tokenizer, [usual])
    for name, pair in UNUSUAL.items():
        scores = score_heads(model, tokenizer, [usual, pair], max_length=500)
        assert np.allclose(scores.score[0], expected.score[0], rtol=1e-4, atol=1e-6), name
        assert np.isfinite(scores.score).all(), name
        assert scores.attrs["left_out"] == (name == "a very long prompt")
    with pytest.raises(HeadnbError, match=r"sample 0 .* tokens, more than the model's context of 512; max_length=512"):
        score_heads(model, tokenizer, [UNUSUAL["a very long prompt"]])
    for row, message in REFUSED.values():
        with pytest.raises(HeadnbError, match=message):
            load_task([row])
    print(f"unusual text: {len(UNUSUAL) + len(REFUSED)} tried, {len(UNUSUAL)} scored, {len(REFUSED)} refused")


def test_a_file_with_a_name_that_is_no_text_is_refused_before_its_scores_cannot_be_written(tmp_path):
    path = tmp_path / "half\udcff.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}')
    with pytest.raises(HeadnbError, match=r"the name of a task, .* contains an unpaired surrogate"):
        load_task(path)
    assert load_task(path, name="half").name == "half"
