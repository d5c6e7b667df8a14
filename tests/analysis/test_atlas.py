"""Pattern atlas: the nearest known task or adapter, refused comparisons, and the file."""

from __future__ import annotations

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb import HeadnbError
from headnb.analysis.atlas_entries import MAX_ROWS, make_entry
from headnb.stats import jackknife

LAYERS, HEADS = 6, 8
RNG = np.random.default_rng(0)
PATTERNS = {name: RNG.lognormal(-4, 0.6, (LAYERS, HEADS)) for name in ("add", "sort", "spell", "count")}
BASE = {
    "model": "tiny",
    "model_fingerprint": "ab" * 16,
    "method": "activation",
    "method_label": "activation level",
    "units": "nats",
    "reduction": "mean-abs",
    "loss_reduction": "sample-mean",
    "encoding": "official",
    "scoring_revision": 2,
    "kv_heads": HEADS,
}


def samples(task, n=24, seed=0, *, gain=1.0, change=None, **attrs):
    """Noisy samples around the pattern of a task; equal seeds give the same samples with the same noise."""
    random = np.random.default_rng(seed)
    noise = random.lognormal(0, 0.8, (n, LAYERS, HEADS)) / np.exp(0.32)
    level = PATTERNS[task] * noise * gain * (1 if change is None else change)
    score = (level * random.choice([-1, 1], level.shape)).astype(np.float32)
    ids = seed * 10_000 + np.arange(n)
    return xr.Dataset(
        {
            "score": (("sample", "layer", "head"), score),
            "loss": ("sample", np.ones(n, np.float32)),
            "fingerprint": ("sample", ids * 7919 % 1_000_003 + sum(map(ord, task)) * 1_000_003),
        },
        coords={"sample": ids, "layer": range(LAYERS), "head": range(HEADS)},
        attrs=BASE | {"task": task} | attrs,
    )


@pytest.fixture
def known():
    """An atlas of four tasks."""
    return headnb.atlas({task: samples(task, seed=1) for task in PATTERNS})


@pytest.mark.parametrize("n", [12, 24, 200])
def test_new_samples_of_a_task_find_their_task_first(known, n):
    for task in PATTERNS:
        found = known.nearest(samples(task, n, seed=2))
        assert found.table.index[0] == task
        assert f"Most like {task}" in found.verdict
        best = found.table.iloc[0]
        assert best["low"] <= 1 <= best["high"] + 0.1
        assert (best["compared"], best["samples"]) == (n // -(-n // MAX_ROWS) * -(-n // MAX_ROWS), 24)
        truth = [np.corrcoef(PATTERNS[task].ravel(), PATTERNS[name].ravel())[0, 1] for name in found.table.index]
        np.testing.assert_allclose(found.table["correlation"], truth, atol=0.35)


def test_the_correlation_is_that_of_the_jackknife(known):
    query = samples("add", seed=2)
    found = known.nearest(query, 4, level=0.9).table
    for name in PATTERNS:
        expected = query.heads.correlation(samples(name, seed=1), 0.9)
        row = found.loc[name]
        np.testing.assert_allclose(
            row[["correlation", "low", "high"]].astype(float), [expected.value, expected.low, expected.high], rtol=1e-4
        )
    assert len(known.nearest(query, 2).table) == 2


def test_samples_that_the_entry_has_too_do_not_count(known):
    mixed = xr.concat([samples("add", seed=1).isel(sample=slice(12)), samples("add", 12, seed=2)], "sample")
    mixed.attrs = samples("add").attrs
    row = known.nearest(mixed).table.loc["add"]
    alone = known.nearest(samples("add", 12, seed=2)).table.loc["add"]
    assert row["compared"] == 12
    np.testing.assert_allclose(row["correlation"], alone["correlation"], rtol=1e-5)
    assert np.isnan(known.nearest(samples("add", seed=1).isel(sample=slice(12))).table.loc["add", "correlation"])


def test_equal_samples_are_paired(known):
    row = known.nearest(samples("add", seed=1)).table.loc["add"]
    assert row["correlation"] == pytest.approx(1)
    assert row["compared"] == 24


def adapter(name, seed=5, task="add"):
    """Scores with an adapter that changes a third of the heads and lowers all levels, and without it."""
    random = np.random.default_rng(sum(map(ord, name)))
    change = 1 + 0.8 * (random.random((LAYERS, HEADS)) < 0.3)
    tuned = samples(task, seed=seed, gain=0.7, change=change, model=f"tiny + {name}", model_fingerprint=name * 4)
    return tuned, samples(task, seed=seed)


def test_an_adapter_is_found_by_its_change(known):
    for name in ("lora-a", "lora-b", "lora-c"):
        after, before = adapter(name)
        known.add(name, after, before=before)
    for name in ("lora-a", "lora-b", "lora-c"):
        after, before = adapter(name, seed=6)
        found = known.nearest(after, before=before).table
        assert list(found["kind"].unique()) == ["adapter"]
        assert found.index[0] == name
    assert list(known.table["kind"]) == ["task"] * 4 + ["adapter"] * 3
    pattern = known.pattern("lora-a")
    assert (pattern.attrs["kind"], pattern.attrs["units"]) == ("difference", "of the mean over heads")
    assert len(known.grid("adapter").payload["panels"]) == 3


def test_the_pattern_of_an_entry_is_that_of_its_scores(known):
    expected = samples("sort", seed=1).heads.pattern()
    found = known.pattern("sort")
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.heads.evidence() == pytest.approx(expected.heads.evidence(), rel=1e-4)
    for name in ("kind", "units", "model", "task", "method", "loss_reduction", "kv_heads"):
        assert found.attrs[name] == expected.attrs[name]
    assert [panel["title"] for panel in known.grid().payload["panels"]] == list(PATTERNS)


def test_rows_of_many_samples_are_means_of_equally_many():
    whole = samples("add", 100)
    entry = make_entry("x", whole, None).reduced()
    assert (len(entry.rows), len(entry.fingerprints)) == (25, 100)
    np.testing.assert_allclose(entry.rows.mean(axis=0), abs(whole["score"]).mean("sample"), rtol=1e-5)
    reordered = make_entry("x", whole.isel(sample=RNG.permutation(100)), None).reduced()
    np.testing.assert_array_equal(entry.rows, reordered.rows)
    assert entry.evidence.reliability == pytest.approx(whole.heads.reliability(), abs=0.05)
    assert entry.evidence.samples == 100


def test_correlations_of_all_pairs_and_their_chart(known):
    matrix = known.correlations()
    one, two = (samples(task, seed=1).heads for task in ("add", "sort"))
    expected = one.correlation(two._dataset)
    found = matrix.sel(entry="add", other_entry="sort")
    np.testing.assert_allclose([found["value"], found["low"]], [expected.value, expected.low], rtol=1e-4)
    np.testing.assert_array_equal(matrix["value"], matrix["value"].T)
    assert "spell" in known.plot().svg()


@pytest.mark.parametrize("where", ["{}/a.nc", "memory://atlas/a.nc"])
def test_an_atlas_is_saved_and_opened_with_its_entries(known, where, tmp_path):
    after, before = adapter("lora-a")
    known.add("lora-a", after, before=before)
    known.add("many", samples("add", 100, seed=3))
    path = known.save(where.format(tmp_path))
    opened = headnb.atlas(path)
    assert opened.table.equals(known.table)
    assert repr(opened) == repr(known)
    query = samples("spell", seed=9)
    assert opened.nearest(query).table.equals(known.nearest(query).table)
    opened.add("spell", samples("spell", seed=1))  # the same entry again
    opened.remove("many")
    assert "many" not in opened
    assert len(opened) == len(known) - 1
    with pytest.raises(HeadnbError, match="are of other"):
        opened.nearest(samples("add", model="other", model_fingerprint="cd" * 16))


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"model": "other", "model_fingerprint": "cd" * 16}, r"of tiny \(weights abababab\), and .* of other"),
        ({"method": "taylor-token"}, "method is activation in the atlas and taylor-token in"),
        ({"scoring_revision": 1}, "scoring_revision is 2 in the atlas and 1 in"),
        ({"loss_reduction": "sum"}, "loss_reduction is sample-mean in the atlas and sum"),
        ({"option_steps": 20}, "option_steps is None in the atlas and 20"),
    ],
)
def test_patterns_of_other_settings_are_not_compared(known, attrs, message):
    with pytest.raises(HeadnbError, match=message):
        known.nearest(samples("add", seed=2, **attrs))
    with pytest.raises(HeadnbError, match=message):
        known.add("new", samples("add", seed=2, **attrs))
    assert "new" not in known


def test_wrong_calls_are_one_clear_error(known, tmp_path):
    scores = samples("add", seed=2)
    calls = {
        "a different entry 'add'": lambda: known.add("add", scores),
        "the atlas has no adapter; atlas.add": lambda: known.nearest(scores, before=scores),
        "unknown entry 'ad'; did you mean 'add'": lambda: known.pattern("ad"),
        "k must be at least 1": lambda: known.nearest(scores, 0),
        "unknown kind 'tasks'": lambda: known.grid("tasks"),
        "needs the scores of samples": lambda: known.nearest(scores.drop_vars("fingerprint")),
        "expected scores": lambda: known.add("x", scores.assign(score=scores.score / 2).drop_attrs()),
        "name of an entry is text": lambda: known.add("", scores),
        "give scores with their names": lambda: headnb.atlas(scores),
        "the atlas is empty": lambda: headnb.atlas().save(tmp_path / "a.nc"),
        "the name must end in .nc": lambda: known.save(tmp_path / "a.zarr"),
        "there is no atlas at": lambda: headnb.atlas(tmp_path / "b.nc"),
        "is not a pattern atlas": lambda: headnb.atlas(scores.heads.save(tmp_path / "scores.nc")),
    }
    for message, call in calls.items():
        with pytest.raises(HeadnbError, match=message):
            call()


def test_names_are_escaped_in_the_displays(known):
    name = "<script>window.ran = 1</script>\x1b[31m"
    known.add(name, samples("add", seed=8))
    found = known.nearest(samples("add", seed=2))
    for html in (known._repr_html_(), found._repr_html_()):
        assert "<script>" not in html
    assert "\x1b" not in repr(known) + repr(found)


def test_too_few_samples_give_no_correlation(known):
    found = known.nearest(samples("add", 3, seed=2))
    assert found.table["correlation"].isna().all()
    assert found.verdict == "More samples are needed to determine a correlation."
    assert jackknife.MIN_SAMPLES > 3


def test_the_verdict_names_equally_similar_entries_beyond_the_shown(known):
    """Two entries from the same task's samples are equally similar to a third."""
    known.add("sort again", samples("sort", seed=3))
    known.add("sort once more", samples("sort", seed=4))
    few = known.nearest(samples("sort", seed=2), k=1)
    assert len(few.table) == 1
    assert "overlaps with that of 2 more entries" in few.verdict
    every = known.nearest(samples("sort", seed=2), k=5)
    assert every.as_near == few.as_near
    assert f"overlaps with that of {', '.join(every.as_near)}." in every.verdict
