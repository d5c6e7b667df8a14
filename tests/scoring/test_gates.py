"""Fitted gates identify planted heads, follow the method's loss, and resume after any stop with the same result."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
import torch
import xarray as xr
from headnb import open_scores, score_heads
from headnb.engine import losses
from headnb.engine.batching import pack
from headnb.engine.hooks import find_heads
from headnb.errors import HeadnbError
from headnb.scoring import gates
from headnb.scoring.progress import ScoringInterrupted
from torch.nn import functional

from architectures import build
from model_state import state
from projections import output_projections
from random_samples import random_samples, token_task
from scoring_samples import same_scores
from tiny import tiny_model

TASK = token_task(random_samples((6, 11, 8, 13, 7, 9, 10, 12)))
FEW = {"steps": 4, "samples": 3}


@pytest.fixture(scope="module")
def planted():
    """Head 1 raises the answer's logit, head 2 lowers it, and the output of heads 0 and 3 is discarded."""
    model = tiny_model(layers=1, heads=4, kv_heads=4)
    size, answer = model.config.head_dim, 7
    attention = model.model.layers[0].self_attn
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 3.0  # a constant feature that the values read
        direction = model.lm_head.weight[answer] - model.lm_head.weight.mean(0)
        attention.o_proj.weight.zero_()
        attention.v_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        for head, strength in ((1, 2.0), (2, -0.7)):
            attention.v_proj.weight[head * size, 0] = 1.0
            attention.o_proj.weight[:, head * size] = strength * direction / direction.norm()
    random = np.random.default_rng(0)
    rows = [[*random.integers(1, 300, length).tolist(), answer] for length in random.integers(4, 9, 12)]
    return model, [{"input_ids": row, "labels": [-100] * (len(row) - 1) + [answer]} for row in rows]


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_useful_harmful_and_dead_heads_have_their_classes(planted, seed):
    model, task = planted
    found = score_heads(model, None, task, method="gates", seed=seed, options={"steps": 40, "samples": 12})
    assert found.role.values.tolist() == [["irrelevant", "facilitating", "interfering", "irrelevant"]]
    assert found.role.dims == ("layer", "head")
    assert found.layer.values.tolist() == [0]
    free, opened, closed = found.gate.values[:, 0]
    assert (opened[[0, 3]] > 0.9).all()
    assert (closed[[0, 3]] < 0.1).all()
    assert min(free[1], opened[1], closed[1]) > 0.9
    assert max(free[2], opened[2], closed[2]) < 0.1
    np.testing.assert_array_equal(found.score, found.gate.sel(penalty=-0.1))
    course = found.loss.values[0]
    assert course[-5:].mean() < course[:5].mean()


def test_roles_are_those_of_both_rewards():
    favoured, disfavoured = np.array([[0.9, 0.9, 0.1, 0.1, np.nan]]), np.array([[0.9, 0.1, 0.1, 0.9, np.nan]])
    classes = gates.roles(favoured, disfavoured).tolist()
    assert classes == [["facilitating", "irrelevant", "interfering", "undecided", ""]]


def gate_of(logits):
    """A pre-hook of the output projection that multiplies the output of each head by its gate."""

    def gate(_, args):
        O = args[0].unflatten(-1, (len(logits), -1))  # (B, T, H, D)
        return ((O * torch.sigmoid(logits)[:, None]).flatten(2), *args[1:])

    return gate


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "bloom"])
def test_fits_follow_the_methods_loss_by_a_direct_implementation(name):
    """The direct implementation uses all samples in every step, one pass per sample, and Adam on the explicit loss."""
    model = build(name, torch.float32)
    samples = random_samples((6, 9, 7))
    options = {"steps": 3, "samples": 3, "learning_rate": 0.3, "penalty": 0.1}
    found = score_heads(model, None, token_task(samples), method="gates", options=options, batch_tokens=16)
    heads, projections = find_heads(model).shape, output_projections(model, name)
    closed = 1 / (1 + np.exp(4))
    start = np.random.default_rng(0).uniform(closed, 1 - closed, heads)
    z = torch.tensor(np.log(start / (1 - start)), dtype=torch.float32)
    starts, expected, losses = {}, [], []
    for fit, penalty in enumerate((0.0, 0.1, -0.1)):
        logits = (starts.get("free", z)).clone().requires_grad_()
        adam = torch.optim.Adam([logits], lr=0.3)
        for _ in range(3):
            adam.zero_grad()
            sample_losses = []
            for sample in samples:
                with ExitStack() as hooks:
                    for projection, of_layer in zip(projections, logits, strict=True):
                        hooks.enter_context(projection.register_forward_pre_hook(gate_of(of_layer)))
                    out = model(torch.tensor(sample.input_ids)[None], use_cache=False).logits[0, :-1]
                sample_losses.append(functional.cross_entropy(out, torch.tensor(sample.labels)[1:], ignore_index=-100))
            nll = sum(sample_losses) / 3
            (nll - penalty * logits.clamp(-4, 4).mean()).backward()
            # the gradient of loss and penalty together is clipped
            torch.nn.utils.clip_grad_norm_([logits], 1.0)
            adam.step()
            losses.append(nll.item())
        if fit == 0:
            starts["free"] = logits.detach()
        expected.append(torch.sigmoid(logits.detach()).numpy())
    np.testing.assert_allclose(found.gate, np.stack(expected), atol=2e-4)
    np.testing.assert_allclose(found.loss.values.ravel(), losses, rtol=1e-4)


def test_result_has_no_samples_and_is_a_pattern_in_units_of_gates():
    found = score_heads(tiny_model(), None, TASK, method="gates", options=FEW)
    assert found.score.dims == ("layer", "head")
    assert found.gate.dims == ("penalty", "layer", "head")
    assert found.penalty.values.tolist() == [0.0, 0.1, -0.1]
    assert found.attrs["complete"] == 1
    assert found.attrs["option_steps"] == 4
    assert found.attrs["samples_requested"] == 8
    pattern = found.heads.pattern()
    assert (pattern.attrs["kind"], pattern.attrs["units"], pattern.attrs["samples"]) == ("level", "gate", 0)
    assert pattern.heads.grid().payload["panels"][0]["values"] == [
        [pytest.approx(value, rel=1e-3) for value in row] for row in found.score.values.tolist()
    ]


def test_one_seed_gives_one_result_and_another_seed_another():
    model = tiny_model()
    first, second, other = (
        score_heads(model, None, TASK, method="gates", options=FEW, seed=seed) for seed in (0, 0, 1)
    )
    assert same_scores(first, second)
    assert not np.allclose(first.gate, other.gate, atol=0.01)


def test_several_seeds_make_one_study():
    model = tiny_model()
    parts = [score_heads(model, None, TASK, method="gates", options=FEW, seed=seed) for seed in (0, 1)]
    both = xr.concat(parts, "seed", combine_attrs="drop_conflicts")
    assert both.heads.pattern().sizes["seed"] == 2


@pytest.mark.parametrize("budget", [5, 30])
def test_gates_do_not_depend_on_the_token_budget(budget):
    model = tiny_model()
    whole = score_heads(model, None, TASK, method="gates", options=FEW)
    found = score_heads(model, None, TASK, method="gates", options=FEW, batch_tokens=budget)
    np.testing.assert_allclose(found.gate, whole.gate, atol=1e-3)


def test_packed_rows_on_a_cpu_have_the_limit_of_other_methods(monkeypatch):
    task, sizes = token_task(random_samples([90] * 20)), []

    def packed(samples):
        sizes.append(sum(map(len, samples)))
        return pack(samples)

    monkeypatch.setattr(losses, "pack", packed)
    score_heads(tiny_model(), None, task, method="gates", options={"steps": 1, "samples": 20})
    assert sizes == [11 * 90, 9 * 90] * 3  # three fits; at most 1024 tokens


def stop_at(step):
    def stop(progress):
        assert (progress.total, progress.unit) == (12, "steps")
        if progress.done == step:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("step", [0, 2, 6, 11])
def test_a_stopped_fit_goes_on_to_the_same_gates(tmp_path, step):
    model = tiny_model().train()
    before = state(model)
    whole = score_heads(model, None, TASK, method="gates", options=FEW)
    out = tmp_path / "a.zarr"
    with pytest.raises(ScoringInterrupted, match=f"{step} of 12 steps are done") as stopped:
        score_heads(model, None, TASK, method="gates", options=FEW, out=out, on_progress=stop_at(step))
    part = stopped.value.scores
    assert part.attrs["complete"] == 0
    assert np.isfinite(part.score).all()
    assert same_scores(open_scores(out), part)
    assert (part.role == "").all()
    seen = []
    found = score_heads(model, None, TASK, method="gates", options=FEW, out=out, on_progress=seen.append)
    assert seen[0].done == step
    assert same_scores(found, whole)
    assert same_scores(open_scores(out), whole)
    assert state(model) == before


def test_a_process_that_ends_while_it_writes_leaves_the_last_state(tmp_path):
    model = tiny_model()
    out = tmp_path / "a.zarr"
    whole = score_heads(model, None, TASK, method="gates", options=FEW, out=out)
    out.rename(tmp_path / ".a.zarr.before")  # between the two moves
    (tmp_path / ".a.zarr.draft").mkdir()
    seen = []
    again = score_heads(model, None, TASK, method="gates", options=FEW, out=out, on_progress=seen.append)
    assert [progress.done for progress in seen] == [12]
    assert same_scores(again, whole)


def test_stores_of_something_else_are_refused_and_kept(tmp_path):
    model = tiny_model()
    scores = score_heads(model, None, TASK, out=tmp_path / "a.zarr")
    with pytest.raises(HeadnbError, match="is not a store of a fit"):
        score_heads(model, None, TASK, method="gates", options=FEW, out=tmp_path / "a.zarr")
    assert same_scores(open_scores(tmp_path / "a.zarr"), scores)
    score_heads(model, None, TASK, method="gates", options=FEW, out=tmp_path / "b.zarr")
    with pytest.raises(HeadnbError, match="seed 0, not 1"):
        score_heads(model, None, TASK, method="gates", options=FEW, seed=1, out=tmp_path / "b.zarr")
    with pytest.raises(HeadnbError, match="is not a store of head scores"):
        score_heads(model, None, TASK, out=tmp_path / "b.zarr")


def test_out_of_memory_shrinks_batches_and_changes_no_gate(monkeypatch):
    model = tiny_model()
    whole = score_heads(model, None, TASK, method="gates", options=FEW)
    forward = model.model.forward

    def scarce(*args, **kwargs):
        if kwargs["input_ids"].numel() > 14:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.model, "forward", scarce)
    seen = []
    found = score_heads(model, None, TASK, method="gates", options=FEW, on_progress=seen.append)
    np.testing.assert_allclose(found.gate, whole.gate, atol=1e-3)
    assert "out of memory" in seen[-1].message


def test_a_sample_that_does_not_fit_alone_is_tried_once_with_recomputed_activations(monkeypatch):
    model, tried = tiny_model(), []
    forward = model.model.forward

    def scarce(*args, **kwargs):
        if kwargs["input_ids"].numel() < 30:
            return forward(*args, **kwargs)
        tried.append(kwargs["input_ids"].shape)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model.model, "forward", scarce)
    with pytest.raises(HeadnbError, match=r"one sample of 30 tokens does not fit in memory; truncate"):
        score_heads(model, None, token_task(random_samples((30,))), method="gates", options=FEW)
    assert tried == [(1, 30)] * 2


@pytest.mark.parametrize("settings", [{"packed": True}, {"packed": False}, {"padding_side": "left"}])
def test_settings_of_batches_are_refused(settings):
    with pytest.raises(HeadnbError, match="gates is fitted in batches of its own; omit packed and padding_side"):
        score_heads(tiny_model(), None, TASK, method="gates", options=FEW, **settings)


def test_a_loss_that_is_not_finite_is_named_by_sample():
    model = tiny_model()
    model.lm_head.register_forward_hook(lambda *call: call[-1].index_fill(-1, torch.tensor([7]), -torch.inf))
    task = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}, {"input_ids": [1, 7, 3], "labels": [1, 7, 3]}]
    with pytest.raises(HeadnbError, match="the loss of sample 1 is inf"):
        score_heads(model, None, task, method="gates", options=FEW)


def test_what_needs_scores_of_samples_refuses_gates(tmp_path):
    from headnb.scoring.registry import find_method, methods

    with pytest.raises(HeadnbError, match="'gates' has one value per head"):
        find_method("gates", of_samples=True)
    assert "gates" in methods()
    assert "gates" not in methods(of_samples=True)
