"""Instruction selection: planted samples are found, and stores are read in small parts."""

from __future__ import annotations

import headnb
import numpy as np
import pytest
import zarr
from headnb import HeadnbError
from headnb.analysis.selection import pools
from headnb.scoring import one_pass
from headnb.storage.score_store import ScoreTable
from headnb.tasks.loading import Task

from simulated_finetuning import scores_of
from tiny import tiny_model, tiny_tokenizer

WORDS = ["river", "stone", "cloud", "apple", "window", "garden", "music", "letter", "bread", "candle"]
N, K = 100, 10


def function(rng):
    name, argument = rng.choice(WORDS, 2)
    i, j, n = rng.integers(9, size=3)
    return f"def {name}({argument}):\n", f"    return {argument}[{i}] * ({argument}[{j}] - {n})\n"


def story(rng):
    picked = rng.choice(WORDS, 6)
    return f"Tell of the {' and the '.join(picked[:3])}. ", f"The {' went to the '.join(picked[3:])}."


def pool_of(n=N, seed=0):
    """Every tenth sample is a function, like the target's samples; the others are stories."""
    rng = np.random.default_rng(seed)
    rows = [function(rng) if i % 10 == 0 else story(rng) for i in range(n)]
    return Task("pool", rows, [f"{'code' if i % 10 == 0 else 'story'}-{i}" for i in range(n)], "made up")


def target_of(n=16):
    rng = np.random.default_rng(99)
    return Task("functions", [function(rng) for _ in range(n)], range(n), "made up")


def precision(chosen):
    return np.mean([key.startswith("code") for key in chosen.ids])


@pytest.fixture(scope="module")
def tiny():
    return {"model": tiny_model(layers=3, heads=8, kv_heads=4, hidden=64), "tokenizer": tiny_tokenizer()}


@pytest.fixture(scope="module")
def scored(tiny, tmp_path_factory):
    """Scores of the target, scores of the pool, and the store of the pool's scores."""
    store = tmp_path_factory.mktemp("scores") / "pool.zarr"
    pool = headnb.score_heads(tiny["model"], tiny["tokenizer"], pool_of(), batch_tokens=300, out=store)
    return headnb.score_heads(tiny["model"], tiny["tokenizer"], target_of()), pool, store


def same(one, other):
    assert one.ids == other.ids
    np.testing.assert_allclose(one.table["similarity"], other.table["similarity"], rtol=1e-4)


@pytest.mark.parametrize(("to", "least"), [("mean", 0.8), ("nearest", 0.5)])
def test_planted_samples_are_found_by_their_patterns(scored, to, least):
    chosen = headnb.select_instructions(*scored[:2], K, to=to)
    assert precision(chosen) >= least  # random: 0.1; five of ten by chance once in 4000 cases
    assert chosen.table["similarity"].mean() > chosen.pool_similarity + 0.2


@pytest.mark.parametrize("by", ["gradient-free", "embedding", "embedding-middle", "gradient"])
def test_planted_samples_are_found_without_patterns(tiny, tmp_path, by):
    chosen = headnb.select_instructions(target_of(), pool_of(), K, by=by, **tiny, out=tmp_path)
    assert precision(chosen) >= 0.8


def test_tfidf_finds_planted_samples_and_random_finds_their_share():
    assert precision(headnb.select_instructions(target_of(), pool_of(), K, by="tfidf")) >= 0.8
    by_chance = [precision(headnb.select_instructions(target_of(), pool_of(), K, "random", seed=s)) for s in range(40)]
    assert abs(np.mean(by_chance) - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 400)
    assert len(set(by_chance)) > 1


def flat(scores):
    return np.abs(scores["score"].values.astype(float)).reshape(scores.sizes["sample"], -1)


def naive(target, pool, *, by, to):
    """Similarities by numpy: correlation of standardised levels, or cosine of levels."""
    levels, wanted = flat(pool), flat(target)
    if by == "pattern":
        levels, wanted = (x / x.mean(axis=1, keepdims=True) for x in (levels, wanted))
        mean, deviation = levels.mean(axis=0), levels.std(axis=0)
        levels, wanted = (levels - mean) / deviation, (wanted - mean) / deviation
        levels, wanted = (x - x.mean(axis=1, keepdims=True) for x in (levels, wanted))
    levels, wanted = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (levels, wanted))
    if to == "nearest":
        return (levels @ wanted.T).max(axis=1)
    return levels @ wanted.mean(axis=0) / np.linalg.norm(wanted.mean(axis=0))


@pytest.mark.parametrize("by", ["pattern", "cosine"])
@pytest.mark.parametrize("to", ["mean", "nearest"])
def test_selection_is_a_full_sort_of_the_similarities_that_numpy_finds(scored, by, to, monkeypatch):
    monkeypatch.setattr(pools, "ROWS_PER_READ", 7)
    target, pool, store = scored
    expected = naive(target, pool, by=by, to=to)
    order = np.argsort(-expected, kind="stable")[:25]
    for given in (pool, store):
        chosen = headnb.select_instructions(target, given, 25, by=by, to=to)
        assert list(chosen.ids) == pool["sample"].values[order].tolist()
        np.testing.assert_allclose(chosen.table["similarity"], expected[order], atol=1e-9)
        assert chosen.pool_similarity == pytest.approx(expected.mean())
        assert chosen.pool_size == N


def test_nearest_is_the_most_similar_sample_of_the_target(scored):
    target, pool, _ = scored
    each = np.array([naive(target.isel(sample=[i]), pool, by="pattern", to="nearest") for i in range(16)])
    place = dict(zip(pool["sample"].values.tolist(), range(N), strict=True))
    for row in headnb.select_instructions(target, pool, 5).table.itertuples():
        similarities = each[:, place[row.sample]]
        assert row.nearest == similarities.argmax()
        assert row.nearest_similarity == pytest.approx(similarities.max())


def test_a_store_is_never_read_beyond_a_few_rows_at_once(scored, monkeypatch):
    target, _, store = scored
    monkeypatch.setattr(pools, "ROWS_PER_READ", 16)
    monkeypatch.setattr(ScoreTable, "scores", lambda *_, **__: pytest.fail("the whole pool was read"))
    read, rows = zarr.Array.__getitem__, []

    def counting(array, key):
        found = read(array, key)
        if array.ndim == 3:
            rows.append(len(found))
        return found

    monkeypatch.setattr(zarr.Array, "__getitem__", counting)
    chosen = headnb.select_instructions(target, store, K, diversity=0.2)
    assert len(chosen) == K
    assert max(rows) <= 16
    assert sum(rows) == 3 * N + 1  # means, similarities, vectors of the candidates; one row to check completeness


def test_a_pool_of_tasks_is_scored_in_parts_whose_scores_are_used_again(tiny, scored, tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "SAMPLES_PER_STORE", 40)
    seen = []
    first = headnb.select_instructions(
        target_of(), pool_of(), K, out=tmp_path, **tiny, on_progress=lambda p: seen.append((p.done, p.total))
    )
    assert sorted(path.name for path in tmp_path.glob("part*")) == [f"part-0000{i}.zarr" for i in range(3)]
    assert (seen[0], seen[-1]) == ((0, N), (N, N))
    same(first, headnb.select_instructions(*scored[:2], K))
    same(first, headnb.select_instructions(scored[0], tmp_path, K))
    monkeypatch.setattr(one_pass, "run_pass", lambda *_, **__: pytest.fail("scored again"))
    same(first, headnb.select_instructions(scored[0], pool_of(), K, out=tmp_path, **tiny))


def test_chosen_samples_are_a_task_in_their_order(tiny, scored):
    pool = pool_of()
    chosen = headnb.select_instructions(target_of(), pool, K, by="tfidf")
    assert chosen.task.ids == chosen.ids
    where = dict(zip(pool.ids, pool.samples, strict=True))
    assert list(chosen.task.samples) == [where[key] for key in chosen.ids]
    from_scores = headnb.select_instructions(*scored[:2], K)
    assert from_scores.of(pool).ids == from_scores.ids
    with pytest.raises(HeadnbError, match=r"selection\.of\(pool\)"):
        _ = from_scores.task
    with pytest.raises(HeadnbError, match="not in this pool"):
        from_scores.of(target_of())


def test_a_pool_of_several_sources_names_them_in_its_ids(scored):
    halves = {"a": scored[1].isel(sample=slice(50)), "b": scored[1].isel(sample=slice(50, None))}
    chosen = headnb.select_instructions(scored[0], halves, K)
    whole = headnb.select_instructions(*scored[:2], K)
    assert tuple(key.partition("/")[2] for key in chosen.ids) == whole.ids
    tasks = {name: Task(name, pool_of().samples[part], pool_of().ids[part], "") for name, part in
             (("a", slice(50)), ("b", slice(50, None)))}  # fmt: skip
    assert chosen.of(tasks).samples == whole.of(pool_of()).samples


def test_copies_and_the_targets_own_samples_are_not_chosen(tiny):
    pool, target = pool_of(40), target_of()
    rows = [*pool.samples, *pool.samples, target.samples[0]]
    doubled = Task("doubled", rows, range(81), "made up")
    for by in ("tfidf", "random", "pattern"):
        chosen = headnb.select_instructions(target, doubled, 40, by=by, **tiny)
        assert sorted(key % 40 for key in chosen.ids) == list(range(40))
        assert 80 not in chosen.ids
        with pytest.raises(HeadnbError, match=r"k=41, but the pool has 40 different samples .* \(81 in all\)"):
            headnb.select_instructions(target, doubled, 41, by=by, **tiny)
    both = headnb.select_instructions(target, doubled, 80, by="random", deduplicate=False)
    assert sorted(both.ids) == list(range(80))


def test_diversity_chooses_less_similar_samples_of_more_kinds():
    rng = np.random.default_rng(0)
    directions = rng.gamma(1.0, size=(4, 20))
    kinds = np.repeat([0, 0, 0, 1, 2, 3], 10)
    levels = directions[kinds] * rng.gamma(400, 1 / 400, (60, 20))
    pool = scores_of(levels.reshape(60, 5, 4)).assign(fingerprint=("sample", np.arange(60)))
    target_levels = directions[0] * 2 + directions[1] + directions[2]
    target = scores_of(np.tile(target_levels, (4, 1)).reshape(4, 5, 4))
    target = target.assign(fingerprint=("sample", -1 - np.arange(4)))
    plain, spread = (headnb.select_instructions(target, pool, 6, by="cosine", diversity=d) for d in (0, 0.7))
    assert len({kinds[key] for key in spread.ids}) > len({kinds[key] for key in plain.ids})
    assert spread.table["similarity"].mean() < plain.table["similarity"].mean()
    assert spread.ids[0] == plain.ids[0]


def test_size_of_a_samples_gradients_does_not_decide():
    rng = np.random.default_rng(3)
    levels, wanted = rng.gamma(2.0, size=(30, 4, 5)), rng.gamma(2.0, size=(6, 4, 5))

    def chosen(factor, by):
        pool = scores_of(levels * factor).assign(fingerprint=("sample", np.arange(30)))
        target = scores_of(wanted).assign(fingerprint=("sample", -1 - np.arange(6)))
        return headnb.select_instructions(target, pool, 30, by=by)

    for by in ("pattern", "cosine"):
        scaled, plain = chosen(rng.gamma(1.0, size=(30, 1, 1)), by), chosen(1, by)
        assert scaled.ids == plain.ids
        np.testing.assert_allclose(scaled.table["similarity"], plain.table["similarity"], rtol=1e-4)


def test_same_heads_everywhere_are_no_evidence_and_no_error():
    level = np.random.default_rng(4).gamma(2.0, size=(1, 2, 3))
    pool = scores_of(np.repeat(level, 5, axis=0)).assign(fingerprint=("sample", np.arange(5)))
    target = scores_of(np.repeat(level, 2, axis=0)).assign(fingerprint=("sample", -1 - np.arange(2)))
    chosen = headnb.select_instructions(target, pool, 3)
    assert chosen.ids == (0, 1, 2)
    assert chosen.table["similarity"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("by", ["pattern", "cosine"])
def test_a_sample_with_zero_scores_has_similarity_zero_and_no_influence(by):
    """The target's heads are weak where the pool's are strong, so a standardised zero sample would be similar."""
    rng = np.random.default_rng(5)
    strength = rng.lognormal(size=(4, 6))
    levels = strength * rng.gamma(2.0, size=(40, 4, 6))
    target = scores_of(rng.gamma(2.0, size=(8, 4, 6)) / strength).assign(fingerprint=("sample", -1 - np.arange(8)))
    pool = scores_of(levels).assign(fingerprint=("sample", np.arange(40)))
    empty = pool.assign(score=pool["score"].where(pool["sample"] != 7, 0))
    found = headnb.select_instructions(target, empty, 40, by).table
    assert found["similarity"][found["sample"] == 7].tolist() == [0]
    others = headnb.select_instructions(target, pool.drop_sel(sample=7), 39, by).table
    assert found["sample"][found["sample"] != 7].tolist() == others["sample"].tolist()
    np.testing.assert_allclose(found["similarity"][found["sample"] != 7], others["similarity"])
    nothing = headnb.select_instructions(target, pool.assign(score=pool["score"] * 0), 3, by)
    assert nothing.table["similarity"].tolist() == [0, 0, 0]


def test_head_that_does_not_exist_is_left_out(scored):
    target, pool, _ = scored
    without = [scores.copy(deep=True) for scores in (target, pool)]
    for scores in without:
        scores["score"][:, 1] = np.nan
    expected = headnb.select_instructions(target.isel(layer=[0, 2]), pool.isel(layer=[0, 2]), K, by="cosine")
    same(headnb.select_instructions(*without, K, by="cosine"), expected)
    assert headnb.select_instructions(*without, K).table["similarity"].notna().all()


def test_incomplete_scores_are_compared_with_a_note(tiny, scored, tmp_path):
    def stop(progress):
        if progress.done > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        headnb.score_heads(
            tiny["model"], tiny["tokenizer"], pool_of(), batch_tokens=300, out=tmp_path / "a.zarr", on_progress=stop
        )
    chosen = headnb.select_instructions(scored[0], tmp_path / "a.zarr", 5)
    assert 40 < chosen.pool_size < N
    assert "is not completely scored" in repr(chosen)


def test_selection_reads_as_a_table(scored):
    chosen = headnb.select_instructions(*scored[:2], 12)
    text = repr(chosen)
    assert "12 of 100 samples by pattern, for 16 samples of the target" in text
    assert "reliability of the target's pattern" in text
    assert "and 2 more" in text
    assert chosen.ids[0] in chosen._repr_html_()
    assert chosen.table.index.tolist() == list(range(1, 13))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": "patern"}, "did you mean 'pattern'"),
        ({"to": "nearst"}, "did you mean 'nearest'"),
        ({"k": 0}, "k must be a whole number"),
        ({"k": True}, "k must be a whole number"),
        ({"candidates": 2}, "candidates must be at least k"),
        ({"candidates": 0}, "candidates must be a whole number of samples, at least 1; got 0"),
        ({"candidates": 7}, "candidates has no effect without diversity"),
        ({"diversity": 1}, "diversity must be at least 0"),
        ({"diversity": 0.5, "by": "random"}, "diversity has no effect with by='random'"),
        ({"method": "taylor-token", "by": "embedding"}, "method has no effect with by='embedding'"),
        ({"method": "taylor-token", "by": "tfidf"}, "method has no effect with by='tfidf'"),
        ({"out": "x.zarr", "by": "random"}, "out has no effect with by='random'"),
        ({"by": "tfidf"}, "tfidf' needs text"),
        ({"by": "gradient-free"}, "needs scores of a forward pass"),
        ({"by": "embedding"}, "by='embedding' needs sample_features of this kind, not 'activation'"),
        ({"target": target_of()}, "give model= and tokenizer="),
        ({"pool": pool_of()}, "give model= and tokenizer="),
        ({"by": "random", "target": target_of()}, "both as tasks, or both as scores"),
        ({"pool": {}}, "the pool is empty"),
        ({"pool": "nowhere.zarr"}, "there are no scores at nowhere.zarr"),
        ({"divrsity": 0.1}, "did you mean 'diversity'"),
    ],
)
def test_bad_input_is_one_plain_line(scored, change, message):
    with pytest.raises(HeadnbError, match=message):
        headnb.select_instructions(**{"target": scored[0], "pool": scored[1], "k": 5, **change})


def test_models_are_compared_by_their_weights_and_by_name_only_if_these_are_unknown(scored):
    target, pool = scored[0], scored[1].assign_attrs(model="copied/elsewhere")
    same(headnb.select_instructions(target, pool, 5), headnb.select_instructions(*scored[:2], 5))
    del pool.attrs["model_fingerprint"]
    with pytest.raises(HeadnbError, match=r"model is .* in the target and 'copied/elsewhere'"):
        headnb.select_instructions(target, pool, 5)


@pytest.mark.parametrize("name", ["model_fingerprint", "method"])
def test_scores_of_different_kinds_are_refused(scored, name):
    with pytest.raises(HeadnbError, match=f"{name} is .* in the target and 'another'"):
        headnb.select_instructions(scored[0], scored[1].assign_attrs({name: "another"}), 5)


@pytest.mark.parametrize("heads", [[1, 0, 2, 3, 4, 5, 6, 7], [0, 1]])
def test_scores_of_other_heads_are_refused(scored, heads):
    with pytest.raises(HeadnbError, match="different heads"):
        headnb.select_instructions(scored[0], scored[1].isel(head=heads), 5)


def test_text_of_encoded_samples_is_not_guessed():
    encoded = [{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}]
    with pytest.raises(HeadnbError, match="already encoded"):
        headnb.select_instructions(encoded, encoded, 1, by="tfidf")


def test_scores_without_fingerprints_cannot_tell_copies(scored):
    bare = scored[1].drop_vars("fingerprint")
    with pytest.raises(HeadnbError, match="no fingerprint"):
        headnb.select_instructions(scored[0], bare, 5)


def test_scores_of_two_revisions_are_refused(scored):
    with pytest.raises(HeadnbError, match="different scoring revisions, 1 and 2"):
        headnb.select_instructions(*(one.assign_attrs(scoring_revision=i + 1) for i, one in enumerate(scored[:2])), 5)


def test_similarity_of_the_pool_is_that_of_a_random_selection():
    """Samples of the target and copies are never chosen."""
    target, pool = target_of(), pool_of()
    with_copies = {"pool": pool, "copies": pool, "own": target}
    more = headnb.select_instructions(target, with_copies, K, by="tfidf")
    every = headnb.select_instructions(target, with_copies, len(pool), by="tfidf")  # all that can be chosen
    assert more.pool_similarity == pytest.approx(every.table["similarity"].mean())
    assert more.pool_size == 2 * len(pool) + len(target)
