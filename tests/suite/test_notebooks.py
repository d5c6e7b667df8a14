"""The notebooks of the suite on a tiny model, run in the suite's order: each reads the results of earlier ones."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import nbformat
import numpy as np
import pytest
from headnb.analysis.cka import cka
from headnb.experiments.folder import Run
from headnb.experiments.layers import layers_of, representations
from headnb.experiments.mixtures import mixture_results
from headnb.suite import records
from headnb.suite.checks import check_suite
from headnb.suite.definition import read_suite
from headnb.suite.graph import build_graph
from headnb.suite.job import Outcome, Session, run_node
from headnb.suite.notebooks import notebooks_folder
from headnb.tuning.result import open_study

from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from headnb.suite.graph import Node

pytestmark = pytest.mark.long

SETTINGS = {
    "tasks": ["gcd", "lcm"],
    "seeds": [0],
    "compositions": {"lcm": ["gcd"]},
    "without": ["fair", "fair_timing"],  # tests/experiments/test_fair.py
    "n": 8,
    "n_beside": 5,
    "max_length": 256,
    "steps": 3,
    "first_steps": 2,
    "batch_size": 2,
    "track_steps": [0, 1, 2],
    "answers": 2,
    "max_new_tokens": 3,
    "pool_samples": 6,
    "target_samples": 3,
    "selected_ks": [2, 4],
    "tuned_ks": [4],
    "tuned_ways": ["pattern", "random"],
    "trained_on": ["gcd"],
    "heads_trained": 2,
    "choosing_samples": 4,
    "tested_samples": 3,
    "compared": ["gcd"],
    "methods": ["activation", "ablate-zero", "attattr"],
    "options": {"attattr": {"steps": 2}},
    "ks": [1, 3],
    "draws": 2,
}
APPLICATIONS = ("Mixture for lcm", "Continual learning")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, forked_kernels: None) -> tuple[Run, list[Node], dict[str, Outcome]]:
    folder = tmp_path_factory.mktemp("suite")
    tiny_model().save_pretrained(folder / "tiny")
    tiny_tokenizer().save_pretrained(folder / "tiny")
    suite = read_suite(notebooks_folder() / "suite.yaml", "demo", {"models": [str(folder / "tiny")], **SETTINGS})
    nodes = build_graph(*check_suite(suite), folder / "out")
    outcomes: dict[str, Outcome] = {}
    for node in nodes:
        outcomes[node.name] = run_node(node, Session("test"), *(outcomes[needed.name] for needed in node.after))
    return Run(nodes[0].run), nodes, outcomes


def test_every_notebook_runs_and_says_something_of_its_results(
    ran: tuple[Run, list[Node], dict[str, Outcome]],
) -> None:
    _, nodes, outcomes = ran
    assert {name: outcome.error for name, outcome in outcomes.items() if outcome.state != "done"} == {}
    for node in nodes:
        cells = [cell for cell in nbformat.read(records.executed_path(node), as_version=4).cells if "outputs" in cell]
        texts = [
            output.data["text/markdown"]
            for cell in cells
            for output in cell.outputs
            if "text/markdown" in output.get("data", {})
        ]
        assert texts, node.name
        assert any(re.search(r"\d", text) for text in texts), node.name


def test_the_run_folder_holds_what_the_notebooks_found(ran: tuple[Run, list[Node], dict[str, Outcome]]) -> None:
    run, *_ = ran
    assert run.trained == {"gcd": (0,), "lcm": (0,)}
    result = run.result("lcm", 0)
    before, after = run.before("gcd"), run.after("lcm", 0, "gcd")
    assert result["loss"]["gcd"]["before"] == pytest.approx(float(before.loss.sel(sample=after.sample).mean()))
    assert result["loss"]["gcd"]["after"] == pytest.approx(float(after.loss.mean()))
    tracked = run.tuned("lcm", 0).scores["lcm"]
    own = run.after("lcm", 0, "lcm")
    assert (own.sizes["sample"], after.sizes["sample"], tracked.sizes["sample"]) == (8, 5, 5)
    np.testing.assert_allclose(tracked.score.isel(step=-1), own.score.sel(sample=tracked.sample), rtol=1e-3, atol=1e-7)
    assert list(tracked["step"].values) == [0, 1, 2, 3]
    fit = run.findings.numbers("composition")["lcm"]["dAP"]
    assert fit["target"] == "lcm"
    assert "shuffled answers" in [row["null"] for row in fit["nulls"]]
    assert "at least 3 training runs of each task" in fit["verdict"]
    assert {one["task"] for one in run.findings.numbers("rapid_change")["runs"]} == {"gcd", "lcm"}
    assert not list(run.folder.rglob("trainer"))


def test_methods_share_the_runs_samples_and_heads_are_chosen_and_ablated_on_different_samples(
    ran: tuple[Run, list[Node], dict[str, Outcome]],
) -> None:
    run, *_ = ran
    found, arrays = run.findings.numbers("methods_agree"), run.findings.arrays("methods_agree")
    assert arrays["correlation"].dims == ("task", "measure", "other_measure")
    assert arrays["measure"].values.tolist() == SETTINGS["methods"]
    deletion = found["deletion"]["gcd"]
    assert (deletion["samples"], deletion["chosen_on"]) == (4, 4)
    top = arrays["difference"].sel(task="gcd", less_random="top", replacement="zero", k=3)
    (row,) = (one for one in deletion["rows"] if (one["replacement"], one["k"]) == ("zero", 3))
    assert float(top) == pytest.approx(row["top - random"])


def test_layers_are_compared_before_and_after_each_fine_tuning(
    ran: tuple[Run, list[Node], dict[str, Outcome]],
) -> None:
    run, *_ = ran
    found = run.findings.numbers("layers")
    assert [row["task"] for row in found["tasks"]] == ["gcd", "lcm"]
    assert (found["samples"], found["runs"]) == (8, 2)
    of_tasks = []
    for task in run.trained:
        before, after = representations(run, task), representations(run, task, 0)
        np.testing.assert_array_equal(before["fingerprint"], run.before(task)["fingerprint"])
        of_tasks.append(cka(before["gram"].values, after["gram"].values).full)
    np.testing.assert_allclose(np.diag(layers_of(run).across), np.mean(of_tasks, axis=0), rtol=1e-6)


def test_shuffled_answers_train_the_same_prompts_and_score_the_tasks_own_samples(
    ran: tuple[Run, list[Node], dict[str, Outcome]],
) -> None:
    run, *_ = ran
    own = run.samples.training("lcm", 0, 6)
    fingerprint = own.with_shuffled_answers(0).fingerprint()
    folder = run.paths.shuffled("lcm", 0)
    assert open_study(folder).study.attrs["trained_on_fingerprint"] == fingerprint != own.fingerprint()
    ((before, after),) = run.shuffled_pairs("lcm")
    np.testing.assert_array_equal(after.fingerprint, before.fingerprint)
    assert (after.score != run.after("lcm", 0, "lcm").score).any()
    result = json.loads((folder / "result.json").read_text())
    assert result["loss"] == {"before": pytest.approx(float(before.loss.mean())), "after": float(after.loss.mean())}
    assert len(run.shuffled_pairs("gcd")) == 1
    seeds = {task: open_study(run.paths.finetuning(task, 0)).study.attrs["seed"] for task in ("gcd", "lcm")}
    assert seeds["gcd"] != seeds["lcm"] == open_study(folder).study.attrs["seed"]


def test_instruction_selection_is_tested_on_samples_outside_the_target(
    ran: tuple[Run, list[Node], dict[str, Outcome]],
) -> None:
    run, *_ = ran
    arrays = run.findings.arrays("instruction_selection")
    assert list(arrays["way"].values) == ["pattern", "gradient-free", "tfidf", "random"]
    assert np.isin(arrays["precision"].sel(way="tfidf", k=4) * 4, range(5)).all()
    target = run.samples.scored("lcm", 3).ids
    held_out = [key for key in run.samples.scored("lcm").ids if key not in target]
    np.testing.assert_allclose(
        arrays["loss_before"].sel(target="lcm"), run.before("lcm")["loss"].sel(sample=held_out), rtol=1e-4
    )
    assert (arrays["loss"] != arrays["loss_before"]).all()
    assert run.findings.numbers("instruction_selection")["seeds"] == 1


def test_selective_tuning_compares_all_methods_on_the_same_samples(
    ran: tuple[Run, list[Node], dict[str, Outcome]],
) -> None:
    run, *_ = ran
    arrays = run.findings.arrays("selective_tuning")
    assert dict(arrays["loss"].sizes) == {"way": 4, "trained": 1, "seed": 1, "evaluated": 2, "sample": 3}
    ids = list(run.samples.scored("lcm", 3).ids)
    np.testing.assert_allclose(
        arrays["loss_before"].sel(evaluated="lcm"), run.before("lcm")["loss"].sel(sample=ids), rtol=1e-4
    )
    share = arrays["parameters"].to_series()
    assert 0 < share["top heads"] < share["all weights"] == 1
    assert (arrays["loss"] != arrays["loss_before"]).all()


def test_mixtures_train_first_and_are_compared_on_the_targets_own_samples(
    ran: tuple[Run, list[Node], dict[str, Outcome]],
) -> None:
    run, *_ = ran
    found = run.findings.numbers("mixture")["lcm"]
    losses = {row["way"]: row["value"] for row in found["loss"]}
    assert {"base", "plain", "random", "uniform", "single"} <= losses.keys()
    assert losses["base"] == pytest.approx(float(run.before("lcm").loss.mean()))
    assert losses["plain"] == pytest.approx(float(run.after("lcm", 0, "lcm").loss.mean()))
    assert losses["uniform"] != losses["plain"]
    assert losses["uniform"] == pytest.approx(losses["single"])  # with one basic task, both have the same samples
    assert (found["samples"], found["runs"], found["asked"]) == (8, 1, 2)
    (result,) = mixture_results(run, "lcm").values()
    assert result["counts"]["uniform"] == {"gcd": 4}


def test_continual_learning_starts_from_the_base_model_and_reports_backward_transfer(
    ran: tuple[Run, list[Node], dict[str, Outcome]],
) -> None:
    run, *_ = ran
    found = run.findings.numbers("continual")
    losses = {(row["stage"], row["task"]): row["value"] for row in found["loss"]}
    shared = run.after("gcd", 0, "lcm")["sample"]
    assert losses["before", "lcm"] == pytest.approx(float(run.before("lcm").loss.sel(sample=shared).mean()))
    # The first task is learned from the base model, as in notebook 02.
    assert losses["after gcd", "lcm"] == pytest.approx(float(run.after("gcd", 0, "lcm").loss.mean()), rel=1e-4)
    assert losses["after lcm", "lcm"] != pytest.approx(float(run.after("lcm", 0, "lcm").loss.mean()), rel=1e-4)
    assert found["transfer"]["value"] == pytest.approx(losses["after gcd", "gcd"] - losses["after lcm", "gcd"])


def test_the_report_has_versions_seeds_and_commit(ran: tuple[Run, list[Node], dict[str, Outcome]]) -> None:
    run, nodes, _ = ran
    page = (run.folder / "report.html").read_text()
    versions = records.read_manifest(nodes[0])["versions"]
    assert f"<dt>trl</dt><dd>{versions['trl']}</dd>" in page
    assert "<dt>training seeds</dt><dd>0</dd>" in page
    root = notebooks_folder().parent
    if (root / ".git").exists():
        head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        assert versions["commit"].removesuffix("-dirty") == head.stdout.strip()
        assert f"<dt>commit</dt><dd>{versions['commit']}</dd>" in page


def test_the_report_has_a_section_for_every_question(ran: tuple[Run, list[Node], dict[str, Outcome]]) -> None:
    run, *_ = ran
    page = (run.folder / "report.html").read_text()
    for title in (
        "Concentration",
        "Specificity",
        "Composition of lcm",
        "Rapid change",
        "Instruction selection",
        "Selective tuning",
        "Methods",
        "Layers",
        *APPLICATIONS,
    ):
        assert f">{title}</h2>" in page
    rows = run.findings.numbers("selectivity")["selectivity"]["concentration"]
    gini = {(row["task"], row["stage"]): row["value"] for row in rows if row["statistic"] == "gini"}
    known = [task for task in run.trained if None not in (gini[task, "before"], gini[task, "after"])]
    means = [np.mean([gini[task, stage] for task in known]) for stage in ("before", "after")]
    assert f"{means[0]:.2f} → {means[1]:.2f}" in page
    assert "0.50 → 0.33 (Llama3-8B)" in page


def test_training_samples_exclude_the_scored_samples(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{i}", "completion": "x"}) + "\n" for i in range(20)))
    from headnb.experiments.folder import Settings

    run = Run.create(tmp_path / "run", Settings("tiny", (str(file),), n=8))
    scored = {sample.prompt for sample in run.samples.scored(str(file)).samples}
    trained = {sample.prompt for sample in run.samples.training(str(file), seed=0, n=100).samples}
    assert (len(scored), len(trained), scored & trained) == (8, 12, set())
