"""Evidence for composition: estimators against plain loops, levels against simulated worlds."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import headnb
import numpy as np
import pytest
from headnb.analysis.before_after import read_stages
from headnb.analysis.composition.inputs import CompositionInputs, evaluate_evidence
from headnb.analysis.composition.layer_products import LayerProducts
from headnb.errors import HeadnbError
from headnb.stats.significance import sign_flip_p_value
from scipy import stats

from simulated_compositions import TASKS, study
from simulated_finetuning import random_change

SMALL = {"layers": 8, "width": 9, "n": 16, "run_noise": 0.1}


def read_world(world: str, seed: int = 0, **options) -> tuple[dict, CompositionInputs]:
    made = study(np.random.default_rng(seed), world, **options)
    return made, CompositionInputs.read(made["target"], made["basics"], made["others"], made["shuffled"])


def levels(pairs) -> tuple[np.ndarray, np.ndarray]:
    """Before (n, layers, width) and after (runs, n, layers, width)."""
    return abs(pairs[0][0].score.values), np.stack([abs(after.score.values) for _, after in pairs])


def units_of(tasks: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """(layers, width) each: levels before fine-tuning, mean over tasks, and the units of the heads' values."""
    levels = np.mean([before.mean(axis=0) for before, _ in tasks], axis=0)
    return levels, levels + 0.02 * levels.mean()


def without_shift_and_scale(values: np.ndarray, levels: np.ndarray, units: np.ndarray) -> np.ndarray:
    """(..., width): values of one layer in units of its heads, minus the fit of a shift and a scale of all heads."""
    rows = (values / units).reshape(-1, values.shape[-1]).T
    design = np.stack([1 / units, levels / units], axis=1)
    return (rows - design @ np.linalg.lstsq(design, rows, rcond=None)[0]).T.reshape(values.shape)


def products_by_loops(tasks: list[tuple[np.ndarray, np.ndarray]], units=None) -> np.ndarray:
    """(layers, patterns, patterns): mean products of different samples in different runs.

    The patterns before fine-tuning come first, then the changes.
    """
    T, layers = len(tasks), tasks[0][0].shape[1]
    levels, units = units or units_of(tasks)
    found = np.zeros((layers, 2 * T, 2 * T))
    for layer in range(layers):
        centred = [
            [without_shift_and_scale(x[..., layer, :], levels[layer], units[layer]) for x in (before, after - before)]
            for before, after in tasks
        ]
        for i, j in itertools.product(range(2 * T), repeat=2):
            one, other = (centred[p % T][p // T] for p in (i, j))
            if i % T != j % T:
                means = [x.reshape(-1, x.shape[-1]).mean(axis=0) for x in (one, other)]
                found[layer, i, j] = means[0] @ means[1]
                continue
            one, other = (x if x.ndim == 3 else x[None] for x in (one, other))  # (runs, n, width)
            products = np.einsum("rxh,syh->rsxy", one, other)
            different = np.broadcast_to(~np.eye(one.shape[1], dtype=bool), products.shape)
            if i == j and len(one) > 1:
                different = different & ~np.eye(len(one), dtype=bool)[:, :, None, None]
            found[layer, i, j] = products[different].mean()
    return found


def error_by_loops(products: np.ndarray, target: int, predictors: list[int]) -> np.ndarray:
    """(layers): squared errors of each layer predicted with weights fitted to the other layers."""
    errors = []
    for layer, own in enumerate(products):
        others = np.delete(products, layer, axis=0).sum(axis=0)
        w = np.linalg.solve(others[np.ix_(predictors, predictors)], others[predictors, target])
        crossed = w @ own[predictors, target]
        errors.append(own[target, target] - 2 * crossed + w @ own[np.ix_(predictors, predictors)] @ w)
    return np.array(errors)


def independent_befores(products: np.ndarray, T: int) -> np.ndarray:
    """(2 T, r + T): linearly independent combinations of the patterns before fine-tuning, then the changes.

    The sum of the patterns before fine-tuning is a scale of all heads, which is removed; so r < T.
    """
    total = products.sum(axis=0)[:T, :T]
    length = np.sqrt(np.where(np.diag(total) > 0, np.diag(total), np.inf))
    values, vectors = np.linalg.eigh(total / np.outer(length, length))
    independent = [vector / length for value, vector in zip(values, vectors.T, strict=True) if value > 1e-3]
    r = len(independent)
    turn = np.zeros((2 * T, r + T))
    turn[:T, :r], turn[T:, r:] = np.transpose(independent), np.eye(T)
    return turn


def shares_by_loops(tasks, of=None) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Gain, excess and both unique contributions; differences of layers' errors (gain, excess); the alternatives.

    Units and combinations of the patterns before fine-tuning are those of the tasks `of`.
    """
    T = len(tasks)
    units = units_of(of or tasks)
    turn = independent_befores(products_by_loops(of or tasks, units), T)
    products, r = turn.T @ products_by_loops(tasks, units) @ turn, turn.shape[1] - T
    Z, (a, b) = list(range(r)), (r + 1, r + 2)
    nothing, both = (error_by_loops(products, r, Z + p) for p in ([], [a, b]))
    alternatives = min(
        itertools.combinations(range(r + 3, r + T), 2), key=lambda p: error_by_loops(products, r, [*Z, *p]).sum()
    )
    best, only_a, only_b = (error_by_loops(products, r, Z + p) for p in (list(alternatives), [a], [b]))
    worse = np.array([nothing.sum(), best.sum(), only_b.sum(), only_a.sum()]) - both.sum()
    return worse / nothing.sum(), np.stack([nothing - both, best - both]), [p - r for p in alternatives]


def test_products_are_those_of_different_samples_in_different_runs():
    made, found = read_world("composed", **SMALL)
    changes = found.changes(found.comparable_others)
    measured = LayerProducts([*changes.before, *changes.change], changes.layers, changes.levels)
    pairs = [made["target"], *made["basics"].values(), *made["others"].values()]
    tasks = [levels(one) for one in pairs]
    np.testing.assert_allclose(measured.corrected(), products_by_loops(tasks), rtol=1e-9, atol=1e-12)
    fewer_runs = [
        (before, np.delete(after, 1, axis=0) if task == 2 else after) for task, (before, after) in enumerate(tasks)
    ]
    replicate = measured.replicates()[len(tasks) + 2].products[1]  # after those of the samples: task 2 without run 1
    np.testing.assert_allclose(replicate, products_by_loops(fewer_runs), rtol=1e-9, atol=1e-12)


def test_shares_and_tests_are_those_of_plain_loops():
    made, found = read_world("composed", seed=3, **SMALL)
    pairs = [made["target"], *made["basics"].values(), *made["others"].values()]
    shares, of_layers, alternatives = shares_by_loops([levels(one) for one in pairs])
    change = evaluate_evidence(found).change
    assert change.alternatives == tuple(TASKS[place] for place in alternatives)
    limits = [change.gain, change.excess, change.unique_contributions["a"], change.unique_contributions["b"]]
    # The jackknife corrects the values by less than their distance to the limit.
    for one, share in zip(limits, shares, strict=True):
        assert abs(one.value - share) < one.value - one.low
    for one, differences in zip(limits, of_layers, strict=False):
        by_scipy = stats.permutation_test(
            (differences,), np.sum, permutation_type="samples", alternative="greater", n_resamples=math.inf
        )
        assert one.p == pytest.approx(by_scipy.pvalue)


def test_limits_are_those_of_a_jackknife_by_loops():
    """Delete one sample of one task, or one run: variances add, and t has Welch's degrees of freedom."""
    made, found = read_world("composed", seed=3, **SMALL)
    tasks = [levels(one) for one in (made["target"], *made["basics"].values(), *made["others"].values())]
    full = shares_by_loops(tasks)[0][0]
    variances, freedoms, value = [], [], full
    for task, (before, after) in enumerate(tasks):
        for source in ("samples", "runs"):
            count = len(before) if source == "samples" else len(after)
            left = []
            for place in range(count):
                fewer = list(tasks)
                if source == "samples":
                    fewer[task] = (np.delete(before, place, axis=0), np.delete(after, place, axis=1))
                else:
                    fewer[task] = (before, np.delete(after, place, axis=0))
                left.append(shares_by_loops(fewer, tasks)[0][0])
            pseudo = count * full - (count - 1) * np.array(left)
            variances.append(pseudo.var(ddof=1) / count)
            tails = max(0.0, stats.kurtosis(pseudo, bias=False)) if count > 3 else 0.0
            freedoms.append(2 / (tails / count + 2 / (count - 1)))
            value += pseudo.mean() - full
    total = sum(variances)
    df = total**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    gain = evaluate_evidence(found).change.gain
    assert gain.value == pytest.approx(value)
    assert gain.value - gain.low == pytest.approx(stats.t.ppf(0.95, df) * np.sqrt(total))


def test_one_sided_sign_flip_test_is_scipys():
    for n in (2, 5, 9, 12):
        differences = np.random.default_rng(n).normal(0.4, 1, n)
        expected = stats.permutation_test(
            (differences,), np.sum, permutation_type="samples", alternative="greater", n_resamples=math.inf
        )
        assert sign_flip_p_value(differences) == pytest.approx(expected.pvalue)
    assert sign_flip_p_value(np.arange(1, 41)) == pytest.approx(1 / 5001)
    assert sign_flip_p_value([1.0, np.nan]) == 1
    assert sign_flip_p_value([0.0, 0.0]) == 1


@pytest.mark.parametrize(
    ("world", "level", "composed", "sentence"),
    [
        ("composed", "beyond format", True, "Each basic task has a unique contribution."),
        ("format", "shared with these basics", False, "A common answer format is not excluded."),
        ("additive", "gain", False, "A change common to all fine-tuning is not excluded."),
        ("null", "", False, "No evidence for composition: beyond the patterns before fine-tuning, a and b do not"),
        ("collinear", "", False, "a and b cannot be distinguished from each other or from noise"),
        ("noise only", "", False, "No verdict on composition: the part of the change of target that the patterns"),
        ("one basic task", "beyond format", False, "No unique contribution is shown for b"),
    ],
)
def test_verdict_names_the_level_of_evidence(world, level, composed, sentence):
    made = study(np.random.default_rng(1), world)
    fit = headnb.fit_combination(**made, permutations=10, resamples=5)
    assert (fit.evidence.level, fit.supported) == (level, composed)
    assert sentence in fit.verdict
    assert (f"Level of evidence: {level}." in fit.verdict) == bool(level)
    found = json.loads(json.dumps(fit.to_dict(), allow_nan=False))["evidence"]
    assert (found["level"], found["composed"]) == (level, composed)
    assert found["verdict"] in fit.verdict
    assert found["shares"][0].keys() == {"of", "share", "value", "low", "p"}


def test_evidence_is_the_same_for_every_form_of_the_fit():
    made = study(np.random.default_rng(1), "composed")
    forms = ({}, {"scale_free": True}, {"on": "after"}, {"nonnegative": False, "intercept": True})
    fits = [headnb.fit_combination(**made, **form, permutations=2, resamples=2) for form in forms]
    assert len({str(fit.evidence) for fit in fits}) == 1


def test_verdict_names_what_is_missing_for_the_next_level():
    made = study(np.random.default_rng(1), "composed")

    def verdict(**other):
        return headnb.fit_combination(**{**made, **other}, permutations=2, resamples=2).verdict

    assert "Testing this needs at least 3 training runs each of 2 other tasks; 0 available" in verdict(
        others=None, shuffled=None
    )
    one_run = {name: pairs[:1] for name, pairs in made["others"].items()}
    assert "0 available" in verdict(others=one_run, shuffled=None)
    of_target = {"target": made["shuffled"]["target"]}
    needs = "testing this needs training on shuffled answers of"
    assert f"{needs} a and b, at least 3 runs each" in verdict(shuffled=of_target)
    of_three = {name: made["shuffled"][name] for name in ("target", "a", "b")}
    assert f"{needs} 2 other tasks; 0 available" in verdict(shuffled=of_three)
    assert "too few for a (2)" in verdict(basics={**made["basics"], "a": made["basics"]["a"][:2]})
    small = study(np.random.default_rng(1), "composed", layers=4, width=20)
    few_layers = headnb.fit_combination(**small, permutations=2, resamples=2)
    assert "at least 5 layers of more than 2 heads, got 4" in few_layers.verdict
    narrow = study(np.random.default_rng(1), "composed", layers=8, width=3)
    assert "24 heads in 8 layers are too few" in headnb.fit_combination(**narrow, permutations=2, resamples=2).verdict


def test_tasks_on_the_same_samples_share_their_pattern_before():
    """Identical patterns before fine-tuning count once and do not make the weights undetermined."""
    made = study(np.random.default_rng(2), "composed")
    twins = {"e": made["others"]["e"], "twin of e": made["others"]["e"], "d": made["others"]["d"]}
    found = CompositionInputs.read(made["target"], made["basics"], twins, None)
    change = evaluate_evidence(found).change
    assert math.isfinite(change.gain.low)
    alone = CompositionInputs.read(made["target"], made["basics"], {name: twins[name] for name in "ed"}, None)
    assert change.gain.value == pytest.approx(evaluate_evidence(alone).change.gain.value, abs=0.02)


def test_missing_heads_and_layers_of_different_width_are_supported():
    made = study(np.random.default_rng(1), "composed")
    for pairs in (made["target"], *made["basics"].values(), *made["others"].values()):
        for stage in {id(one): one for pair in pairs for one in pair}.values():
            stage["score"][:, 2, 5:] = np.nan
    holes = evaluate_evidence(CompositionInputs.read(made["target"], made["basics"], made["others"], None))
    assert holes.level == "shared with these basics"


@pytest.mark.parametrize("unit", [1e-170, 1e-16, 1e16])
def test_evidence_does_not_depend_on_the_unit_of_the_levels(unit: float):
    def evidence(unit: float):
        made = study(np.random.default_rng(1), "layer profile times level, target and basics", **SMALL)
        tasks = (made["target"], *made["basics"].values(), *made["others"].values())
        for stage in {id(one): one for pairs in tasks for pair in pairs for one in pair}.values():
            stage["score"] = stage["score"] * unit
        return evaluate_evidence(CompositionInputs.read(made["target"], made["basics"], made["others"], None)).change

    found, expected = evidence(unit), evidence(1.0)
    assert found.gain == pytest.approx(expected.gain, rel=1e-6)
    assert found.excess == pytest.approx(expected.excess, rel=1e-6)
    assert found.reliability == pytest.approx(expected.reliability)


def test_layers_without_more_heads_than_removed_terms_are_left_out():
    made = study(np.random.default_rng(1), "composed")
    for pairs in (made["target"], *made["basics"].values(), *made["others"].values()):
        for stage in {id(one): one for pair in pairs for one in pair}.values():
            stage["score"][:, 2, 2:] = np.nan
            stage["score"][:, 3, 1:] = np.nan
    inputs = CompositionInputs.read(made["target"], made["basics"], made["others"], None)
    assert not {2, 3} & set(inputs.changes(inputs.comparable_others).layers)
    assert evaluate_evidence(inputs).level == "shared with these basics"


def test_signed_scores_have_no_verdict():
    """Each layer's scale is that of levels: for signed scores, layer factors alone would pass as composition."""
    made = study(np.random.default_rng(1), "null", **SMALL)
    for pairs in (made["target"], *made["basics"].values(), *made["others"].values()):
        for stage in {id(one): one for pair in pairs for one in pair}.values():
            stage.attrs["reduction"] = "mean"
    found = evaluate_evidence(CompositionInputs.read(made["target"], made["basics"], made["others"], None))
    assert "it needs activation levels" in found.reason_untested
    assert not found.has_verdict


def test_shuffled_answers_of_a_task_that_does_not_enter_are_refused():
    made = study(np.random.default_rng(1), "composed", **SMALL)
    with pytest.raises(HeadnbError, match="unknown task with shuffled answers 'targe'; did you mean 'target'"):
        headnb.fit_combination(**{**made, "shuffled": {"targe": made["target"]}})


def test_power_is_small_without_and_large_with_much_composition():
    made = study(np.random.default_rng(1), "null")
    found = headnb.composition_power(**made, shares=(0.0, 1.0), replicates=5)
    assert list(found.table.columns)[:3] == ["gain", "shared with these basics", "shared, each basic contributes"]
    assert (found.table.drop(columns="error").loc[0.0] <= 0.2).all()
    assert (found.table.drop(columns="error").loc[1.0] >= 0.8).all()
    p = found.table.drop(columns="error").loc[1.0]
    assert found.table.loc[1.0, "error"] == pytest.approx(np.sqrt((p * (1 - p)).max() / 5))
    assert "With 3 training runs and 32 samples per task, the probability of detecting" in found.verdict
    assert "if a share of 0 is composed" in found.verdict
    always = replace(found, rates=found.rates * 0 + 1.0, replicates=40)  # Wilson: 40 / (40 + 1.96**2) = 0.912
    assert "100% [91%, 100%] if a share of 1 is composed" in always.verdict
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["replicates"] == 5
    assert found.to_dict()["rates"][0]["share"] == 0
    assert found.verdict in found._repr_html_()


def test_power_without_other_tasks_is_that_of_a_gain():
    made = study(np.random.default_rng(1), "null")
    found = headnb.composition_power(made["target"], made["basics"], shares=[0.5], replicates=2)
    assert list(found.table.columns) == ["gain", "error"]
    assert "(gain)" in found.verdict


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": [1.5]}, "shares must lie between 0 and 1"),
        ({"replicates": 0}, "replicates must be at least 1"),
        ({"basics": {"a": random_change(1, "a")}, "shuffled": None}, "at least 3 training runs of each task"),
        ({"share": [0.5]}, "did you mean 'shares'"),
    ],
)
def test_power_that_cannot_be_computed_is_refused(options, message):
    made = study(np.random.default_rng(1), "null", layers=8, width=5, n=8)
    with pytest.raises(HeadnbError, match=message):
        headnb.composition_power(**{**made, **options})


def test_stages_of_shuffled_answers_are_read_like_others():
    made = study(np.random.default_rng(1), "composed", **SMALL)
    found = CompositionInputs.read(made["target"], made["basics"], made["others"], made["shuffled"]["target"])
    assert list(found.shuffled) == ["target"]
    np.testing.assert_array_equal(found.shuffled["target"].after, read_stages(made["shuffled"]["target"], "x").after)
