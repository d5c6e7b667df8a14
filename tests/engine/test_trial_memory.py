"""Remembered trial passes: the same scores without the passes, and new passes wherever their outcome may differ."""

from __future__ import annotations

import json

import headnb
import pytest
import torch
from headnb.engine import losses, trial_memory
from headnb.engine.hooks import find_heads
from headnb.engine.losses import find_heads_and_loss_computer
from headnb.models.fingerprint import unchanged_weights, weights_fingerprint
from torch import nn
from transformers.models.llama import modeling_llama

from tiny import tiny_model, tiny_tokenizer

PAIRS = [("2 + 3 = ", "5"), ("The sky is", " blue"), ("One, two,", " three")]


@pytest.fixture
def passes(monkeypatch, tmp_path):
    """Models whose trial passes ran, with an empty cache that also takes small models."""
    ran = []
    probe = losses._probe
    monkeypatch.setattr(losses, "_probe", lambda model: ran.append(model) or probe(model))
    monkeypatch.setattr(trial_memory, "MIN_WEIGHTS", 0)
    monkeypatch.setattr("headnb.hub.cache_folder", lambda: tmp_path)
    return ran


def test_a_remembered_model_has_the_same_heads_and_scores_without_passes(passes):
    first = headnb.score_heads(tiny_model(), tiny_tokenizer(), PAIRS)
    again = headnb.score_heads(model := tiny_model(), tiny_tokenizer(), PAIRS)
    layout, computer = find_heads_and_loss_computer(model)
    assert len(passes) == 1
    assert (again.score.values == first.score.values).all()
    assert again.attrs["padding"] == first.attrs["padding"]  # packed as before
    assert layout == find_heads(model)
    assert computer.supports_packing
    assert computer.vocabulary == model.config.vocab_size


@torch.no_grad()
def _other_weight(model, _):
    model.model.layers[1].self_attn.o_proj.weight[0, 0] += 1


def _hook(model, _):
    model.model.layers[0].register_forward_hook(lambda *_: None)


def _own_forward(model, _):
    model.lm_head.forward = model.lm_head.forward


def _patched_class(_, monkeypatch):
    forward = modeling_llama.LlamaMLP.forward
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", lambda self, x: forward(self, x) + 0)


def _patched_function(_, monkeypatch):
    rotate = modeling_llama.apply_rotary_pos_emb
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", lambda *a, **k: tuple(rotate(*a, **k)))


def _other_version(_, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda _: "99")


def _own_module(model, _):
    class Mine(nn.Linear):
        pass

    model.lm_head.__class__ = Mine


@pytest.mark.parametrize(
    "change", [_other_weight, _hook, _own_forward, _patched_class, _patched_function, _other_version, _own_module]
)
def test_a_changed_model_is_tried_again(passes, monkeypatch, change):
    find_heads_and_loss_computer(tiny_model())
    change(model := tiny_model(), monkeypatch)
    find_heads_and_loss_computer(model)
    assert len(passes) == 2


def test_scaled_heads_are_tried_again(passes):
    find_heads_and_loss_computer(model := tiny_model())
    with headnb.scale_heads(model, ["L0H1"]):
        find_heads_and_loss_computer(model)
    assert len(passes) == 2


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff\xfe", b'[[{"model.layers.0.self_attn": 4}, 64], "0"]', b"[" * 10_000]
)
def test_a_damaged_file_is_ignored_and_replaced(passes, tmp_path, content):
    find_heads_and_loss_computer(tiny_model())
    (file,) = (tmp_path / "trials").iterdir()
    whole = json.loads(file.read_bytes())
    file.write_bytes(content)
    layout, _ = find_heads_and_loss_computer(tiny_model())
    assert layout.heads == (4, 4)
    assert len(passes) == 2
    assert json.loads(file.read_bytes()) == whole


def test_a_cache_that_cannot_be_written_stops_nothing(passes, tmp_path):
    (tmp_path / "trials").write_text("a file in place of the folder")
    find_heads_and_loss_computer(tiny_model())
    find_heads_and_loss_computer(tiny_model())
    assert len(passes) == 2


def test_only_the_newest_files_are_kept(passes, tmp_path, monkeypatch):
    monkeypatch.setattr(trial_memory, "MAX_FILES", 2)
    for seed in range(4):
        find_heads_and_loss_computer(tiny_model(seed=seed))
    assert len(list((tmp_path / "trials").iterdir())) == 2
    find_heads_and_loss_computer(tiny_model(seed=3))
    assert len(passes) == 4


def test_the_fingerprint_is_computed_once_where_nothing_changes_the_weights(model, monkeypatch):
    expected = weights_fingerprint(model)
    with unchanged_weights(model):
        assert weights_fingerprint(model) == expected
        monkeypatch.setattr("headnb.models.fingerprint._fingerprint", lambda _: "again")
        assert weights_fingerprint(model) == expected
    assert weights_fingerprint(model) == "again"
