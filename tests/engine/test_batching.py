"""Batch plans and batches against simple counts and hand calculations."""

from __future__ import annotations

import numpy as np
import pytest
from headnb.engine.batching import collate, pack, plan_batches, split_at_budget
from headnb.engine.tokenization import EncodedSample
from headnb.tasks.row_values import IGNORED
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=60)
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
    for indices in plan.batches():
        members = lengths[plan.order[indices]]
        computed = len(members) * members.max()
        assert len(members) == 1 or computed <= budget
        assert 1 - members.sum() / computed <= 0.05 + 1e-12
        assert len(set(indices // block)) == 1


def test_a_block_is_a_fair_sample_and_its_batches_come_in_random_order():
    lengths = np.arange(1, 1025)
    plan = plan_batches(lengths, batch_tokens=4096, seed=3, block=256)
    means = lengths[plan.order].reshape(4, 256).mean(1)
    assert abs(means - lengths.mean()).max() < 5 * lengths.std() / 16
    first = [lengths[plan.order[indices]].max() for indices in plan.batches() if indices[-1] < 256]
    assert sorted(first) != first
    assert sorted(first, reverse=True) != first


@pytest.mark.parametrize("side", ["right", "left"])
def test_collate_pads_on_the_given_side(side):
    samples = [
        EncodedSample(np.array([5, 6, 7]), np.array([IGNORED, 6, 7])),
        EncodedSample(np.array([8, 4]), np.array([8, 4])),
    ]
    batch = collate(samples, side=side, pad=9)
    short = [8, 4, 9] if side == "right" else [9, 8, 4]
    assert batch.input_ids.tolist() == [[5, 6, 7], short]
    assert batch.labels.tolist()[1] == [4 if token == 4 else IGNORED for token in short]  # the first is not predicted
    if side == "right":
        assert batch.attention_mask is None
    else:
        assert batch.attention_mask.tolist() == [[1, 1, 1], [0, 1, 1]]


@pytest.mark.parametrize(("side", "indices"), [("right", [0, 1, 3]), ("left", [0, 1, 4])])
def test_answers_are_predicted_one_token_earlier_in_the_same_row(side, indices):
    samples = [
        EncodedSample(np.array([5, 6, 7]), np.array([5, 6, 7])),
        EncodedSample(np.array([8, 9]), np.array([8, 9])),
    ]
    answers = collate(samples, side=side).answers
    assert answers.token_indices.tolist() == indices
    assert answers.tokens.tolist() == [6, 7, 9]
    assert answers.counts.tolist() == [2, 1]


def test_pack_concatenates_samples_and_predicts_no_first_token():
    samples = [
        EncodedSample(np.array([5, 6, 7]), np.array([5, 6, 7])),
        EncodedSample(np.array([8, 9]), np.array([8, 9])),
    ]
    batch = pack(samples)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9]]
    assert batch.labels.tolist() == [[IGNORED, 6, 7, IGNORED, 9]]
    indices, tokens, samples, counts = batch.answers
    assert indices.tolist() == [0, 1, 3]
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
    tokens = [int(lengths[plan.order[indices]].sum()) for indices in plan.batches()]
    assert sum(tokens) == 53
    assert all(total <= 10 or len(indices) == 1 for total, indices in zip(tokens, plan.batches(), strict=True))


def test_split_at_budget_by_hand():
    groups = split_at_budget(np.array([4, 5, 2, 20, 1]), 9)
    assert [group.tolist() for group in groups] == [[0, 1], [2], [3], [4]]
