"""Scores of multimodal models and of models with offloaded weights equal the scores of the plain text model."""

from __future__ import annotations

import re
from pathlib import Path

import accelerate
import numpy as np
import pytest
import torch
from headnb import score_heads
from headnb.engine.batching import collate
from headnb.engine.tokenization import EncodedSample
from headnb.scoring.gradient import activation, gradient_scorer
from transformers import AutoModelForCausalLM

from architectures import VOCABULARY, eager_matrix_scores
from composites import COMPOSITES, composite
from model_state import state
from scoring_samples import same_scores
from tiny import tiny_model

RANDOM = np.random.default_rng(0)
SAMPLES = [
    EncodedSample(ids := RANDOM.integers(1, VOCABULARY, length), np.array([-100, -100, *ids[2:]]))
    for length in (9, 19, 20, 20)
]
TASK = [{"input_ids": sample.input_ids, "labels": sample.labels} for sample in SAMPLES]


@pytest.mark.parametrize("kind", COMPOSITES)
def test_scores_of_a_composite_on_text_equal_its_attention_matrix_form(kind):
    model = composite(kind).train()
    before = state(model)
    found = score_heads(model, None, TASK).score.values
    assert state(model) == before
    expected = eager_matrix_scores(composite(kind, attn_implementation="eager"), SAMPLES).numpy()
    assert np.abs(expected).max() > 0.01
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("kind", ["gemma3", "llava"])
def test_scores_of_a_composite_on_text_equal_those_of_its_text_model_alone(kind):
    model = composite(kind)
    alone = AutoModelForCausalLM.from_config(model.config.get_text_config()).eval()
    alone.model.load_state_dict(model.get_decoder().state_dict())
    alone.lm_head.load_state_dict(model.lm_head.state_dict())
    found, expected = (score_heads(one, None, TASK).score for one in (model, alone))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def from_disk_by_map(folder):
    """A model with some layers in memory and the other layers on disk."""
    tiny_model(layers=3).save_pretrained(folder / "saved")
    device_map = dict.fromkeys(("model.layers.1", "model.layers.2", "model.norm", "lm_head"), "disk")
    device_map |= dict.fromkeys(("model.embed_tokens", "model.layers.0", "model.rotary_emb"), "cpu")
    return AutoModelForCausalLM.from_pretrained(
        folder / "saved", device_map=device_map, offload_folder=folder / "weights", dtype=torch.float32
    )


def from_disk(folder):
    return accelerate.disk_offload(tiny_model(layers=3), folder / "weights", execution_device="cpu")


def from_memory(_):
    return accelerate.cpu_offload(tiny_model(layers=3), execution_device="cpu")


@pytest.mark.parametrize("offloaded", [from_disk_by_map, from_disk, from_memory])
def test_scores_of_offloaded_weights_equal_those_of_weights_in_memory(offloaded, tmp_path):
    model = offloaded(tmp_path)
    meta, before = [weight.is_meta for weight in model.parameters()], state(model)
    assert any(meta)
    expected = score_heads(tiny_model(layers=3), None, TASK)
    assert same_scores(score_heads(model, None, TASK), expected)
    recomputed = score_heads(model, None, TASK, batch_tokens=8)  # each sample is longer
    assert np.abs(recomputed.score - expected.score).max() < 1e-5 * np.abs(expected.score).max()
    assert state(model) == before
    assert [weight.is_meta for weight in model.parameters()] == meta


def peak():
    """Peak memory of this process in bytes since the last reset (Linux)."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is not available on this system")
def test_weights_on_disk_are_in_memory_a_layer_at_a_time(tmp_path):
    model = tiny_model(layers=16, hidden=768)
    whole = sum(weight.nbytes for weight in model.parameters())
    accelerate.disk_offload(model, tmp_path, execution_device="cpu")
    scorer = gradient_scorer(model, activation)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    scorer(collate(SAMPLES[:1]))
    assert whole > 250e6
    assert peak() - before < whole / 2
