"""Greedy continuation of a batch of prompts equals an argmax loop over each prompt alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from headnb.engine.generation import continuation_text, continue_greedily
from headnb.engine.model_contexts import frozen
from headnb.errors import HeadnbError

from architectures import VOCABULARY, build
from model_state import state
from reference_generation import reference_continuation
from tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
LENGTHS = (3, 9, 5, 14, 2)


def prompts_of(vocabulary, lengths=LENGTHS):
    random = np.random.default_rng(0)
    return [random.integers(5, vocabulary, length) for length in lengths]


@pytest.mark.parametrize(
    "name", ["llama", "mistral", "gemma2", "gpt_oss", "deepseek_v3", "gpt2", "opt", "bloom", "mpt"]
)
def test_padded_prompts_are_continued_as_each_alone(name):
    model = build(name, torch.float32)
    prompts = prompts_of(VOCABULARY)
    found = continue_greedily(model, TOKENIZER, prompts, 8)
    assert [row.tokens for row in found] == [reference_continuation(model, prompt, 8, ends=[2]) for prompt in prompts]
    assert len({tuple(row.tokens) for row in found}) > 1


@pytest.mark.parametrize("size", [1, 2, 3, 16])
def test_early_ends_and_later_batches_do_not_change_a_continuation(size):
    model = tiny_model(dtype=torch.float64)
    prompts = prompts_of(320)
    alone = [reference_continuation(model, prompt, 20) for prompt in prompts]
    model.generation_config.eos_token_id = ends = [alone[0][3], alone[3][11]]
    expected = [reference_continuation(model, prompt, 20, ends) for prompt in prompts]
    found = continue_greedily(model, TOKENIZER, prompts, 20, batch_size=size)
    assert [row.tokens for row in found] == expected
    assert [row.ended for row in found] == [tokens[-1] in ends for tokens in expected]
    assert len({len(tokens) for tokens in expected}) >= 3


def test_a_text_stops_where_it_is_complete():
    model = tiny_model()
    (prompt,) = prompts_of(320, (6,))
    (whole,) = continue_greedily(model, TOKENIZER, [prompt], 20)
    written = continuation_text(TOKENIZER, whole)
    sign = written[len(written) // 2]
    (row,) = continue_greedily(model, TOKENIZER, [prompt], 20, is_complete=lambda end: sign in end)
    assert written.startswith(continuation_text(TOKENIZER, row))
    assert sign in continuation_text(TOKENIZER, row)
    assert sign not in str(TOKENIZER.decode(row.tokens[:-1]))
    assert row.ended
    assert not whole.ended


def test_generation_settings_of_a_checkpoint_are_ignored_and_restored():
    model = tiny_model()
    prompts = prompts_of(320)
    expected = [reference_continuation(model, prompt, 8) for prompt in prompts]
    model.generation_config.update(repetition_penalty=5.0, do_sample=True, temperature=3.0, suppress_tokens=[7, 8])
    settings = model.generation_config.to_dict()
    assert [row.tokens for row in continue_greedily(model, TOKENIZER, prompts, 8)] == expected
    assert model.generation_config.to_dict() == settings


def test_a_text_is_cut_off_where_the_context_ends():
    model = build("gpt2", torch.float32)  # 64 learned positions
    prompts = prompts_of(VOCABULARY, (61, 4, 58, 64))
    found = continue_greedily(model, TOKENIZER, prompts, 10)
    assert [len(row.tokens) for row in found] == [3, 10, 6, 1]
    assert [row.tokens for row in found] == [
        reference_continuation(model, row.prompt, len(row.tokens)) for row in found
    ]


def test_out_of_memory_makes_batches_smaller_and_loses_nothing(monkeypatch):
    model = tiny_model()
    prompts = prompts_of(320)
    expected = [reference_continuation(model, prompt, 6) for prompt in prompts]
    generate, tried = model.generate, []

    def limited(most):
        def run(**inputs):
            tried.append(len(inputs["input_ids"]))
            if tried[-1] > most:
                raise torch.OutOfMemoryError
            return generate(**inputs)

        return run

    monkeypatch.setattr(model, "generate", limited(2))
    assert [row.tokens for row in continue_greedily(model, TOKENIZER, prompts, 6)] == expected
    assert tried[:2] == [5, 2]
    monkeypatch.setattr(model, "generate", limited(0))
    with pytest.raises(HeadnbError, match="does not fit in memory"):
        continue_greedily(model, TOKENIZER, prompts, 6)


def test_stopping_leaves_the_model_as_before():
    model = tiny_model().train()
    before, settings = state(model), model.generation_config.to_dict()
    seen = []

    def stop(done):
        seen.append(done)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), frozen(model):
        continue_greedily(model, TOKENIZER, prompts_of(320), 8, on_token=stop)
    assert state(model) == before
    assert model.generation_config.to_dict() == settings
    assert seen == sorted(seen)
