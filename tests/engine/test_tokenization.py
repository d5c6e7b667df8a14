"""Tokens and labels against hand-made texts and TRL's own tokenization."""

from __future__ import annotations

import numpy as np
import pytest
from headnb.engine.tokenization import encode_task
from headnb.errors import HeadnbError
from headnb.tasks.loading import load_task
from headnb.tasks.row_values import IGNORED

from tiny import framing_tokenizer

PAIRS = [("Question: What is 12 + 30?\nAnswer: ", "The answer is 42."), ("Say it: ", "apples")]


def test_prompt_and_completion_are_tokenized_separately_and_end_with_eos(tokenizer):
    encoded = encode_task(load_task(PAIRS), tokenizer)
    for sample, (prompt, completion) in zip(encoded.samples, PAIRS, strict=True):
        first = tokenizer(prompt, add_special_tokens=False).input_ids
        second = [*tokenizer(completion, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        assert sample.input_ids.tolist() == first + second
        assert sample.labels.tolist() == [IGNORED] * len(first) + second
        assert sample.answer_tokens == len(second)


def test_trl_encoding_is_what_trl_trains_on(tokenizer, model, tmp_path):
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": prompt, "completion": completion} for prompt, completion in PAIRS]
    arguments = trl.SFTConfig(output_dir=str(tmp_path), report_to="none", completion_only_loss=True, use_cpu=True)
    trainer = trl.SFTTrainer(
        model, arguments, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer
    )
    encoded = encode_task(load_task(PAIRS), tokenizer, encoding="trl")
    for sample, trained in zip(encoded.samples, trainer.train_dataset, strict=True):
        assert sample.input_ids.tolist() == trained["input_ids"]
        expected = trained.get("labels") or np.where(trained["completion_mask"], trained["input_ids"], IGNORED).tolist()
        assert sample.labels.tolist() == expected


@pytest.fixture
def framing():
    return framing_tokenizer()


@pytest.mark.parametrize("encoding", ["official", "trl"])
def test_special_tokens_of_the_tokenizer_are_added_only_around_the_sample(framing, encoding):
    (sample,) = encode_task(load_task(PAIRS[:1]), framing, encoding=encoding).samples
    ids = sample.input_ids.tolist()
    assert ids[0] == framing.bos_token_id
    assert ids.count(framing.bos_token_id) == 1
    assert ids[-1] == framing.eos_token_id
    assert ids.count(framing.eos_token_id) == 1


@pytest.mark.parametrize("encoding", ["official", "trl"])
def test_chat_messages_are_rendered_by_the_template_without_further_special_tokens(framing, encoding):
    prompt = [{"role": "user", "content": "What is 12 + 30?"}]
    completion = [{"role": "assistant", "content": "42"}]
    rows = [{"prompt": prompt, "completion": completion}]
    (sample,) = encode_task(load_task(rows), framing, encoding=encoding).samples
    assert framing.decode(sample.input_ids) == "<|start|>user\nWhat is 12 + 30?<|end|>\n<|start|>assistant\n42<|end|>\n"
    answer = sample.labels[sample.labels != IGNORED]
    assert framing.decode(answer) == "42<|end|>\n"


def test_chat_messages_need_a_template(framing):
    framing.chat_template = None
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    with pytest.raises(HeadnbError, match="chat messages, but the tokenizer has no chat template"):
        encode_task(load_task(rows), framing)


def test_samples_without_an_answer_after_truncation_are_left_out_and_counted():
    rows = [
        {"input_ids": [1] * 10, "labels": [IGNORED] * 8 + [1, 1]},
        {"input_ids": [1] * 10, "labels": [IGNORED] * 2 + [1] * 8},
        {"input_ids": [1] * 4, "labels": [IGNORED] * 2 + [1] * 2},
    ]
    encoded = encode_task(load_task(rows), None, max_length=5)
    assert encoded.ids == (1, 2)
    assert encoded.left_out == (0,)
    assert encoded.truncated == 1
    assert encoded.answer_tokens.tolist() == [3, 2]
    with pytest.raises(HeadnbError, match=r"no sample .* has an answer token within max_length=2"):
        encode_task(load_task(rows), None, max_length=2)


def test_a_sample_longer_than_the_context_is_an_error_that_names_it():
    rows = [{"input_ids": [1] * 10, "labels": [1] * 10}]
    with pytest.raises(HeadnbError, match=r"sample 0 .* has 10 tokens, more than the model's context of 8"):
        encode_task(load_task(rows), None, context=8)
    with pytest.raises(HeadnbError, match="max_length=9 is more than the model's context of 8"):
        encode_task(load_task(rows), None, context=8, max_length=9)


def test_text_without_a_tokenizer_is_an_error():
    with pytest.raises(HeadnbError, match="need a tokenizer"):
        encode_task(load_task(PAIRS), None)
