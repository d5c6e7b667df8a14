"""Ablation scores equal losses of a model with one hook on one head, computed one head and sample at a time."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from headnb import open_scores, score_heads
from headnb.engine.batching import collate, pack
from headnb.engine.hooks import find_heads
from headnb.engine.interventions import scale_heads
from headnb.engine.partial_forward import PartialForward
from headnb.scoring.ablation_scores import MeanAblationScorer, mean_ablation_scorer, zero_ablation_scorer
from headnb.scoring.progress import ScoringInterrupted
from transformers import AutoConfig, AutoModelForCausalLM

from architectures import EXPERTS, LLAMA_LIKE, build, randomize
from model_state import state
from projections import PROJECTION, output_projections
from random_samples import mean_loss, random_samples, token_task
from scoring_samples import same_scores, stop_after
from tiny import tiny_model

LENGTHS = (6, 11, 8, 13)
FOUR_LAYERS = LLAMA_LIKE | {"num_hidden_layers": 4, "pad_token_id": 0}
TWO_KINDS = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 5}
UNUSUAL = {
    # Layers without heads; layers that share keys and values; layers that pass on more than hidden states.
    "lfm2": FOUR_LAYERS | {"layer_types": ["conv", "full_attention"] * 2},
    "gemma3n_text": FOUR_LAYERS
    | TWO_KINDS
    | {
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": 64,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "activation_sparsity_pattern": [0.0] * 4,
        "intermediate_size": [48] * 4,
    },
    "hy_v4": FOUR_LAYERS | EXPERTS,
}


def mean_inputs(model, projections, samples):
    """For each projection, the mean of its input over all tokens of all samples, (H * D)."""
    seen = [[] for _ in projections]
    hooks = [
        projection.register_forward_pre_hook(lambda _, args, at=at: seen[at].append(args[0][0]))
        for at, projection in enumerate(projections)
    ]
    with torch.no_grad():
        for sample in samples:
            model(torch.tensor(sample.input_ids)[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    return [torch.cat(rows).mean(0) for rows in seen]


def by_hooks(model, name, samples, *, mean):
    """Scores (B, L, H) from a loop with one hook per head."""
    projections = output_projections(model, name)
    means = mean_inputs(model, projections, samples)
    heads = find_heads(model).heads
    before = torch.stack([mean_loss(model, sample) for sample in samples])
    scores = torch.zeros(len(samples), len(heads), max(heads), dtype=before.dtype)
    for layer, projection in enumerate(projections):
        size = len(means[layer]) // heads[layer]
        for head in range(heads[layer]):
            part = slice(head * size, (head + 1) * size)

            def replaced(_, args, part=part, layer=layer):
                changed = args[0].clone()
                changed[..., part] = means[layer][part] if mean else 0
                return (changed, *args[1:])

            with projection.register_forward_pre_hook(replaced):
                after = torch.stack([mean_loss(model, sample) for sample in samples])
            scores[:, layer, head] = after - before
    return scores


@pytest.mark.parametrize("name", PROJECTION)
@pytest.mark.parametrize("method", ["ablate-zero", "ablate-mean"])
def test_scores_are_losses_with_one_head_replaced_by_a_hook(name, method):
    model = build(name)
    samples = random_samples(LENGTHS)
    expected = by_hooks(copy.deepcopy(model), name, samples, mean=method == "ablate-mean").numpy()
    found = score_heads(model, None, token_task(samples), method=method, batch_tokens=60).score
    assert np.abs(found.values - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("make", [zero_ablation_scorer, mean_ablation_scorer])
def test_scores_depend_neither_on_the_batch_nor_on_how_many_heads_share_a_pass(make):
    model = build("llama", torch.float32)
    samples = random_samples(LENGTHS)
    scorer = make(model)
    if isinstance(scorer, MeanAblationScorer):
        scorer.prepare(collate(samples[:2]))
        scorer.prepare(pack(samples[2:]))
    alone = torch.cat([scorer(collate([sample]))[0] for sample in samples])
    whole = replace(scorer, partial_forward=PartialForward(()))  # every pass runs all layers
    for batch in (collate(samples), collate(samples, side="left"), pack(samples)):
        for variant in (scorer, whole):
            for budget in (None, 120):
                found, _ = variant(batch, budget=budget)
                assert (found - alone).abs().max() < 2e-5 * alone.abs().max()


def test_heads_share_passes_within_the_token_budget(monkeypatch):
    model = tiny_model(layers=1, heads=8)
    scorer = zero_ablation_scorer(model)
    batch, rows = collate(random_samples((10, 10))), []
    model.model.register_forward_pre_hook(
        lambda _, args, given: rows.append(given["input_ids"].shape[0]), with_kwargs=True
    )
    for budget, expected in ((20, [2] * 9), (60, [2, 6, 6, 4]), (10_000, [2, 16])):
        rows.clear()
        scorer(batch, budget=budget)
        assert rows == expected


def test_a_planted_harmful_head_is_negative_and_a_planted_useful_one_positive():
    """The answer is always token 7. The constant output of one head raises its logit, that of another lowers it."""
    model = tiny_model(layers=1, heads=4, kv_heads=4, dtype=torch.float64)
    size = model.config.head_dim
    direction = model.lm_head.weight[7] - model.lm_head.weight.mean(0)
    samples = random_samples((9, 12), answer=0.1)
    for sample in samples:
        sample.input_ids[-1] = 7
        sample.labels[-1] = 7
    projection = model.model.layers[0].self_attn.o_proj

    def plant(_, args, output):
        outputs = args[0].clone()
        help_, harm = (outputs[..., head * size].abs() + 1 for head in (1, 2))
        active = [(outputs[..., head * size : (head + 1) * size] != 0).any(-1) for head in (1, 2)]
        shift = help_ * active[0] - harm * active[1]
        return output + 3 * shift[..., None] * direction / direction.norm()

    with projection.register_forward_hook(plant):
        pattern = score_heads(model, None, token_task(samples), method="ablate-zero").heads.pattern()
    assert pattern.attrs["kind"] == "signed"
    assert pattern.attrs["units"] == "nats"
    assert float(pattern.heads["L0H1"]) > 0.1
    assert float(pattern.heads["L0H2"]) < -0.1


def test_sum_of_the_loss_gives_its_rise():
    model, task = tiny_model(), token_task(random_samples())
    mean = score_heads(model, None, task, method="ablate-zero")
    total = score_heads(model, None, task, method="ablate-zero", loss="sum")
    np.testing.assert_allclose(total.score, mean.score * mean.answer_tokens, rtol=1e-5)


def test_padding_on_the_left_gives_the_same_scores():
    model, task = tiny_model(), token_task(random_samples(LENGTHS))
    left, right = (
        score_heads(model, None, task, method="ablate-mean", packed=False, padding_side=side).score.values
        for side in ("left", "right")
    )
    np.testing.assert_allclose(left, right, atol=2e-5 * np.abs(right).max())


@pytest.mark.parametrize("packed", [True, False])
def test_a_stopped_run_goes_on_to_the_same_scores_with_the_same_mean(tmp_path, packed):
    model, task = tiny_model(), token_task(random_samples((6, 11, 8, 13, 7, 9, 12)))
    settings = {"method": "ablate-mean", "batch_tokens": 24, "packed": packed}
    whole = score_heads(model, None, task, **settings)
    seen = []
    out = tmp_path / "a.zarr"

    def stop(progress):
        if progress.done > 1:
            raise KeyboardInterrupt

    with pytest.raises(ScoringInterrupted) as stopped:
        score_heads(model, None, task, out=out, on_progress=stop, **settings)
    assert 0 < stopped.value.scores.sizes["sample"] == open_scores(out).sizes["sample"] < 7
    assert same_scores(score_heads(model, None, task, out=out, on_progress=seen.append, **settings), whole)
    assert seen[0].message == "first pass over the task"
    assert seen[-1].message == ""
    assert seen[-1].done == 7


def test_an_interrupt_in_the_first_pass_leaves_nothing_scored_and_the_model_as_it_was():
    model, task = tiny_model().train(), token_task(random_samples())
    before = state(model)
    with pytest.raises(ScoringInterrupted) as stopped:
        score_heads(
            model, None, task, method="ablate-mean", batch_tokens=20, on_progress=stop_after(1, KeyboardInterrupt())
        )
    assert stopped.value.scores.sizes["sample"] == 0
    assert state(model) == before


@pytest.mark.parametrize("method", ["ablate-zero", "ablate-mean"])
def test_out_of_memory_shrinks_passes_and_changes_no_score(monkeypatch, method):
    model, task = tiny_model(), token_task(random_samples((6, 11, 8, 13, 7, 9)))
    whole = score_heads(model, None, task, method=method, batch_tokens=120)
    forward, tried = model.model.forward, []

    def scarce(*args, **kwargs):
        tried.append(kwargs["input_ids"].numel())
        if tried[-1] > 30:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.model, "forward", scarce)
    seen = []
    found = score_heads(model, None, task, method=method, batch_tokens=120, on_progress=seen.append)
    assert np.allclose(found.score, whole.score, rtol=1e-4, atol=1e-5)
    assert "out of memory" in seen[-1].message
    assert sum(tokens > 30 for tokens in tried) < 8


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_layers_are_ablated_in_several_copies_as_head_by_head(kind):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **UNUSUAL[kind], bos_token_id=None, eos_token_id=None)
    model = randomize(AutoModelForCausalLM.from_config(config).float().eval())
    samples = random_samples((25, 25))
    scores, before = zero_ablation_scorer(model)(collate(samples), budget=400)
    for layer, heads in enumerate(find_heads(model).heads):
        assert scores[:, layer, heads:].isnan().all()
        for head in range(heads):
            with scale_heads(model, {f"L{layer}H{head}": 0.0}):
                after = torch.stack([mean_loss(model, sample) for sample in samples])
            torch.testing.assert_close(scores[:, layer, head], after - before, rtol=1e-3, atol=1e-4)
