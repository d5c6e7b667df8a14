"""Several methods in one call: the numbers of each method alone, from shared passes."""

from __future__ import annotations

import itertools
import shutil

import headnb
import numpy as np
import pytest
import torch
from headnb import HeadnbError, open_scores, score_heads
from headnb.display.grid import HeadGrid
from headnb.engine.batching import collate, pack
from headnb.notebook.shared_options import method_names, method_options
from headnb.scoring import one_pass
from headnb.scoring.progress import ScoringInterrupted
from headnb.scoring.scorers import Scorers, make_scorers
from headnb.storage.method_results import MethodResults

from architectures import build
from random_samples import random_samples, token_task
from scoring_samples import BUDGET, TASK, same_scores, stop_after
from tiny import tiny_model

# One method for each kind of reading, two that share a quantity, and two with passes of their own.
SHARED = ("activation", "taylor-token", "output-norm", "first-token", "entropy")
METHODS = (*SHARED, "ablate-mean", "attattr")
OPTIONS = {"attattr": {"steps": 2}}
COMBINATIONS = [names for size in range(2, 6) for names in itertools.combinations(SHARED, size)]
# Grouped heads, fused projections, sliding windows with soft caps, sinks with experts, latent values, another layout.
ARCHITECTURES = ("llama", "phi3", "gemma2", "gpt_oss", "deepseek_v3", "gpt2")


def same(found, expected):
    return np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_every_combination_has_the_bits_of_each_method_alone(name, dtype):
    scorers = make_scorers(build(name, dtype), {method: {} for method in SHARED})
    samples = random_samples((6, 11, 8))
    usual = pack(samples) if scorers.supports_packing else collate(samples)
    others = [(collate(samples), None), (collate(samples, side="left"), None), (usual, 1)]  # 1: layers are recomputed
    for batch, budget, combinations in [(usual, None, COMBINATIONS), *((*other, [SHARED]) for other in others)]:
        alone = {method: scorer(batch, budget=budget) for method, scorer in scorers.by_method.items()}
        for names in combinations:
            found, losses = scorers.only(names)(batch, budget=budget)
            for method in names:
                assert same(found[method], alone[method][0]), (names, method)
                assert torch.equal(losses, alone[method][1]), (names, method)


def test_methods_of_a_quantized_model_have_their_bits(tmp_path):
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    tiny_model(hidden=128).save_pretrained(tmp_path)
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config, device_map="cpu")
    found = score_heads(model, None, TASK[:6], method=list(SHARED))
    for method, scores in found.items():
        assert same_scores(scores, score_heads(model, None, TASK[:6], method=method)), method


@pytest.mark.parametrize("how", [{}, {"packed": False}, {"padding_side": "left"}, {"max_length": 12, "seed": 3}])
def test_each_result_is_that_of_a_call_of_its_own(model, how):
    how = {"batch_tokens": BUDGET, **how}
    found = score_heads(model, None, TASK[:12], method=METHODS, options=OPTIONS, **how)
    assert list(found) == list(METHODS)
    for method in METHODS:
        alone = score_heads(model, None, TASK[:12], method=method, options=OPTIONS.get(method), **how)
        assert same_scores(found[method], alone), method
        assert {**found[method].attrs, "created": ""} == {**alone.attrs, "created": ""}


def test_methods_share_one_pass(model, monkeypatch):
    passes = []
    run_pass = one_pass.run_pass
    monkeypatch.setattr(one_pass, "run_pass", lambda *args, **how: passes.append(args[0]) or run_pass(*args, **how))
    score_heads(model, None, TASK, method=SHARED, batch_tokens=BUDGET)
    several = [len(scorers) for scorers in passes]
    passes.clear()
    score_heads(model, None, TASK, batch_tokens=BUDGET)
    assert several == [len(SHARED)] * len(passes)


def test_a_quantity_of_several_methods_is_measured_once(model):
    scorers = make_scorers(model, {name: {} for name in ("value-norm", "value-norm-ln", "value-norm-first")})
    counted = []
    recorder = scorers.by_method["value-norm"].recorder

    def measure(*seen):
        counted.append(seen)
        return recorder.measure(*seen)

    changed = {
        name: one_pass.PassScorer(
            of.model, of.layout, of.loss_computer, one_pass.Recorder("call", measure, of.recorder.score)
        )
        for name, of in scorers.by_method.items()
    }
    Scorers(changed)(collate(random_samples((6, 8))))
    assert len(counted) == len(scorers.layout.heads)


def test_all_methods_stop_when_the_last_is_precise_enough(model):
    task = TASK * 5
    how = {"batch_tokens": BUDGET, "until": 0.1, "packed": True}
    alone = {method: score_heads(model, None, task, method=method, **how) for method in ("activation", "entropy")}
    found = score_heads(model, None, task, method=list(alone), **how)
    sizes = {method: scores.sizes["sample"] for method, scores in alone.items()}
    assert sizes["entropy"] < sizes["activation"] < len(task)  # else the test proves nothing
    for method, scores in found.items():
        assert scores.sizes["sample"] == max(sizes.values())
        assert same_scores(scores.sel(sample=alone[method].sample), alone[method])
        assert "until 0.1" in scores.attrs["until"]


def test_an_interrupt_keeps_the_same_samples_of_all_methods_and_the_same_call_resumes(model, tmp_path):
    how = {"method": SHARED, "batch_tokens": BUDGET}
    whole = score_heads(model, None, TASK, **how)
    with pytest.raises(ScoringInterrupted, match="samples are scored") as stopped:
        score_heads(model, None, TASK, out=tmp_path / "run", on_progress=stop_after(2, KeyboardInterrupt()), **how)
    partial = stopped.value.scores
    (samples,) = {tuple(scores.sample.values) for scores in partial.values()}
    assert 0 < len(samples) == stopped.value.done < len(TASK)
    assert same_scores(open_scores(tmp_path / "run")["entropy"], partial["entropy"])
    seen = []
    found = score_heads(model, None, TASK, out=tmp_path / "run", on_progress=seen.append, **how)
    assert seen[0].done == len(samples)
    for method in SHARED:
        assert same_scores(found[method], whole[method])
        assert same_scores(open_scores(tmp_path / "run" / f"{method}.zarr"), whole[method])
        assert same_scores(open_scores(tmp_path / "run")[method], whole[method])


def test_samples_that_one_store_lacks_are_scored_again_for_all(model, tmp_path):
    how = {"method": ["activation", "entropy"], "batch_tokens": BUDGET}
    whole = score_heads(model, None, TASK, **how)
    for method, batches in (("activation", 2), ("entropy", 4)):
        alone = {"out": tmp_path / f"{method}.zarr", "on_progress": stop_after(batches, KeyboardInterrupt())}
        with pytest.raises(ScoringInterrupted):
            score_heads(model, None, TASK, method=method, batch_tokens=BUDGET, **alone)
    sizes = [open_scores(tmp_path / f"{method}.zarr").sizes["sample"] for method in how["method"]]
    both = open_scores(tmp_path)
    assert sizes[0] < sizes[1]
    assert [scores.sizes["sample"] for scores in both.values()] == [sizes[0]] * 2
    assert both["entropy"].attrs["complete"] == 0
    found = score_heads(model, None, TASK, out=tmp_path, **how)
    assert all(same_scores(found[method], whole[method]) for method in whole)


def test_only_methods_without_a_complete_store_are_scored(model, tmp_path, monkeypatch):
    first = score_heads(model, None, TASK, method=["activation"], out=tmp_path / "run")
    read = []
    run_pass = one_pass.run_pass
    monkeypatch.setattr(one_pass, "run_pass", lambda *args, **how: read.append(args[0]) or run_pass(*args, **how))
    found = score_heads(model, None, TASK, method=["activation", "output-norm"], out=tmp_path / "run")
    assert {scorer.recorder.reads for scorers in read for scorer in scorers} == {"outputs"}
    assert same_scores(found["activation"], first["activation"])


def test_stores_of_other_batches_or_tasks_are_not_mixed(model, tmp_path):
    score_heads(model, None, TASK, method=["activation"], out=tmp_path, batch_tokens=BUDGET, packed=False)
    score_heads(model, None, TASK, method=["entropy"], out=tmp_path / "other", batch_tokens=40, packed=False)
    shutil.move(tmp_path / "other" / "entropy.zarr", tmp_path / "entropy.zarr")
    with pytest.raises(HeadnbError, match="was scored in a different order"):
        score_heads(model, None, TASK, method=["activation", "entropy"], out=tmp_path)
    score_heads(model, None, TASK[:3], method=["output-norm"], out=tmp_path)
    with pytest.raises(HeadnbError, match="different models or tasks"):
        open_scores(tmp_path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"method": []}, "the list of methods is empty"),
        ({"method": ["activation", "entropy", "activation"]}, "the method 'activation' is given twice"),
        ({"method": ["activation", "entropi"]}, "unknown method 'entropi'; did you mean 'entropy'"),
        ({"method": ["activation", "gates"]}, "gates is fitted to all samples at once and cannot share a pass"),
        ({"method": 5}, "method must be a name or a list of names, not 5"),
        ({"method": ["activation", 5]}, "unknown method"),
        ({"method": ["activation", "entropy"], "loss": "sum"}, "scores of the method entropy are not contributions"),
        ({"method": ["activation", "attattr"], "options": {"steps": 2}}, "are given by method, such as"),
        ({"method": ["activation", "attattr"], "options": {"attatr": {"steps": 2}}}, "did you mean 'attattr'"),
        ({"method": ["activation", "attattr"], "options": {"attattr": {"step": 2}}}, "did you mean 'steps'"),
        ({"method": ["activation", "entropy"], "out": "a.zarr"}, "out is a folder with one store for each method"),
    ],
)
def test_methods_that_cannot_be_combined_are_one_plain_line(model, how, message):
    with pytest.raises(HeadnbError, match=message) as found:
        score_heads(model, None, TASK[:2], **how)
    assert "\n" not in str(found.value)


def test_an_architecture_that_hides_a_quantity_names_the_methods_that_work():
    with pytest.raises(HeadnbError, match="only the output norms are available"):
        score_heads(build("bloom", torch.float32), None, token_task(random_samples()), method=["activation", "entropy"])


def test_results_are_saved_opened_drawn_and_compared(model, tmp_path):
    results = score_heads(model, None, TASK, method=SHARED)
    opened = open_scores(results.save(tmp_path / "saved"))
    assert set(opened) == set(SHARED)
    assert all(same_scores(opened[method], results[method]) for method in SHARED)
    assert repr(results) == f"results of 30 samples by 5 methods: {', '.join(SHARED)}"
    grid = results.grid()
    panels = {panel["title"]: panel for panel in grid.payload["panels"]}
    assert list(panels) == list(SHARED)
    for method in ("activation", "taylor-token"):  # nats, on the scale of the grid
        assert "own" not in panels[method]
    for method in SHARED[2:]:
        alone = results[method].heads.grid().payload
        own = {name: alone[name] for name in ("kind", "scale", "quantity", "units")}
        assert panels[method]["own"] == own
        assert panels[method]["values"] == alone["panels"][0]["values"]
    grid.save(tmp_path / "a.heads.json")
    assert HeadGrid.open(tmp_path / "a.heads.json").payload == grid.payload
    for form in ("text/html", "image/png", "text/plain"):
        assert results._repr_mimebundle_()[form]
    found = headnb.compare_methods(results)
    assert list(found.reliability.measure.values) == list(SHARED)
    with pytest.raises(HeadnbError, match="did you mean 'entropy'"):
        results["entropi"]
    with pytest.raises(AttributeError, match=r"results\['activation'\].heads"):
        _ = results.heads


def test_tasks_by_several_methods_are_a_study_of_each_method(model, tmp_path):
    tasks = {"all": TASK, "some": TASK[:9]}
    found = headnb.score_tasks(model, None, tasks, method=["activation", "entropy"], out=tmp_path)
    assert isinstance(found, MethodResults)
    for method, study in found.items():
        alone = headnb.score_tasks(model, None, tasks, method=method)
        assert same(study.level, alone.level)
        assert (tmp_path / "some" / f"{method}.zarr").is_dir()
    titles = [panel["title"] for panel in found.grid().payload["panels"]]
    assert titles == ["activation · all", "activation · some", "entropy · all", "entropy · some"]


def test_the_option_of_a_command_is_a_name_or_a_list():
    assert method_names("activation") == "activation"
    assert method_names("activation, entropy") == ["activation", "entropy"]
    assert method_options("attattr.steps=8,gates.penalty=0.2") == {"attattr": {"steps": 8}, "gates": {"penalty": 0.2}}
