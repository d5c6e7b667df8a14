"""The matrices of the attention view equal those of eager attention, with every attention kernel."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from headnb.display.colours import FALL
from headnb.engine.attention_functions import observe_attention_calls
from headnb.engine.attention_weights import attention_of_head
from headnb.engine.hooks import find_heads
from headnb.errors import HeadnbError
from headnb.explorer.attention_message import to_message
from headnb.scoring.attention import head_attention
from headnb.scoring.run import score_heads
from headnb.tasks.loading import Task, TokenSample
from torch.nn import functional

from architectures import ARCHITECTURES, FLOAT32_ONLY, VOCABULARY, build, tolerance, wide_softmax
from model_state import state
from tiny import tiny_model, tiny_tokenizer

SDPA_ONLY_IN_OWN_CODE = {"falcon parallel multi-query"}
TEXT = [("Question: What is 12 + 30?\nAnswer: ", "The answer is 42."), ("How many apples? ", "There are 3.")]


def encoded_task(length=14):
    """One sample of random tokens, of which two thirds are the answer."""
    ids = np.random.default_rng(0).integers(1, VOCABULARY, length).tolist()
    labels = [-100 if position < length // 3 else token for position, token in enumerate(ids)]
    return Task("random", (TokenSample(ids, labels),), (0,), "made here")


def eager_matrices(model, sample):
    """A and dL/dA (L, H, T, T) of all layers, from eager attention."""
    ids, labels = torch.tensor(sample.input_ids), torch.tensor(sample.labels)
    output = model(input_ids=ids[None], output_attentions=True, use_cache=False)
    logits = output.logits[0, :-1].to(model.dtype)
    loss = functional.cross_entropy(logits, labels[1:], ignore_index=-100)
    return torch.cat(output.attentions), torch.cat(torch.autograd.grad(loss, output.attentions)), loss


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_matrices_of_one_head_are_those_of_eager_attention(name):
    dtype = torch.float32 if name in FLOAT32_ONLY else torch.float64
    task = encoded_task()
    options = {"attn_implementation": "eager"} if name in SDPA_ONLY_IN_OWN_CODE else {}
    with wide_softmax():
        A, dA, loss = eager_matrices(build(name, dtype, attn_implementation="eager"), task.samples[0])
        model = build(name, dtype, **options)
        for layer, head in ((0, 1), (len(A) - 1, 3)):
            found = head_attention(model, None, task, f"L{layer}H{head}")
            expected = (A[layer, head] * dA[layer, head]).detach().numpy()
            assert np.abs(expected).max() > 1e-4
            np.testing.assert_allclose(found.weights, A[layer, head].detach(), rtol=0, atol=tolerance(name))
            np.testing.assert_allclose(found.products, expected, rtol=0, atol=tolerance(name) * dA.abs().max().item())
            assert found.loss == pytest.approx(float(loss.detach()), rel=tolerance(name))


WINDOW = {
    "sdpa": {},
    "flash: an option": {"mask": None},
    "flex: a function": {"mask": SimpleNamespace(mask_mod=lambda b, h, q, k: (k <= q) & (q - k < 5))},
}


@pytest.mark.parametrize("form", WINDOW)
def test_every_kernels_form_of_mask_gives_the_same_matrix(form):
    """A window of 5 tokens, in the form of each kernel."""
    task = encoded_task(20)
    A, _, _ = eager_matrices(build("mistral", torch.float32, attn_implementation="eager"), task.samples[0])
    model = build("mistral", torch.float32)
    calls = []
    with observe_attention_calls(model, {find_heads(model).attention[1][1]: calls.append}):
        model(torch.tensor([task.samples[0].input_ids]), use_cache=False)
    found, _ = attention_of_head(replace(calls[0], **WINDOW[form]), 2)
    np.testing.assert_allclose(found, A[1, 2].detach(), rtol=0, atol=1e-6)
    assert found[19, 14] == 0 < found[19, 15]


def test_sum_of_products_is_the_score():
    model, tokenizer = tiny_model(layers=3), tiny_tokenizer()
    scores = score_heads(model, tokenizer, TEXT)
    for sample in range(2):
        found = head_attention(model, tokenizer, TEXT, "L1H3", sample=sample)
        assert found.score == pytest.approx(float(scores["score"].sel(sample=sample, layer=1, head=3)), rel=1e-4)
        assert found.loss == pytest.approx(float(scores["loss"].sel(sample=sample)), rel=1e-5)


def test_in_bfloat16_the_matrix_is_taken_in_float32():
    task = encoded_task()
    model = build("llama", torch.bfloat16)
    found = head_attention(model, None, task, "L0H1")
    assert found.weights.dtype == np.float32
    np.testing.assert_allclose(found.weights.sum(1), 1, atol=1e-6)
    score = score_heads(model, None, task)["score"].sel(layer=0, head=1).item()
    assert found.score == pytest.approx(score, rel=0.02)


def test_a_matrix_that_does_not_give_the_heads_output_is_refused():
    """The kernel's outputs differ from those of the eager function: here they are scaled by 1.01."""
    model = build("llama", torch.float32)
    layout = find_heads(model)
    calls = []
    with observe_attention_calls(model, {layout.attention[1][1]: calls.append}):
        model(torch.arange(1, 9)[None])
    attention_of_head(calls[0], 0)
    calls[0].outputs.detach().mul_(1.01)
    with pytest.raises(HeadnbError, match=r"cannot be recomputed.*eager"):
        attention_of_head(calls[0], 0)


def test_older_code_without_matrices_says_how_to_get_them():
    with pytest.raises(HeadnbError, match=r"FalconAttention.*attn_implementation='eager'"):
        head_attention(build("falcon parallel multi-query", torch.float32), None, encoded_task(), "L0H0")


@pytest.mark.parametrize("name", ["llama", "gpt_oss", "bloom"])
def test_model_is_as_before_also_after_an_error(name):
    model = build(name, torch.float32).train()
    before = state(model)
    head_attention(model, None, encoded_task(), "L1H1")
    assert state(model) == before
    with pytest.raises(HeadnbError, match="layers L0 to L2"):
        head_attention(model, None, encoded_task(), "L9H1")
    assert state(model) == before


def test_tokens_and_answer_are_those_of_the_sample():
    tokenizer = tiny_tokenizer()
    found = head_attention(tiny_model(), tokenizer, TEXT, "L0H0", sample=1)
    assert "".join(found.tokens) == "How many apples? There are 3.</s>"
    assert "".join(token for token, answer in zip(found.tokens, found.answer, strict=True) if answer) == (
        "There are 3.</s>"
    )


@pytest.mark.parametrize(
    ("head", "sample", "message"),
    [
        ("L0H4", None, "4 heads"),
        ("L0H1,L0H2", None, "expected one head"),
        ("3.1", None, "write layer 3, head 10"),
        ("L0H0", 7, "unknown sample"),
    ],
)
def test_what_does_not_exist_is_refused(head, sample, message):
    with pytest.raises(HeadnbError, match=message):
        head_attention(tiny_model(), tiny_tokenizer(), TEXT, head, sample=sample)


def test_html_is_escaped_and_shades_the_token_that_matters_most():
    found = replace(
        head_attention(tiny_model(), tiny_tokenizer(), TEXT, "L0H0"),
        tokens=("<script>", "b", "c"),
        answer=np.array([False, False, True]),
        weights=np.array([[1, 0, 0], [0.25, 0.75, 0], [0.1, 0.2, 0.7]]),
        products=np.array([[0, 0, 0], [0.5, -2.0, 0], [0, 0, 0]]),
    )
    html = found._repr_html_()
    assert "<script" not in html
    assert "score −1.50 nats" in html
    weights, products = html.split('<div style="white-space')[1:]
    opacity = [[int(shade, 16) for shade in re.findall(r"background:#\w{6}(\w\w)", row)] for row in (weights, products)]
    assert opacity[0] == [round(255 * 0.8 * round(round(64 * share) / 64, 2)) for share in (1 / 3, 1, 0)]
    assert opacity[1] == [round(255 * 0.8 * round(round(64 * share) / 64, 2)) for share in (1 / 4, 1, 0)]
    assert f"background:{FALL}cc" in products


def test_message_keeps_every_entry_and_refuses_what_cannot_be_drawn():
    found = head_attention(tiny_model(), tiny_tokenizer(), TEXT, "L0H0")
    message = to_message(found)
    length = len(message["tokens"])
    sent = np.frombuffer(message["products"], "<f4").reshape(length, length)
    np.testing.assert_array_equal(sent, found.products)
    with pytest.raises(HeadnbError, match=r"1100 tokens; the attention view shows at most 1024"):
        to_message(replace(found, tokens=("x",) * 1100))
