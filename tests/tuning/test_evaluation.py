"""Losses, answers and intervals of `evaluate` equal an independent computation."""

from __future__ import annotations

import math
import re

import headnb
import numpy as np
import pytest
import torch
from headnb.errors import HeadnbError
from headnb.tuning.evaluation import evaluate, summary
from scipy import stats

from model_state import state
from reference_ablation import TEXT, reference_loss
from reference_generation import reference_continuation
from tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PROMPTS = [prompt for prompt, _ in TEXT]


def written(model, prompt, most):
    """Greedy continuation of the prompt by an independent loop."""
    ids = TOKENIZER(prompt, add_special_tokens=False)["input_ids"]
    return TOKENIZER.decode(
        reference_continuation(model, ids, most, [TOKENIZER.eos_token_id]), skip_special_tokens=True
    )


def test_losses_are_those_of_one_sample_at_a_time():
    model = tiny_model(dtype=torch.float64)
    found = evaluate(model, TOKENIZER, TEXT, max_new_tokens=2, batch_tokens=60)
    expected = [reference_loss(model, *pair) for pair in TEXT]
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-10)
    interval = stats.ttest_1samp(expected, 0).confidence_interval(0.95)
    means = [float(found[name]) for name in ("mean_loss", "loss_low", "loss_high")]
    np.testing.assert_allclose(means, [np.mean(expected), interval.low, interval.high])


def test_losses_are_those_of_score_heads():
    found = evaluate(tiny_model(), TOKENIZER, TEXT, answer="none")
    scores = headnb.score_heads(tiny_model(), TOKENIZER, TEXT)
    np.testing.assert_allclose(found["loss"], scores["loss"], rtol=1e-6)
    np.testing.assert_array_equal(found["answer_tokens"], scores["answer_tokens"])


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_an_answer_is_right_if_it_is_what_the_model_writes_greedily(batch_size):
    model = tiny_model(dtype=torch.float64)
    texts = [written(model, prompt, 8) for prompt in PROMPTS]
    pairs = [
        (prompt, text if row % 2 else text + "!") for row, (prompt, text) in enumerate(zip(PROMPTS, texts, strict=True))
    ]
    found = evaluate(model, TOKENIZER, pairs, max_new_tokens=8, batch_size=batch_size)
    assert list(found["generated"].values) == texts
    assert list(found["exact_match"].values) == [0, 1, 0, 1]
    assert list(found["prediction"].values) == [" ".join(text.split()) for text in texts]
    assert found.attrs["answer"] == "text: the whole text with collapsed white space"
    assert not found["ended"].any()
    assert "4 truncated at 8 tokens" in found.attrs["summary"]


def test_share_of_right_answers_has_the_wilson_interval():
    model = tiny_model()
    pairs = [(prompt, written(model, prompt, 3) if row == 0 else "x") for row, prompt in enumerate(PROMPTS)]
    found = evaluate(model, TOKENIZER, pairs, max_new_tokens=3, level=0.9)
    share, n, z = 1 / 4, 4, stats.norm.ppf(0.95)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    assert float(found["accuracy"]) == share
    assert float(found["accuracy_low"]) == pytest.approx(centre - half)
    assert float(found["accuracy_high"]) == pytest.approx(centre + half)
    assert "exact match 25 %" in found.attrs["summary"]


def test_a_task_without_a_form_of_answer_has_losses_only():
    task = headnb.load_task(TEXT, name="mbpp")
    found = evaluate(tiny_model(), TOKENIZER, task)
    assert np.isnan(found["exact_match"]).all()
    assert math.isnan(float(found["accuracy"]))
    assert set(found["generated"].values) == {""}
    assert found.attrs["summary"].endswith("; no exact match: this task has no answer that can be compared as text")


def test_the_summary_says_why_there_is_no_exact_match():
    task = headnb.load_task([("2 + 3 = ", "#### 5"), ("4 + 5 = ", "#### 9")], name="gsm8k")
    tokens = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}] * 2
    for found, reason in (
        (evaluate(tiny_model(), TOKENIZER, task, answer="none"), "answers were not asked for"),
        (evaluate(tiny_model(), None, tokens), "answers need the model's tokenizer"),
        (
            evaluate(tiny_model(), TOKENIZER, task, answer="choice", max_new_tokens=2),
            "no sample has a prompt and .*choice",
        ),
    ):
        assert re.search(f"; no exact match: {reason}", found.attrs["summary"])


def test_samples_without_an_answer_or_a_prompt_are_not_counted():
    pairs = [("2 + 3 = ", "#### 5"), ("", "#### 5"), ("How many? ", "many")]
    found = evaluate(tiny_model(), TOKENIZER, pairs, answer="final-number", max_new_tokens=3)
    assert list(np.isnan(found["exact_match"].values)) == [False, True, True]
    assert np.isfinite(found["loss"]).all()


def test_only_compared_answers_are_counted_as_truncated():
    model = tiny_model()
    pairs = [("2 + 3 = ", "#### 5"), *[(f"How many? {row} ", "many") for row in range(3)]]
    found = evaluate(model, TOKENIZER, pairs, answer="final-number", max_new_tokens=3)
    found["ended"][:] = [False, True, True, True]
    assert "1 answers compared; 1 truncated" in summary(found)
    found["ended"][:] = [True, False, False, False]
    assert "truncated" not in summary(found)


def test_encoded_samples_are_asked_where_there_is_a_tokenizer():
    model = tiny_model()
    encoded = []
    for prompt, completion in TEXT:
        first, answer = (TOKENIZER(text, add_special_tokens=False)["input_ids"] for text in (prompt, completion))
        answer = [*answer, TOKENIZER.eos_token_id]
        encoded.append({"input_ids": first + answer, "labels": [-100] * len(first) + answer})
    text, tokens = (evaluate(model, TOKENIZER, task, max_new_tokens=4) for task in (TEXT, encoded))
    for name in ("loss", "expected", "generated", "exact_match"):
        np.testing.assert_array_equal(text[name], tokens[name])
    alone = evaluate(model, None, encoded)
    np.testing.assert_array_equal(alone["loss"], text["loss"])
    assert np.isnan(alone["exact_match"]).all()


def test_only_the_first_answer_of_a_conversation_is_asked_for():
    ids = TOKENIZER("one two three four", add_special_tokens=False)["input_ids"]
    labels = [-100 if position in {0, 1, 5, 6} else token for position, token in enumerate(ids)]
    found = evaluate(tiny_model(), TOKENIZER, [{"input_ids": ids, "labels": labels}], max_new_tokens=2, answer="text")
    assert found["expected"].item() == TOKENIZER.decode(ids[2:5]).strip()
    assert found["generated"].item() == TOKENIZER.decode(reference_continuation(tiny_model(), ids[:2], 2, [2]))


def test_cutting_samples_changes_losses_and_no_answer():
    whole = evaluate(tiny_model(), TOKENIZER, TEXT, max_new_tokens=4)
    longest = int(whole["answer_tokens"].max())
    cut = evaluate(tiny_model(), TOKENIZER, TEXT, max_new_tokens=4, max_length=longest + 3)
    same = whole.sel(sample=cut["sample"])
    assert cut.attrs["truncated"] > 0
    assert (cut["loss"] != same["loss"]).any()
    for name in ("expected", "generated", "exact_match"):
        np.testing.assert_array_equal(cut[name], same[name])


def test_chat_messages_are_asked_in_the_models_template():
    model = tiny_model()
    chat = [[{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "The answer is 5."}]]
    found = evaluate(model, TOKENIZER, [{"messages": messages} for messages in chat], max_new_tokens=3)
    assert found["expected"].item() == "The answer is 5."
    assert found["generated"].item() == written(model, "<|start|>user\n2 + 3?<|end|>\n<|start|>assistant\n", 3)


def test_model_is_as_before_after_success_and_when_stopped():
    model = tiny_model().train()
    before = state(model)
    seen = []
    evaluate(model, TOKENIZER, TEXT, max_new_tokens=3, on_progress=lambda done, total: seen.append((done, total)))
    assert state(model) == before
    assert (seen[0], seen[-1]) == ((0, 4), (4, 4))
    assert seen == sorted(seen)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, TOKENIZER, TEXT, on_progress=stop)
    assert state(model) == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"level": 95}, "level"),
        ({"answer": "numbr"}, "did you mean 'number'"),
        ({"max_tokens": 3}, "did you mean"),
    ],
)
def test_bad_settings_are_refused(wrong, message):
    with pytest.raises(HeadnbError, match=message):
        evaluate(tiny_model(), TOKENIZER, TEXT, **wrong)


def test_a_loss_that_is_not_finite_is_named():
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(HeadnbError, match=r"loss of sample \d is nan"):
        evaluate(model, TOKENIZER, TEXT)
