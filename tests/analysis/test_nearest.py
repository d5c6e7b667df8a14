"""Streaming top-k equals a full sort for any parts; diversity and TF-IDF equal hand calculations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from headnb.analysis.selection.nearest import (
    PoolPart,
    dense,
    gather_vectors,
    rank_part,
    select_best,
    select_diverse,
    unit_rows,
)
from headnb.analysis.selection.tfidf import TfIdf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse


def parts_of(vectors, keys, sizes, order):
    """The pool split into parts, with its samples in the given order."""
    vectors, keys = np.asarray(vectors), np.asarray(keys)
    for places in np.split(order, np.cumsum(sizes)):
        ids = np.array([f"s{place}" for place in places], object)
        yield PoolPart(places, ids, keys[places], vectors[places])


def sorted_whole(vectors, keys, target, to, without, *, deduplicate):
    """Positions by a full sort: decreasing similarity, then increasing position; only the first of copies."""
    cosines = np.round(vectors @ target.T, 12)
    similarity = cosines.max(axis=1) if to == "nearest" else np.round(vectors @ unit_rows(target.mean(0)[None])[0], 12)
    order = sorted(range(len(vectors)), key=lambda place: (-similarity[place], place))
    seen, found = set(without), []
    for place in order:
        if keys[place] in seen:
            continue
        if deduplicate:
            seen.add(keys[place])
        found.append(place)
    return found, similarity


@settings(max_examples=60)
@given(st.data())
def test_streaming_equals_a_full_sort_with_ties_and_copies_in_any_parts(data):
    n = data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    kinds = unit_rows(rng.normal(size=(data.draw(st.integers(1, 12)), 4)))  # few kinds: many exact ties
    kind = rng.integers(len(kinds), size=n)
    keys = np.where(rng.random(n) < 0.5, kind, 100 + np.arange(n))
    target = kinds[:3]
    to = data.draw(st.sampled_from(["mean", "nearest"]))
    deduplicate = data.draw(st.booleans())
    without = np.array(data.draw(st.lists(st.integers(0, 12), max_size=3)), np.int64)
    count = data.draw(st.integers(1, 45))
    sizes = data.draw(st.lists(st.integers(1, 9), max_size=8))
    cut = [size for i, size in enumerate(sizes) if sum(sizes[: i + 1]) < n]
    parts = parts_of(kinds[kind], keys, cut, rng.permutation(n))
    found = select_best(
        (rank_part(part, target, to) for part in parts), count, without=without, deduplicate=deduplicate
    )
    expected, similarity = sorted_whole(kinds[kind], keys, target, to, without, deduplicate=deduplicate)
    assert found.positions.tolist() == expected[:count]
    np.testing.assert_allclose(found.similarity, similarity[expected[:count]], atol=1e-12)
    nearest = np.round(kinds[kind] @ target.T, 12).argmax(axis=1)
    assert found.nearest.tolist() == nearest[expected[:count]].tolist()
    assert found.ids.tolist() == [f"s{place}" for place in expected[:count]]


def test_equal_samples_are_equally_similar_however_many_are_multiplied_at_once():
    rng = np.random.default_rng(0)
    row, target = unit_rows(rng.normal(size=(1, 257))), unit_rows(rng.normal(size=(5, 257)))
    found = set()
    for n in (1, 2, 3, 5, 8, 64, 1000):
        many = PoolPart(np.arange(n), np.arange(n).astype(object), np.arange(n), np.repeat(row, n, axis=0))
        found |= set(rank_part(many, target, "mean").similarity)
    assert len(found) == 1


def test_vectors_are_collected_in_the_order_asked_for():
    rng = np.random.default_rng(1)
    vectors = unit_rows(rng.normal(size=(30, 4)))
    wanted = np.array([17, 3, 29, 8])
    for form in (vectors, sparse.csr_array(vectors)):
        parts = (PoolPart(p, p.astype(object), p, form[p]) for p in np.split(rng.permutation(30), [7, 20]))
        np.testing.assert_allclose(dense(gather_vectors(parts, wanted)), vectors[wanted])


def test_diverse_choice_is_the_hand_calculation():
    # Two copies of the most similar vector, an orthogonal and less similar one, and an opposite one.
    vectors = np.array([[1.0, 0], [1.0, 0], [0, 1.0], [-1.0, 0]])
    similarity = np.array([0.9, 0.9, 0.4, 0.1])
    # weight .5: first .45; then copy .45 - .5 = -.05, orthogonal .2 - 0 = .2, opposite .05 + .5 = .55.
    assert select_diverse(similarity, vectors, 3, 0.5).tolist() == [0, 3, 2]
    # weight .2: first .72; then copy .52, orthogonal .32; then orthogonal .32, opposite .08 + .2 = .28.
    assert select_diverse(similarity, vectors, 3, 0.2).tolist() == [0, 1, 2]
    assert select_diverse(similarity, vectors, 4, 0.0).tolist() == [0, 1, 2, 3]


def test_diverse_choice_equals_a_slow_one():
    rng = np.random.default_rng(2)
    vectors, similarity = unit_rows(rng.normal(size=(40, 5))), rng.random(40)
    chosen = []
    for _ in range(12):

        def value(i, chosen=chosen):
            return 0.6 * similarity[i] - 0.4 * max((vectors[i] @ vectors[j] for j in chosen), default=0)

        chosen.append(max((i for i in range(40) if i not in chosen), key=value))
    assert select_diverse(similarity, vectors, 12, 0.4).tolist() == chosen
    assert select_diverse(similarity, sparse.csr_array(vectors), 12, 0.4).tolist() == chosen


def test_zero_vector_stays_zero():
    assert unit_rows(np.zeros((1, 3))).tolist() == [[0, 0, 0]]


def test_tfidf_is_the_hand_calculation():
    weights = TfIdf.of(["the cat", "the dog", "the the end"])
    the, cat = 1 + math.log(4 / 4), 1 + math.log(4 / 2)
    vectors = weights.vectors(["The cat, the CAT; the zebra", "zebra"])
    row = vectors.toarray()[0]
    length = math.hypot(3 * the, 2 * cat)
    assert row[weights.columns["the"]] == pytest.approx(3 * the / length)
    assert row[weights.columns["cat"]] == pytest.approx(2 * cat / length)
    assert row[weights.columns["dog"]] == 0
    assert vectors.toarray()[1].tolist() == [0, 0, 0, 0]  # no word of the collection
