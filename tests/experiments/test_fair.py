"""The fair experiment: its samples, its compact results, and its decision rule."""

from __future__ import annotations

import dataclasses
import itertools
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb.analysis.composition.evidence import Comparison, CompositionEvidence, Limit
from headnb.display.charts.estimates import estimate_text
from headnb.errors import HeadnbError
from headnb.experiments.fair import __main__ as fair
from headnb.experiments.fair import study as fair_study
from headnb.experiments.fair.decision import ABSENT, Study, decide, decide_rapid, holm
from headnb.experiments.fair.descriptive import concentration_rows, specificity_of, tuning_agreements
from headnb.experiments.fair.design import DESIGNS, Family
from headnb.experiments.fair.figures import composition_chart
from headnb.experiments.fair.results import (
    LONG,
    Compact,
    FairResults,
    compact_scores,
    grouped,
    half_times,
    read_long,
    read_tracked,
)
from headnb.experiments.fair.samples import BETWEEN, FairSamples
from headnb.experiments.fair.study import FairStudy
from headnb.experiments.folder import Run
from headnb.stats.rounding import interval_text
from headnb.storage.files import write_json
from headnb.suite.checks import check_suite
from headnb.suite.definition import read_suite
from headnb.suite.graph import build_graph
from headnb.suite.job import Session, run_node
from headnb.suite.notebooks import notebooks_folder
from scipy import stats

from simulated_compositions import TASKS, study
from simulated_finetuning import scores_of
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

REPLICATES = 5
LENGTHS = (20, 40, 80, 120, 200, 400)
FAMILY = Family("target", TASKS[1:3], TASKS[3:])
SETTINGS = {
    "design": "fair",
    "model": "tiny",
    "dtype": "float32",
    "n": 16,
    "n_beside": 4,
    "n_tracked": 4,
    "n_long": 8,
    "max_length": 60,
    "steps": 3,
    "batch_size": 2,
    "track_steps": [0, 1, 2, 3],
    "candidate_rates": [1e-3, 1e-4],
    "rate_task": "adding",
    "answers": 0,
    "save_every": 1,
    "full_rate": 5e-5,
}


def with_loss(pairs, loss):
    return [(before, after.assign(loss=("sample", np.full(32, loss)))) for before, after in pairs]


def simulated(world: str, *, runs: int = 3, seed: int = 1, learnt: bool = True, **options: float) -> Study:
    """A study in the registered form, whose losses say whether the tasks were learnt."""
    drawn = study(np.random.default_rng(seed), world, runs=runs, n=32, **options)
    own = {"target": drawn["target"], **drawn["basics"], **drawn["others"]}
    low, high = (1.0, 2.0) if learnt else (2.0, 1.0)
    return Study(
        FAMILY,
        {task: with_loss(pairs, low) for task, pairs in own.items()},
        {task: with_loss(pairs, high) for task, pairs in drawn["shuffled"].items()},
    )


class FixedEvidence(Study):
    """A study of which every condition of the rule is given."""

    def evidence(self, target="", level=0.95):
        true = self.conditions
        if target:
            return self.with_limits(true["positive"] if target == "plus" else true["negative"], True, True, True, level)
        return self.with_limits(*(true[name] for name in ("excess", "added", "beyond", "small")), level)

    def with_limits(self, excess, added, beyond, small, level):
        def limit(found, high=1.0):
            return Limit(0.1, 0.01 if found else -0.01, 0.001, high)

        reliability = 0.7 if self.conditions["reliable"] else 0.69
        gain = limit(True, 0.24 if small and level == 0.95 else 0.25)
        contributions = {"a": limit(True), "b": limit(added)}
        of_change = Comparison(gain, limit(excess), contributions, ("c", "d"), 2.0, reliability, level)
        return CompositionEvidence("target", ("a", "b"), of_change, dataclasses.replace(of_change, gain=limit(beyond)))


def test_verdicts_are_those_of_the_registered_table(monkeypatch):
    """Section 4 of docs/experiment.md, written again, for every combination of its conditions."""
    names = ("learnt", "reliable", "spike", "positive", "negative", "solved", "excess", "added", "beyond", "small")
    family = Family("target", ("a", "b"), ("minus", "c", "d"), positive="plus", negative="minus", least_match=0.5)
    tasks = ("target", "a", "b", "minus", "c", "d", "plus")

    def runs(*losses):
        return [(None, xr.Dataset({"loss": ("sample", [loss, loss])})) for loss in losses]

    for values in itertools.product([True, False], repeat=len(names)):
        true = dict(zip(names, values, strict=True))
        own = {task: runs(1.0, 1.0, 1.0 if true["learnt"] or task != "d" else 2.0) for task in tasks}
        matches = (0.9, 0.5 if true["solved"] else 0.49, 0.9)
        one = FixedEvidence(family, own, dict.fromkeys(tasks, runs(2.0, 2.0, 2.0)), matches)
        object.__setattr__(one, "conditions", true)
        monkeypatch.setattr(
            "headnb.experiments.fair.decision._spike_found", lambda *_, found=0.8 if true["spike"] else 0.775: found
        )
        valid = all(true[name] for name in names[:4]) and not true["negative"] and true["solved"]
        if not valid:
            expected = "not decidable"
        elif true["excess"] and true["added"]:
            expected = "composition" if true["beyond"] else "shared, perhaps format"
        else:
            expected = "absent" if true["small"] else "undecided"
        assert decide(one, level=0.975).verdict == expected, true


def test_a_composed_change_is_composition():
    decision = decide(simulated("composed"), replicates=REPLICATES)
    assert decision.verdict == "composition", decision
    assert decision.numbers["gain"]["low"] > 0
    assert decision.numbers["spike found"] >= 0.8


def test_the_figure_of_composition_shows_the_shares_that_the_rule_compares():
    decision = decide(simulated("composed"), replicates=REPLICATES)
    rows = dict(line.split(": ") for line in composition_chart(decision).words)
    assert list(rows) == ["gain", "excess", "gain beyond format", "added by a", "added by b"]
    for name, share in decision.shares.items():
        assert rows[name] == estimate_text(share["value"], share["low"], share["high"])
    assert composition_chart(decide(simulated("composed", runs=2))) is None


def test_independent_changes_are_absent():
    decision = decide(simulated("null"), replicates=REPLICATES)
    assert decision.verdict == "absent", decision
    assert decision.numbers["upper limit of the gain"] < ABSENT


def test_a_format_that_tasks_share_is_no_composition():
    assert decide(simulated("format"), replicates=REPLICATES).verdict not in {"composition", "absent"}


def test_two_runs_are_not_decidable():
    decision = decide(simulated("composed", runs=2), replicates=REPLICATES)
    assert decision.verdict == "not decidable"
    assert decision.reasons == ("fewer than 3 training runs of target (2), a (2), b (2), c (2), d (2), e (2)",)


@pytest.mark.parametrize(("exact_match", "failed"), [((0.04, 0.6), True), ((0.6, float("nan")), False), ((), False)])
def test_a_run_whose_target_is_not_solved_shows_that_more_runs_cannot_give_a_verdict(exact_match, failed):
    few = dataclasses.replace(
        simulated("composed", runs=2), family=dataclasses.replace(FAMILY, least_match=0.5), exact_match=exact_match
    )
    decision = decide(few, replicates=1)
    assert decision.verdict == "not decidable"
    expected = "In a finished run the exact match on target is 0.04, below 0.5, so more runs cannot give a verdict."
    assert (expected in decision.sentence) is failed


def test_a_run_that_did_not_learn_shows_that_more_runs_cannot_give_a_verdict():
    decision = decide(simulated("composed", runs=2, learnt=False), replicates=1)
    assert decision.verdict == "not decidable"
    assert decision.reasons[1].startswith("in a finished run the loss of ")
    assert decision.reasons[1].endswith("after training on shuffled answers, so more runs cannot give a verdict")


def test_tasks_that_are_not_learnt_are_not_decidable():
    decision = decide(simulated("composed", learnt=False), replicates=REPLICATES)
    assert decision.verdict == "not decidable"
    assert "is not lower than after training on shuffled answers" in decision.reasons[0]


@pytest.mark.parametrize("loss", [3.0, np.nan])
def test_every_task_must_be_learnt_in_every_run(loss):
    """Condition 2 has no exception: one run of an "other" task is enough, and an unknown loss is not a lower one."""
    one = simulated("composed")
    unlearnt = [*one.own["c"][:2], *with_loss(one.own["c"][2:], loss)]
    decision = decide(dataclasses.replace(one, own={**one.own, "c": unlearnt}), replicates=REPLICATES)
    assert decision.verdict == "not decidable"
    assert decision.reasons == ("the loss of c is not lower than after training on shuffled answers",)


def test_training_on_shuffled_answers_that_does_the_same_is_shared_perhaps_format():
    """AP(own) - AP(shuffled) is then only noise, which no power can be computed for."""
    one = simulated("composed")
    again = simulated("composed", run_noise=0.21)
    same = {task: with_loss(pairs, 2.0) for task, pairs in again.own.items()}
    decision = decide(dataclasses.replace(one, shuffled=same), replicates=REPLICATES)
    assert decision.verdict == "shared, perhaps format"


def test_the_limit_of_absent_is_at_95_percent_at_every_level():
    one = simulated("null")
    changes = {"target": one.own["target"], "basics": {name: one.own[name] for name in "ab"}}
    others = {name: one.own[name] for name in "cde"}
    gain = headnb.fit_combination(**changes, others=others, level=0.95).evidence.change.gain
    assert decide(one, level=0.975, replicates=REPLICATES).numbers["upper limit of the gain"] == pytest.approx(
        gain.high
    )


def test_noise_is_not_decidable():
    decision = decide(simulated("noise only", run_noise=0.4), replicates=REPLICATES)
    assert decision.verdict == "not decidable"
    assert any("residual reliability" in reason for reason in decision.reasons)


@pytest.mark.parametrize(("control", "world"), [("gsm8k+mbpp", "null"), ("boolq", "composed")])
def test_a_control_with_the_wrong_answer_is_not_decidable(control, world):
    """The positive control has an independent change, or the negative control the composed change of the target."""
    one = simulated("composed")
    source = one if world == "composed" else simulated(world)
    own, shuffled = (
        [(before.assign_attrs(task=control), after.assign_attrs(task=control)) for before, after in pairs]
        for pairs in (source.own["target"], source.shuffled["target"])
    )
    kind = "positive" if world == "null" else "negative"
    family = dataclasses.replace(FAMILY, **{kind: control})
    with_control = Study(family, {**one.own, control: own}, {**one.shuffled, control: shuffled})
    decision = decide(with_control, replicates=REPLICATES)
    assert decision.verdict == "not decidable"
    assert any(control in reason and "control" in reason for reason in decision.reasons)


def test_holm_judges_the_first_family_at_half_the_level():
    composed, null = simulated("composed"), simulated("null")
    assert holm([null], replicates=REPLICATES)[0].level == pytest.approx(0.975)
    first, second = holm([composed, null], replicates=REPLICATES)
    assert (first.level, second.level) == pytest.approx((0.975, 0.95))
    assert first.verdict == "composition"


@pytest.mark.parametrize(
    ("exact_match", "verdict"),
    [
        ((0.6, 0.5, 0.7), "composition"),
        ((0.6, 0.4, 0.7), "not decidable"),
        ((np.nan, 0.6, 0.7), "not decidable"),
        ((), "not decidable"),
    ],
)
def test_a_family_with_accuracy_judges_only_if_the_target_is_solved(exact_match, verdict):
    family = dataclasses.replace(FAMILY, least_match=0.5)
    solved = dataclasses.replace(simulated("composed"), family=family, exact_match=exact_match)
    assert decide(solved, replicates=REPLICATES).verdict == verdict


def rows(half, loss=50.0):
    return [{"length": length, "pattern": half(length), "loss": loss} for length in LENGTHS]


@pytest.mark.parametrize(
    ("half", "verdict"),
    [(lambda length: 5.0, "rapid"), (lambda length: length / 10, "not rapid"), (lambda length: 60.0, "not rapid")],
)
def test_rapid_needs_a_half_time_that_does_not_grow_and_is_earlier_than_the_losses(half, verdict):
    trainings = [rows(lambda length, noise=noise: noise * half(length)) for noise in (0.98, 1.0, 1.02)]
    assert decide_rapid(trainings, LENGTHS).verdict == verdict
    assert decide_rapid(trainings[:2], LENGTHS).verdict == "not decidable"


def test_slope_equals_the_exponent_of_a_power_law():
    trainings = [rows(lambda length, scale=scale: scale * length**0.3) for scale in (1.0, 1.1, 1.2)]
    assert decide_rapid(trainings, LENGTHS).slope == pytest.approx((0.3, 0.3, 0.3))


def test_limits_over_seeds_are_students():
    exponents = [0.1, 0.3, 0.35]
    found = decide_rapid([rows(lambda length, power=power: length**power) for power in exponents], LENGTHS)
    low, high = stats.t.interval(0.9, 2, np.mean(exponents), stats.sem(exponents))  # one-sided 95 %
    assert found.slope == pytest.approx((0.25, low, high))


def test_a_slope_needs_all_six_prefixes():
    """Unknown half-times of short prefixes would leave a slope of the long ones only."""
    trainings = [rows(lambda length: np.nan if length == 20 else 5.0)] * 3
    assert decide_rapid(trainings, LENGTHS).verdict == "not decidable"


def test_group_means_keep_mean_and_loss_and_are_stored_to_a_thousandth(tmp_path):
    levels = np.random.default_rng(0).lognormal(-6, 1, (32, 3, 4))
    losses = np.linspace(0.5, 2, 32)
    scores = scores_of(levels, "sums").assign(loss=("sample", losses))
    of_groups = grouped(scores)
    np.testing.assert_allclose(of_groups["score"].to_numpy(), levels.reshape(16, 2, 3, 4).mean(axis=1))
    results = FairResults(tmp_path)
    results.write("before", "sums", None, compact_scores(scores))
    stored = results.before("sums")
    np.testing.assert_allclose(stored["score"].mean("sample"), levels.mean(axis=0), rtol=1e-3)
    assert float(stored["loss"].mean()) == pytest.approx(losses.mean(), rel=1e-6)
    with pytest.raises(HeadnbError, match="30 samples cannot be split into 16 groups"):
        grouped(scores.isel(sample=slice(30)))


def test_verdict_from_compact_results_equals_that_from_grouped_scores(tmp_path):
    results = FairResults(tmp_path)
    whole = simulated("composed")
    kinds = {"own": whole.own, "shuffled": whole.shuffled}
    for kind, tasks in kinds.items():
        for task, pairs in tasks.items():
            for seed, (before, after) in enumerate(pairs):
                results.write(kind, task, seed, compact_scores(after))
                results.write("before", task, None, compact_scores(before.assign(loss=("sample", np.ones(32)))))

    def of(read):
        return Study(FAMILY, *({t: read(kind, t) for t in tasks} for kind, tasks in kinds.items()))

    from_files = decide(of(results.pairs), replicates=REPLICATES)

    def of_scores(kind, task):
        ones = ("sample", np.ones(32))
        return [(grouped(before.assign(loss=ones)), grouped(after)) for before, after in kinds[kind][task]]

    from_scores = decide(of(of_scores), replicates=REPLICATES)
    assert from_files.verdict == from_scores.verdict == "composition"
    for name in ("gain", "excess", "gain beyond format"):
        assert from_files.numbers[name] == pytest.approx(from_scores.numbers[name], abs=2e-3)


@pytest.fixture
def tasks(tmp_path, monkeypatch) -> Path:
    """Three tasks in HEADNB_DATA: sums, a second one, and one with some samples that are too long."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split, start in (("train", 0), ("test", 100)):
        for name, sign in (("adding", "+"), ("taking", "-")):
            add = 1 if sign == "+" else -1
            lines = [{"prompt": f"{i} {sign} 1 = ", "completion": str(i + add)} for i in range(start, start + 60)]
            lines += [{"prompt": "x " * 60, "completion": f"{i}"} for i in range(start, start + 5)]
            (folder / f"{name}.{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setenv("HEADNB_DATA", str(folder))
    return folder


def test_whole_samples_only_and_combined_tasks_use_other_test_samples(tasks):
    samples = FairSamples(tiny_tokenizer(), 60, 32, 16)
    scored = samples.scored("adding")
    assert len(scored) == 32
    assert not any("x x" in sample.prompt for sample in samples.training("adding").samples)
    pairs = samples.scored("adding+taking")
    assert len(pairs) == 16  # 28 remain of each; a multiple of 16
    used = {sample.prompt for sample in scored.samples} | {s.prompt for s in samples.scored("taking").samples}
    for sample in pairs.samples:
        first, second = sample.prompt.split(BETWEEN)
        assert "+" in first
        assert "-" in second
        assert not used & {first, second}
        answers = sample.completion.split(BETWEEN)
        assert answers == [str(int(first.split()[0]) + 1), str(int(second.split()[0]) - 1)]
    union = samples.training("adding_or_taking")
    assert len(union) == 120
    few = FairSamples(tiny_tokenizer(), 60, 16, 16)
    assert not {s.prompt for s in few.held_out("adding").samples} & {s.prompt for s in few.scored("adding").samples}


@pytest.fixture
def fair_run(tasks, tmp_path, monkeypatch) -> FairStudy:
    monkeypatch.setattr("headnb.models.loading.load_model", lambda *a, **k: (tiny_model(), tiny_tokenizer()))
    return FairStudy(str(tmp_path / "run"), str(tmp_path / "results"), tasks=["adding", "taking"], **SETTINGS)


def test_a_training_is_reduced_and_not_repeated(fair_run, tmp_path, monkeypatch):
    assert fair_run.missing("adding", 0) == ["own", "shuffled"]
    for kind in fair_run.missing("adding", 0):
        fair_run.train(kind, "adding", 0)
    assert fair_run.missing("adding", 0) == []
    rate = json.loads((tmp_path / "results" / "rate.json").read_text())
    assert rate["rate"] == min(SETTINGS["candidate_rates"], key=lambda one: rate["losses"][str(one)])

    results, run = fair_run.compact, Run(tmp_path / "run")
    after = run.after("adding", 0, "adding")
    expected = np.abs(after["score"].to_numpy().astype(float)).mean(axis=0)
    np.testing.assert_allclose(results.after("own", "adding", 0)["score"].mean("sample"), expected, rtol=1e-3)
    loss = float(results.after("own", "adding", 0)["loss"].mean())
    assert loss == pytest.approx(float(after["loss"].mean()), rel=1e-5)
    beside = run.after("adding", 0, "taking")
    np.testing.assert_allclose(
        results.beside("adding", 0, "taking")["score"].mean("sample"),
        np.abs(beside["score"].to_numpy().astype(float)).mean(axis=0),
        rtol=1e-3,
    )
    meta = results.meta("own", "adding", 0)
    assert meta["tracked_steps"] == SETTINGS["track_steps"]
    assert len(meta["tracked_loss"]) == 4
    assert all(path.stat().st_size < 20_000 for path in results.folder.rglob("*.npz"))

    again = FairResults(tmp_path / "again")
    fair_study.reduce_run(run, again, SETTINGS["steps"], report=lambda line: None)
    with pytest.raises(HeadnbError, match="has 3 steps, and the trainings of this study have 40"):
        fair_study.reduce_run(run, FairResults(tmp_path / "other"), 40)
    with pytest.raises(HeadnbError, match="has 3 steps, and the trainings of this study have 120"):
        fair.judge(results.folder, DESIGNS["fair"])
    for path in results.folder.rglob("*.npz"):
        with np.load(path) as one, np.load(again.folder / path.relative_to(results.folder)) as other:
            assert all(np.array_equal(one[name], other[name]) for name in one.files)

    elsewhere = dataclasses.replace(fair_run, run_folder=str(tmp_path / "gone"))  # the machine went away
    monkeypatch.setattr("headnb.models.loading.load_model", lambda *a, **k: pytest.fail("loads a model"))
    assert elsewhere.missing("adding", 0) == []
    assert elsewhere.learning_rate() == rate["rate"]


def test_a_training_without_tracked_samples_and_other_tasks_has_the_scores_of_its_task(fair_run, tmp_path):
    """The form of the small study."""
    small = dataclasses.replace(fair_run, n_beside=0, n_tracked=0, candidate_rates=[1e-3])
    small.train("own", "adding", 0)
    meta = small.compact.meta("own", "adding", 0)
    assert meta["evaluated"] == []
    assert "tracked_steps" not in meta
    expected = np.abs(Run(tmp_path / "run").after("adding", 0, "adding")["score"].to_numpy().astype(float)).mean(axis=0)
    np.testing.assert_allclose(small.compact.after("own", "adding", 0)["score"].mean("sample"), expected, rtol=1e-3)


def test_long_trainings_of_both_kinds_keep_what_was_tracked_and_are_not_repeated(fair_run, monkeypatch):
    design = dataclasses.replace(DESIGNS["fair"], prefixes=(2, 3), tunings=("lora", "full"))
    monkeypatch.setitem(fair_study.DESIGNS, "fair", design)
    study = dataclasses.replace(fair_run, answers=4)
    monkeypatch.setattr(FairStudy, "learning_rate", lambda self: 1e-3)
    monkeypatch.setattr(FairStudy, "_compares_answers", lambda self, task: True)  # also those of an unknown task
    study.train_long("adding", 0)
    results, kinds = study.compact, ("lora", "full")
    for tuning in kinds:
        tracked = read_tracked(results, "adding", 0, tuning)
        assert tracked["step"] == [0, 1, 2, 3]
        assert len(tracked["exact_match"]) == 4
        assert tracked["loss"][-1] < tracked["loss"][0]
        assert [row["length"] for row in read_long(results, "adding", 0, tuning)] == [2, 3]
    lora, full = (results.long_levels(tuning, "adding", 0) for tuning in kinds)
    scored = headnb.load_task(study.samples.scored("adding"), n=8, seed=0)
    before = grouped(headnb.score_heads(tiny_model(), tiny_tokenizer(), scored), 8)["score"]
    for levels in (lora, full):  # full fine-tuning began with the base model's weights too
        np.testing.assert_allclose(levels[0], before, rtol=1e-3, atol=1e-6)
    assert not np.allclose(lora[-1], full[-1], rtol=1e-3)
    monkeypatch.setattr(FairStudy, "_finetune", None)
    study.train_long("adding", 0)


def test_agreement_of_two_kinds_of_tuning_is_the_correlation_of_their_true_changes(tmp_path):
    """Changes with a correlation of 0.6 between the kinds and 1 within, under noise of samples that runs share."""
    rng, results, shape = np.random.default_rng(0), FairResults(tmp_path), (30, 9)
    first, second = np.linalg.qr(rng.normal(size=(270, 3)) - np.eye(1, 3))[0].T[:2]
    first, second = (direction - direction.mean() for direction in (first, second))
    of_kind = {"lora": first, "full": 0.6 * first + 0.8 * second}
    shared = rng.normal(scale=0.02, size=(8, *shape))
    for kind, direction in of_kind.items():
        for seed in range(2):
            change = direction.reshape(shape) + rng.normal(scale=0.02, size=(8, *shape))
            levels = 1 + shared + np.array([np.zeros((8, *shape)), change])
            written = Compact({"level": levels, "scale": np.array(1.0)})
            results.write(LONG[kind], "sums", seed, written)
            write_json(results.path(LONG[kind], "sums", seed), {"prefixes": [], "tracked": {"step": [0, 40]}})
    (found,) = tuning_agreements(results, "sums")
    assert found.step == 40
    assert (len(found.lora), len(found.full), len(found.across)) == (1, 1, 4)
    truth = np.corrcoef(of_kind["lora"], of_kind["full"])[0, 1]
    np.testing.assert_allclose(found.across, truth, atol=0.06)
    np.testing.assert_allclose([*found.lora, *found.full], 1, atol=0.06)
    of_means = [results.long_levels(kind, "sums", 0)[1].mean(axis=0).ravel() for kind in ("lora", "full")]
    assert np.corrcoef(*of_means)[0, 1] < truth + 0.05


@pytest.mark.parametrize("name", DESIGNS)
def test_the_profile_of_a_design_trains_its_tasks(name):
    """The suite's profile and the rule that judges its results name the same tasks and trainings."""
    suite = read_suite(notebooks_folder() / "suite.yaml", name)
    family = DESIGNS[name].families[0]
    assert set(suite.profile.tasks) == set(family.tasks)
    assert suite.profile.compositions == {family.target: list(family.basics)}
    assert suite.profile.parameters.get("design", "fair") == name


def test_a_rate_whose_training_diverges_is_not_chosen(fair_run, monkeypatch):
    losses = {1e-3: np.nan, 1e-4: 2.0}
    monkeypatch.setattr(FairStudy, "_held_out_loss", lambda self, rate: losses[rate])
    assert fair_run.learning_rate() == 1e-4
    page = fair_run.compact.folder / "page.md"
    fair.judge(page.parent, DESIGNS["fair"], page)
    chosen = "Learning rate: 0.0001 (held-out loss of adding: – at 0.001, 2.000 at 0.0001)"
    assert chosen in page.read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.usefixtures("forked_kernels")
def test_notebooks_write_compact_results_and_do_not_repeat_them(tasks, tmp_path):
    model, results = tmp_path / "tiny", tmp_path / "results"
    tiny_model().save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    settings = SETTINGS | {"models": [str(model)], "tasks": ["adding", "taking"], "seeds": [0], "save_every": 100}
    settings |= {"compositions": {"adding": ["taking"]}, "results": str(results), "candidate_rates": [1e-3]}
    suite = read_suite(notebooks_folder() / "suite.yaml", "fair", {k: v for k, v in settings.items() if k != "model"})

    def run(out: Path) -> list[str]:
        nodes, ended = build_graph(*check_suite(suite), out), {}
        for node in nodes:
            ended[node.name] = run_node(node, Session("test"), *(ended[needed.name] for needed in node.after))
        assert all(outcome.state == "done" for outcome in ended.values()), ended
        return list(ended)

    assert run(tmp_path / "one") == ["fair seed 0 adding", "fair seed 0 taking", "fair_timing seed 0 adding"]
    written = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}
    assert len(written) == 9  # the rate; before, own and shuffled of two tasks; two files of one long training
    run(tmp_path / "another")
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert not list((tmp_path / "another").rglob("*.zarr"))


def test_judge_says_what_is_missing(tmp_path):
    results = FairResults(tmp_path)
    text = fair.judge(tmp_path, DESIGNS["fair"], tmp_path / "page.md")
    assert text.startswith(
        "mathqa_python: Composition: not decidable. Fewer than 3 training runs of mathqa_python (0), gsm8k (0)"
    )
    assert "Rapid change: not decidable (0 long trainings)." in text
    assert json.loads((tmp_path / "judgement.json").read_text())["composition"]["lcm"]["verdict"] == "not decidable"
    page = (tmp_path / "page.md").read_text()
    assert "0 of 24 trainings on own answers" in page
    assert "mathqa_python (3 and 3), gsm8k (3 and 3)" in page
    assert "No task has been scored yet." in page
    write_json(results.path("long", "mathqa_python", 0), {"prefixes": rows(lambda length: 5.0)})
    assert read_long(results, "mathqa_python", 0)[0] == {"length": 20, "pattern": 5.0, "loss": 50.0}
    scores = scores_of(np.full((32, 2, 3), 0.1), "mbpp").assign(loss=("sample", np.full(32, 1.25)))
    for kind, seed in (("before", None), ("own", 0), ("shuffled", 0)):
        results.write(kind, "mbpp", seed, compact_scores(scores))
    fair.judge(tmp_path, DESIGNS["fair"], tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "1 of 24 trainings on own answers, 1 of 24 on shuffled answers, 1 of 3 long trainings" in page
    assert "| mbpp | 1.250 | 1.250 | 1.250 |  |" in page
    assert "| 0 | 400 | 5.00 | 50.00 |" in page
    assert "(pictures/fair_half-times.svg)" in page
    assert "(pictures/fair_concentration.svg)" in page
    assert "composition.svg" not in page  # without a number
    picture = (tmp_path / "pictures" / "fair_half-times.svg").read_text(encoding="utf-8")
    assert "pattern" in picture
    assert "loss" in picture
    with pytest.raises(HeadnbError, match="run the suite with the profile of this study"):
        results.before("gsm8k")


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"PK" + content[:9]])
def test_a_damaged_compact_result_is_one_line_that_names_the_file(tmp_path, damage):
    results = FairResults(tmp_path)
    scores = scores_of(np.full((32, 2, 3), 0.1)).assign(loss=("sample", np.ones(32)))
    path = results.write("before", "sums", None, compact_scores(scores))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(HeadnbError, match=r"sums\.npz is damaged"):
        results.before("sums")


def test_half_times_of_prefixes_are_those_of_exponential_approaches():
    """The pattern and the loss approach their ends with the time constants 30 and 90; a prefix ends earlier."""
    steps = np.array([0, 1, 2, 5, 10, 20, 40, 80, 120, 200, 400])
    rng = np.random.default_rng(0)
    first, last = (shape / shape.mean() for shape in rng.gamma(3, size=(2, 3, 4)))
    done = 1 - np.exp(-steps / 30)
    levels = (first + done[:, None, None] * (last - first)) * rng.uniform(1, 2, len(steps))[:, None, None]
    of_task = xr.Dataset(
        {"score": (("step", "sample", "layer", "head"), np.repeat(levels[:, None], 8, axis=1))},
        {"step": steps, "sample": range(8), "layer": range(3), "head": range(4)},
        scores_of(levels[:1]).attrs,
    )
    study = of_task["score"].mean("sample").expand_dims(task=["sums"]).transpose("step", ...).to_dataset(name="level")
    study["eval_loss"] = (("step", "task"), 1 + np.exp(-steps / 90)[:, None])
    found = half_times(SimpleNamespace(study=study, scores={"sums": of_task}), "sums", LENGTHS)
    assert [row["length"] for row in found] == [20, 40, 80, 120, 200, 400]
    for row in found:
        for name, constant in (("pattern", 30), ("loss", 90)):
            half = -constant * np.log((1 + np.exp(-row["length"] / constant)) / 2)
            assert row[name] == pytest.approx(half, rel=0.03), row


def gini(levels):
    """Half the mean absolute difference over the mean."""
    flat = np.ravel(levels)
    return np.abs(flat[:, None] - flat).mean() / 2 / flat.mean()


@pytest.fixture
def described(tmp_path):
    """Noise-free levels of two tasks: (kind, task, seed) -> levels (2, 3); seed None: the base model."""
    rng = np.random.default_rng(0)
    tasks = ("mathqa_python", "boolq")
    keys = [("before", task, None) for task in tasks]
    keys += [(kind, task, seed) for kind in ("own", "shuffled") for task in tasks for seed in range(3)]
    keys += [("beside", task, seed) for task in tasks for seed in range(3)]
    levels = {key: rng.gamma(3, size=(2, 3)) for key in keys}

    def scores(key, task, n):
        return scores_of(np.repeat(levels[key][None], n, axis=0), task).assign(loss=("sample", np.ones(n)))

    results = FairResults(tmp_path)
    for key in keys:
        kind, task, seed = key
        if kind != "beside":
            of_groups = compact_scores(scores(key, task, 96))
            arrays, meta = dict(of_groups.arrays), dict(of_groups.meta)
            if kind == "own":
                other = next(name for name in tasks if name != task)
                beside = compact_scores(scores(("beside", task, seed), other, 16))
                arrays |= {
                    "beside_level": beside.arrays["level"][None, :2],
                    "beside_scale": beside.arrays["scale"][None],
                }
                arrays |= {"beside_loss": beside.arrays["loss"][None, :2]}
                meta["evaluated"] = [other]
            results.write(kind, task, seed, Compact(arrays, meta))
    return results, levels


def test_concentration_is_that_of_the_patterns_and_its_difference_is_paired_by_seed(described):
    results, levels = described
    rows = {(row[0], row[1]): row[2:] for row in concentration_rows(results, ("mathqa_python", "mbpp", "boolq"))}
    assert set(rows) == {(task, name) for task in ("mathqa_python", "boolq") for name in ("gini", "cv", "kurtosis")}
    own, shuffled = (np.array([gini(levels[kind, "boolq", seed]) for seed in range(3)]) for kind in ("own", "shuffled"))
    first = gini(levels["before", "boolq", None])
    found = [float(cell.split(" [")[0].replace("−", "-")) for cell in rows["boolq", "gini"]]
    expected = (first, own.mean() - first, shuffled.mean() - first, (own - shuffled).mean())
    np.testing.assert_allclose(found, expected, atol=0.006)
    ends = stats.t.interval(0.95, 2, (own - shuffled).mean(), stats.sem(own - shuffled))
    assert rows["boolq", "gini"][3] == interval_text((own - shuffled).mean(), *ends)


def test_specificity_compares_all_models_on_the_first_samples_of_each_task(described):
    results, levels = described
    found = specificity_of(results, ("mathqa_python", "mbpp", "boolq")).change["value"]

    def relative(after, before):
        after, before = (np.mean([x / x.mean() for x in some], axis=0).ravel() for some in (after, [before]))
        return np.linalg.norm(after - before) / np.linalg.norm(before - before.mean())

    for train, evaluated, kind in (("boolq", "boolq", "own"), ("mathqa_python", "boolq", "beside")):
        after = [levels[kind, train, seed] for seed in range(3)]
        expected = relative(after, levels["before", "boolq", None])
        assert float(found.sel(train=train, eval=evaluated)) == pytest.approx(expected, rel=2e-3)
    assert specificity_of(results, ("boolq",)) is None
