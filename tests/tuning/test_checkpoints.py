"""`track_checkpoints` gives the scores of each checkpoint that is loaded and scored separately."""

from __future__ import annotations

import gc
import json
import weakref

import headnb
import numpy as np
import pytest
import torch
import xarray as xr
from headnb.errors import HeadnbError
from headnb.tuning import checkpoint_tracking
from headnb.tuning.checkpoint_tracking import TrackingInterrupted, track_checkpoints
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from adapter_models import PAIRS, TOKENIZER, with_adapter
from composites import composite
from model_state import state
from tiny import tiny_model

STEPS = (2, 10, 100)  # sorted as text, the order differs


def moved(model, step):
    """The model after `step` steps of a simulated training that adds noise."""
    torch.manual_seed(step)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.001 * step)
    return model


@pytest.fixture
def base(tmp_path):
    tiny_model().save_pretrained(tmp_path / "base")
    TOKENIZER.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def full_run(tmp_path):
    for step in STEPS:
        moved(tiny_model(), step).save_pretrained(tmp_path / "full" / f"checkpoint-{step}")
    return tmp_path / "full"


@pytest.fixture
def adapter_run(tmp_path, base):
    for step in STEPS:
        model = with_adapter(headnb.load_model(base)[0], step)
        model.save_pretrained(tmp_path / "lora" / f"checkpoint-{step}")
    return tmp_path / "lora"


def relative_distance(model, other):
    """Relative L2 distance of each layer of the decoder, computed directly."""
    distances = []
    for layer, before in zip(model.get_decoder().layers, other.get_decoder().layers, strict=True):
        one, two = (
            torch.cat([weight.flatten() for weight in part.parameters()]).detach().double() for part in (layer, before)
        )
        distances.append(float((one - two).norm() / two.norm()))
    return distances


def test_whole_models_are_scored_as_each_on_its_own(full_run, base):
    study = track_checkpoints(f"{full_run}/checkpoint-*", {"mine": PAIRS}, base=base)
    assert study["step"].values.tolist() == [0, *STEPS]
    assert study["level"].dims == ("step", "task", "layer", "head")
    for step in (0, *STEPS):
        model = moved(tiny_model(), step) if step else tiny_model()
        scores = headnb.score_heads(model, TOKENIZER, PAIRS)
        at = study.sel(step=step, task="mine")
        np.testing.assert_allclose(at["level"], scores.heads.pattern(), rtol=1e-6)
        np.testing.assert_allclose(at["eval_loss"], scores["loss"].mean(), rtol=1e-6)
        np.testing.assert_allclose(at["movement"], relative_distance(model, tiny_model()), rtol=1e-5)
    assert study.attrs["kind_of_tuning"] == "full"


def test_without_a_base_movement_is_from_the_first_checkpoint(full_run):
    study = track_checkpoints(full_run, PAIRS, tokenizer=TOKENIZER)
    assert study["step"].values.tolist() == list(STEPS)
    first, last = (moved(tiny_model(), step) for step in (2, 100))
    np.testing.assert_allclose(study["movement"].sel(step=100), relative_distance(last, first), rtol=1e-5)


def test_movement_is_from_a_loaded_base_that_has_no_files(full_run):
    study = track_checkpoints(full_run, PAIRS, base=tiny_model(), tokenizer=TOKENIZER)
    for step in STEPS:
        expected = relative_distance(moved(tiny_model(), step), tiny_model())
        np.testing.assert_allclose(study["movement"].sel(step=step), expected, rtol=1e-5)


def test_movement_is_that_of_the_text_layers_alone_in_a_model_with_a_vision_tower(tmp_path):
    models = [composite("gemma3"), moved(composite("gemma3"), 100)]  # its files have other names than its modules
    for step, model in enumerate(models):
        model.save_pretrained(tmp_path / f"checkpoint-{step}")
    tokens = [{"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]}]
    study = track_checkpoints(tmp_path, tokens)
    np.testing.assert_allclose(study["movement"].sel(step=1), relative_distance(*models[::-1]), rtol=1e-5)


def test_movement_from_a_base_without_weight_files_is_nan_with_a_warning(full_run, base, monkeypatch):
    monkeypatch.setattr(checkpoint_tracking, "weights_folder", lambda _: None)
    with pytest.warns(UserWarning, match="movement is not available"):
        study = track_checkpoints(full_run, PAIRS, base=base)
    assert study["movement"].sel(step=list(STEPS)).isnull().all()


def test_adapters_are_scored_as_each_on_its_own(adapter_run):
    study = track_checkpoints(f"{adapter_run}/checkpoint-*", {"mine": PAIRS})
    assert study["step"].values.tolist() == [0, *STEPS]
    for step in STEPS:
        merged = with_adapter(tiny_model(), step).merge_and_unload()
        scores = headnb.score_heads(merged, TOKENIZER, PAIRS)
        at = study.sel(step=step, task="mine")
        np.testing.assert_allclose(at["level"], scores.heads.pattern(), rtol=2e-4)
        np.testing.assert_allclose(at["movement"], relative_distance(merged, tiny_model()), rtol=1e-4)
    np.testing.assert_array_equal(study["movement"].sel(step=0), 0)


@pytest.mark.long
def test_a_loaded_base_stays_as_it_was(adapter_run):
    model = tiny_model().train()
    before, weights = state(model), {name: weight.clone() for name, weight in model.state_dict().items()}
    study = track_checkpoints(adapter_run, PAIRS, base=model, tokenizer=TOKENIZER)
    assert state(model) == before
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert (study["level"].diff("step") != 0).any("head").all()


@pytest.mark.long
def test_one_model_is_in_memory_at_a_time(full_run, monkeypatch):
    alive, load = [], checkpoint_tracking.load_weights

    def watched(*args):
        gc.collect()
        assert [model for model in alive if model() is not None] == []
        alive.append(weakref.ref(loaded := load(*args)))
        return loaded

    monkeypatch.setattr(checkpoint_tracking, "load_weights", watched)
    track_checkpoints(full_run, PAIRS, tokenizer=TOKENIZER)
    assert len(alive) == 3


def test_records_of_the_trainer_are_in_the_study(full_run):
    logs = [{"step": step, "loss": 1.0 / step, "num_tokens": 7.0 * step} for step in (1, 2, 3)]
    for step, known in zip(STEPS, (1, 2, 3), strict=True):
        noted = {"global_step": known, "log_history": logs[:known]}
        (full_run / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(noted))
    study = track_checkpoints(full_run, PAIRS, tokenizer=TOKENIZER)
    assert study["step"].values.tolist() == [1, 2, 3]
    assert study["tokens_seen"].values.tolist() == [7, 14, 21]
    np.testing.assert_allclose(study["train_loss"], [1, 1 / 2, 1 / 3])


@pytest.mark.long
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_an_interrupted_call_keeps_finished_checkpoints_and_resumes(request, tmp_path, base, kind):
    run = request.getfixturevalue("full_run" if kind == "full" else "adapter_run")
    expected = track_checkpoints(run, PAIRS, base=base)

    def stop(done, total):
        assert total == 4
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(TrackingInterrupted, match="after 2 scored steps") as stopped:
        track_checkpoints(run, PAIRS, base=base, out=tmp_path / "out", on_progress=stop)
    xr.testing.assert_equal(stopped.value.study["level"], expected["level"].isel(step=slice(2)))
    seen = []
    done = track_checkpoints(run, PAIRS, base=base, out=tmp_path / "out", on_progress=lambda *at: seen.append(at))
    assert (seen[0], seen[-1]) == ((2, 4), (4, 4))
    xr.testing.assert_allclose(done.drop_vars("samples_seen"), expected.drop_vars("samples_seen"))
    opened = headnb.open_study(tmp_path / "out")
    assert opened.scores["samples"]["score"].dims == ("step", "sample", "layer", "head")
    xr.testing.assert_equal(opened.study["level"], expected["level"])


def test_a_study_that_is_complete_is_read_and_no_model_loaded(full_run, tmp_path, monkeypatch):
    first = track_checkpoints(full_run, PAIRS, tokenizer=TOKENIZER, out=tmp_path / "out")
    monkeypatch.setattr(checkpoint_tracking, "load_weights", None)
    xr.testing.assert_identical(track_checkpoints(full_run, PAIRS, tokenizer=TOKENIZER, out=tmp_path / "out"), first)


def test_a_study_of_something_else_is_refused(full_run, tmp_path):
    out = tmp_path / "out"
    track_checkpoints(full_run, PAIRS, tokenizer=TOKENIZER, out=out)
    for other in ({"method": "taylor-token"}, {"max_length": 9}, {"task": PAIRS[:2]}):
        with pytest.raises(HeadnbError, match="contains a study with"):
            track_checkpoints(full_run, other.pop("task", PAIRS), tokenizer=TOKENIZER, out=out, **other)
    moved(tiny_model(), 11).save_pretrained(full_run / "checkpoint-10")
    with pytest.raises(HeadnbError, match="step 10 with other weights"):
        track_checkpoints(full_run, PAIRS, tokenizer=TOKENIZER, out=out)


def test_scores_of_a_deleted_checkpoint_stay_in_the_study(full_run, base, tmp_path):
    from_base = {"tokenizer": TOKENIZER, "base": base, "out": tmp_path / "base_out"}
    from_first = {"tokenizer": TOKENIZER, "out": tmp_path / "out"}
    study, alone = (track_checkpoints(full_run, PAIRS, **how) for how in (from_base, from_first))
    (full_run / "checkpoint-100").rename(tmp_path / "last")
    xr.testing.assert_identical(track_checkpoints(full_run, PAIRS, **from_base), study)
    xr.testing.assert_identical(track_checkpoints(full_run, PAIRS, **from_first), alone)
    (full_run / "checkpoint-2").rename(tmp_path / "first")
    xr.testing.assert_identical(track_checkpoints(full_run, PAIRS, **from_base), study)
    with pytest.raises(HeadnbError, match="movement from the checkpoint of step 2, but the first one given is step 10"):
        track_checkpoints(full_run, PAIRS, **from_first)


def test_checkpoints_that_do_not_belong_together_are_refused(full_run, adapter_run, tmp_path):
    other = tmp_path / "other" / "checkpoint-3"
    tiny_model(layers=3).save_pretrained(other)
    with pytest.raises(HeadnbError, match="different models: num_hidden_layers 2 and 3"):
        track_checkpoints([full_run, other], PAIRS)
    with pytest.raises(HeadnbError, match="both have step 2"):
        track_checkpoints([full_run, adapter_run], PAIRS)
    with pytest.raises(HeadnbError, match=r"is an adapter and .* is a full model"):
        track_checkpoints([full_run / "checkpoint-2", adapter_run / "checkpoint-10"], PAIRS)
    stranger = json.loads((adapter_run / "checkpoint-10" / "adapter_config.json").read_text())
    stranger["base_model_name_or_path"] = "somebody/else"
    (adapter_run / "checkpoint-10" / "adapter_config.json").write_text(json.dumps(stranger))
    with pytest.raises(HeadnbError, match=r"their base models are .* and 'somebody/else'"):
        track_checkpoints(adapter_run, PAIRS)


def test_errors_name_what_is_missing(full_run, adapter_run, tmp_path):
    with pytest.raises(HeadnbError, match="give at least one checkpoint"):
        track_checkpoints([], PAIRS)
    with pytest.raises(HeadnbError, match=r"no folder matches .*chekpoint-\*.*contains checkpoint-10, checkpoint-100"):
        track_checkpoints(f"{full_run}/chekpoint-*", PAIRS)
    with pytest.raises(HeadnbError, match=r"is not a checkpoint and contains none \(checkpoint-\*\)"):
        track_checkpoints(tmp_path, PAIRS)
    (tmp_path / "base").rename(tmp_path / "gone")
    with pytest.raises(HeadnbError, match=r"adapts .*, which cannot be loaded .*; give the base model with base="):
        track_checkpoints(adapter_run, PAIRS)
    study = track_checkpoints(adapter_run, PAIRS, base=tmp_path / "gone")
    assert study.sizes["step"] == 4
    with pytest.raises(HeadnbError, match="does not fit"):
        track_checkpoints(adapter_run, PAIRS, base=tiny_model(hidden=16), tokenizer=TOKENIZER)
    (full_run / "checkpoint-10" / "model.safetensors").unlink()
    with pytest.raises(HeadnbError, match="checkpoint-10 has no weights"):
        track_checkpoints(full_run, PAIRS)
    (full_run / "checkpoint-10" / "config.json").unlink()
    with pytest.raises(HeadnbError, match="checkpoint-10 is not a checkpoint"):
        track_checkpoints(full_run, PAIRS)
    (full_run / "checkpoint-2").rename(full_run / "checkpoint-last")
    with pytest.raises(HeadnbError, match=r"the step of .*checkpoint-last is not recorded"):
        track_checkpoints(full_run / "checkpoint-last", PAIRS)


@pytest.mark.parametrize("full", [True, False])
def test_checkpoints_of_a_trainer_give_what_a_callback_saw_during_training(base, tmp_path, full):
    from datasets import Dataset
    from headnb.tuning.tracking import HeadScoreCallback
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_list([{"prompt": prompt, "completion": completion} for prompt, completion in PAIRS * 4])
    callback = HeadScoreCallback({"mine": PAIRS}, tokenizer=TOKENIZER, every=2)
    arguments = SFTConfig(
        output_dir=str(tmp_path / "run"),
        max_steps=4,
        save_steps=2,
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
    )
    lora = None if full else LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    model = headnb.load_model(base)[0]
    SFTTrainer(
        model, arguments, train_dataset=rows, processing_class=TOKENIZER, peft_config=lora, callbacks=[callback]
    ).train()
    study = track_checkpoints(f"{tmp_path}/run/checkpoint-*", {"mine": PAIRS}, base=base)
    assert study["step"].values.tolist() == [0, 2, 4]
    for name in ("level", "eval_loss", "movement"):
        np.testing.assert_allclose(study[name], callback.study[name], rtol=1e-4, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(study["train_loss"], callback.study["train_loss"])


def test_adapters_of_one_configuration_wrap_the_base_once_and_score_bitwise_as_if_wrapped_each(
    adapter_run, base, monkeypatch
):
    wrapped, wrap = [], checkpoint_tracking.with_adapter

    def counted(*given, **options):
        wrapped.append(given[2])
        return wrap(*given, **options)

    monkeypatch.setattr(checkpoint_tracking, "with_adapter", counted)
    once = track_checkpoints(adapter_run, PAIRS, base=base)
    assert len(wrapped) == 1
    monkeypatch.setattr(checkpoint_tracking, "_plain_lora", lambda folder: None)
    each = track_checkpoints(adapter_run, PAIRS, base=base)
    assert len(wrapped) == 1 + len(STEPS)
    for name in ("level", "eval_loss", "movement"):
        xr.testing.assert_equal(once[name], each[name])


def test_an_adapter_without_some_of_its_factors_does_not_keep_those_of_another_checkpoint(adapter_run, base):
    file = adapter_run / "checkpoint-100" / "adapter_model.safetensors"
    weights = load_file(file)
    weights.pop(next(name for name in weights if "lora_B" in name))
    save_file(weights, file)
    with pytest.raises(HeadnbError, match=r"checkpoint-100 has no weights .*lora_B"):
        track_checkpoints(adapter_run, PAIRS, base=base)
