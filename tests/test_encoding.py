"""Tokens, labels and batches against texts made by hand, TRL's own tokenization and simple counts."""

from __future__ import annotations

import numpy as np
import pytest
from headnb.encoding import IGNORED, EncodedSample, collate, encode_task, pack, plan_batches, split_at_budget
from headnb.errors import HeadnbError
from headnb.tasks import load_task
from hypothesis import given, settings
from hypothesis import strategies as st

PAIRS = [("Question: What is 12 + 30?\nAnswer: ", "The answer is 42."), ("Say it: ", "apples")]


def test_prompt_and_completion_are_tokenized_apart_and_closed(tokenizer):
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
def framing(tokenizer):
    """A tokenizer that puts <s> in front of a text and </s> behind."""
    from tokenizers.processors import TemplateProcessing

    framing = type(tokenizer)(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str()),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=tokenizer.chat_template,
    )
    framing.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", framing.bos_token_id), ("</s>", framing.eos_token_id)]
    )
    return framing


@pytest.mark.parametrize("encoding", ["official", "trl"])
def test_tokens_that_the_tokenizer_puts_in_front_come_once_and_none_come_between(framing, encoding):
    (sample,) = encode_task(load_task(PAIRS[:1]), framing, encoding=encoding).samples
    ids = sample.input_ids.tolist()
    assert ids[0] == framing.bos_token_id
    assert ids.count(framing.bos_token_id) == 1
    assert ids[-1] == framing.eos_token_id
    assert ids.count(framing.eos_token_id) == 1


@pytest.mark.parametrize("encoding", ["official", "trl"])
def test_chat_messages_are_rendered_by_the_template_and_nothing_is_put_around_them(framing, encoding):
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
    with pytest.raises(HeadnbError, match="chat messages, and the tokenizer has no chat template"):
        encode_task(load_task(rows), framing)


def test_truncation_leaves_out_and_counts_samples_whose_answer_is_gone():
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
    with pytest.raises(HeadnbError, match="a tokenizer is needed"):
        encode_task(load_task(PAIRS), None)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=200),
    budget=st.integers(1, 2000),
    seed=st.integers(0, 5),
    block=st.integers(1, 80),
)
def test_every_sample_is_in_one_batch_within_budget_padding_and_block(lengths, budget, seed, block):
    lengths = np.array(lengths)
    plan = plan_batches(lengths, batch_tokens=budget, seed=seed, block=block)
    assert sorted(plan.order.tolist()) == list(range(len(lengths)))
    assert np.concatenate(plan.batches()).tolist() == list(range(len(lengths)))
    for places in plan.batches():
        members = lengths[plan.order[places]]
        computed = len(members) * members.max()
        assert len(members) == 1 or computed <= budget
        assert 1 - members.sum() / computed <= 0.05 + 1e-12
        assert len(set(places // block)) == 1


def test_a_block_is_a_fair_sample_and_its_batches_come_in_random_order():
    lengths = np.arange(1, 1025)
    plan = plan_batches(lengths, batch_tokens=4096, seed=3, block=256)
    means = lengths[plan.order].reshape(4, 256).mean(1)
    assert abs(means - lengths.mean()).max() < 5 * lengths.std() / 16
    first = [lengths[plan.order[places]].max() for places in plan.batches() if places[-1] < 256]
    assert sorted(first) != first
    assert sorted(first, reverse=True) != first


@pytest.mark.parametrize("side", ["right", "left"])
def test_collate_pads_on_the_side_that_is_asked_for(side):
    samples = [
        EncodedSample(np.array([5, 6, 7]), np.array([IGNORED, 6, 7])),
        EncodedSample(np.array([8, 4]), np.array([8, 4])),
    ]
    batch = collate(samples, side=side, pad=9)
    short = [8, 4, 9] if side == "right" else [9, 8, 4]
    assert batch.input_ids.tolist() == [[5, 6, 7], short]
    assert batch.labels.tolist()[1] == [4 if token == 4 else IGNORED for token in short]  # nothing predicts the first
    if side == "right":
        assert batch.attention_mask is None
    else:
        assert batch.attention_mask.tolist() == [[1, 1, 1], [0, 1, 1]]


@pytest.mark.parametrize(("side", "places"), [("right", [0, 1, 3]), ("left", [0, 1, 4])])
def test_answers_are_read_one_token_before_them_in_their_own_row(side, places):
    samples = [
        EncodedSample(np.array([5, 6, 7]), np.array([5, 6, 7])),
        EncodedSample(np.array([8, 9]), np.array([8, 9])),
    ]
    answers = collate(samples, side=side).answers
    assert answers.places.tolist() == places
    assert answers.tokens.tolist() == [6, 7, 9]
    assert answers.counts.tolist() == [2, 1]


def test_pack_lays_samples_behind_each_other_and_predicts_no_first_token():
    samples = [
        EncodedSample(np.array([5, 6, 7]), np.array([5, 6, 7])),
        EncodedSample(np.array([8, 9]), np.array([8, 9])),
    ]
    batch = pack(samples)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9]]
    assert batch.labels.tolist() == [[IGNORED, 6, 7, IGNORED, 9]]
    places, tokens, samples, counts = batch.answers
    assert places.tolist() == [0, 1, 3]
    assert tokens.tolist() == [6, 7, 9]
    assert samples.tolist() == [0, 0, 1]
    assert counts.tolist() == [2, 1]
    assert batch.sample_of_token.tolist() == [[0, 0, 0, 1, 1]]
    assert len(batch) == 2


def test_packed_plan_fills_batches_without_sorting():
    lengths = np.array([3, 9, 2, 30, 4, 4, 1])
    plan = plan_batches(lengths, batch_tokens=10, packed=True, seed=1)
    assert sorted(plan.order) == list(range(7))
    assert np.array_equal(plan.order, np.random.default_rng(1).permutation(7))
    tokens = [int(lengths[plan.order[places]].sum()) for places in plan.batches()]
    assert sum(tokens) == 53
    assert all(total <= 10 or len(places) == 1 for total, places in zip(tokens, plan.batches(), strict=True))


def test_split_at_budget_by_hand():
    groups = split_at_budget(np.array([4, 5, 2, 20, 1]), 9)
    assert [group.tolist() for group in groups] == [[0, 1], [2], [3], [4]]
