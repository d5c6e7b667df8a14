"""`finetune` learns from exactly the scored tokens, and restores the model and the random state."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import warnings
from typing import TYPE_CHECKING, Any

import headnb
import numpy as np
import pytest
import torch
from headnb.engine.tokenization import encode_task
from headnb.errors import HeadnbError
from headnb.tuning.options import warn_of_router_loss
from headnb.tuning.training import TuningInterrupted
from peft import LoraConfig, get_peft_model
from torch.nn import functional

from architectures import build
from short_trainings import same_values, short_finetuning, state_of, values_of
from tiny import tiny_model, tiny_tokenizer
from trainers import PAIRS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headnb.tuning.progress import TuningProgress
    from transformers import PreTrainedModel

HELD_OUT = [(f"What is {a} plus {b}? ", f"It is {a + b}.") for a, b in ((1, 9), (3, 8), (2, 7))]


def test_held_out_loss_falls_and_the_base_keeps_every_bit(model: PreTrainedModel) -> None:
    values, state = values_of(model), state_of(model)
    result = short_finetuning(model, steps=30, every=10, held_out=HELD_OUT)
    losses = result.study.eval_loss.isel(task=0)
    assert losses[-1] < losses[0] - 1
    assert same_values(values, model)
    assert state_of(model) == state
    assert result.patterns.dims == ("step", "task", "layer", "head")


def test_biases_that_an_adapter_trains_are_restored_when_it_is_removed() -> None:
    model = tiny_model(attention_bias=True)
    values = values_of(model)
    adapters = LoraConfig(r=4, target_modules="all-linear", bias="all", task_type="CAUSAL_LM")
    result = short_finetuning(model, peft_config=adapters)
    bias = model.model.layers[0].self_attn.q_proj.bias
    before = bias.clone()
    with result.applied(model) as tuned:
        assert not torch.equal(bias, before)
        with pytest.raises(HeadnbError, match="the adapter replaced biases of the model"):
            headnb.compare_adapter(tuned, tiny_tokenizer(), PAIRS)
    assert same_values(values, model)


def test_a_nan_loss_is_not_logged_as_zero(model: PreTrainedModel) -> None:
    losses = short_finetuning(model, inplace=True, learning_rate=1e4, track=[], max_grad_norm=0).study.train_loss
    assert losses[0] > 1
    assert losses[-1].isnull()


def test_online_scores_of_experts_warn_about_the_router_loss() -> None:
    with pytest.warns(UserWarning, match="routers' auxiliary loss"):
        warn_of_router_loss(build("mixtral", torch.float32), {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_router_loss(build("mixtral", torch.float32), {"router_aux_loss_coef": 0.0})
        warn_of_router_loss(build("llama", torch.float32), {})


def test_a_packed_sample_is_trained_on_whole_however_long() -> None:
    long = [("What is it? ", "It is " + "very " * 700 + "long.")]
    result = short_finetuning(
        tiny_model(context=4096), [*PAIRS[:7], *long], steps=1, track=[], online=True, packing=True
    )
    assert result.online_scores.answer_tokens.max() > 1024


def test_the_adapter_is_active_only_while_applied(model: PreTrainedModel, tmp_path: Path) -> None:
    result = short_finetuning(model, track={"held": HELD_OUT}, peft_config=None)
    state, before = state_of(model), headnb.score_heads(model, tiny_tokenizer(), HELD_OUT)
    again = headnb.open_study(result.save(tmp_path / "saved"))
    for tuning in (result, again):
        with tuning.applied(model) as tuned:
            after = headnb.score_heads(tuned, tiny_tokenizer(), HELD_OUT)
        np.testing.assert_array_equal(after.score, result.scores["held"].score.isel(step=-1))
    assert (before.score != after.score).any()
    np.testing.assert_array_equal(headnb.score_heads(model, tiny_tokenizer(), HELD_OUT).score, before.score)
    assert state_of(model) == state
    assert again.study.identical(result.study)
    with pytest.raises(HeadnbError, match="adapter does not fit"), again.applied(tiny_model(hidden=64)):
        pass


@pytest.mark.parametrize("bias", ["none", "all"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_or_an_interrupt_leaves_the_base_as_it_was(error: type[BaseException], bias: str) -> None:
    model = tiny_model(attention_bias=True)
    values, state = values_of(model), state_of(model)
    adapters = LoraConfig(r=4, target_modules="all-linear", bias=bias, task_type="CAUSAL_LM")

    def stop(progress: TuningProgress) -> None:
        if progress.scoring is None and progress.step == 3:
            raise error

    with pytest.raises(TuningInterrupted if error is KeyboardInterrupt else error) as raised:
        short_finetuning(model, peft_config=adapters, on_progress=stop, online=True)
    assert same_values(values, model)
    assert state_of(model) == state
    from headnb.engine import attention_functions

    assert not attention_functions._wrap_counts
    if error is KeyboardInterrupt:
        assert raised.value.result.study.step.values.tolist() == [0, 2]
        with raised.value.result.applied(model) as tuned:
            assert not torch.equal(
                tuned(torch.arange(5)[None]).logits, tiny_model(attention_bias=True)(torch.arange(5)[None]).logits
            )


def test_full_tuning_changes_the_model_and_nothing_else_of_it(model: PreTrainedModel) -> None:
    values, state = values_of(model), state_of(model)
    result = short_finetuning(model, inplace=True, track={"held": HELD_OUT})
    assert not same_values(values, model)
    assert state_of(model) == state
    assert result.adapter is None
    with result.applied(model) as tuned:
        after = headnb.score_heads(tuned, tiny_tokenizer(), HELD_OUT)
    np.testing.assert_array_equal(after.score, result.scores["held"].score.isel(step=-1))


def test_full_tuning_is_not_applied_to_a_model_that_it_did_not_change(model: PreTrainedModel, tmp_path: Path) -> None:
    result = short_finetuning(model, inplace=True, track=[])
    opened = headnb.open_study(result.save(tmp_path))
    for tuning, other in ((result, tiny_model()), (opened, model)):
        with pytest.raises(HeadnbError, match="full tuning changed a different model object"), tuning.applied(other):
            pass


def test_the_text_form_states_the_first_and_last_logged_loss() -> None:
    result = short_finetuning(tiny_model(), track=[], online=True, logging_steps=2)
    assert result.study.train_loss.isnull().any()  # online scores have updates without a logged loss
    losses = result.study.train_loss.dropna("update").values
    assert f"loss {losses[0]:.3g} -> {losses[-1]:.3g}" in repr(result)


def test_a_saved_result_replaces_an_earlier_one_and_no_other_training(tmp_path: Path) -> None:
    lora = short_finetuning(tiny_model(), output_dir=tmp_path / "lora", steps=1)
    full = short_finetuning(tiny_model(), inplace=True, output_dir=tmp_path / "full", steps=1)
    saved = lora.save(tmp_path / "saved")
    assert headnb.open_study(saved).adapter == saved / "adapter"
    assert headnb.open_study(full.save(saved)).adapter is None
    with pytest.raises(HeadnbError, match="output_dir of another training"):
        full.save(tmp_path / "lora")
    assert full.save(tmp_path / "full") == tmp_path / "full"
    other = tmp_path / "other"
    (other / "adapter").mkdir(parents=True)
    with pytest.raises(HeadnbError, match="contains no study"):
        full.save(other)


def test_what_is_trained_are_the_tokens_that_are_scored_also_in_long_samples(model: PreTrainedModel) -> None:
    long = ("Why? " * 240, "Because. " * 40)
    model = tiny_model(context=4096)
    task = headnb.load_task([*PAIRS[:7], long])
    encoded = encode_task(task, tiny_tokenizer())
    assert max(encoded.lengths) > 1024  # TRL's default max_length
    result = short_finetuning(model, task, steps=1, track=[], online=True)
    online = result.online_scores
    assert sorted(online.fingerprint.values) == sorted(encoded.fingerprints)
    plain = headnb.score_heads(tiny_model(context=4096), tiny_tokenizer(), task)
    mean = float((plain.loss * plain.answer_tokens).sum() / plain.answer_tokens.sum())
    assert float(result.study.train_loss[0]) == pytest.approx(mean, rel=1e-5)  # completion tokens only


def test_a_maximal_length_cuts_in_training_and_in_scoring(model: PreTrainedModel) -> None:
    result = short_finetuning(model, steps=1, batch_size=24, online=True, max_length=20, encoding="trl")
    encoded = encode_task(headnb.load_task(PAIRS), tiny_tokenizer(), encoding="trl", max_length=20)
    assert sorted(result.online_scores.fingerprint.values) == sorted(encoded.fingerprints)
    assert sorted(result.scores["samples"].fingerprint.values) == sorted(encoded.fingerprints)


@pytest.mark.long
def test_one_seed_gives_one_result_and_draws_nothing_from_the_kernel() -> None:
    drawn = []
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(7), random.seed(7)
        results.append(short_finetuning(tiny_model(), seed=seed, track=HELD_OUT))
        drawn.append((torch.rand(1).item(), random.random()))
    torch.manual_seed(7), random.seed(7)
    assert drawn == [(torch.rand(1).item(), random.random())] * 3
    same, again, other = (result.study.level.isel(step=-1).values for result in results)
    np.testing.assert_array_equal(same, again)
    assert (same != other).any()


def test_a_killed_run_resumes_to_the_same_result(tmp_path: Path) -> None:
    def stop(progress: TuningProgress) -> None:
        if progress.scoring is None and progress.step == 5:
            raise RuntimeError("killed")

    options: dict[str, Any] = {"steps": 6, "track": HELD_OUT, "online": True, "answers": 2, "max_new_tokens": 3}
    with pytest.raises(RuntimeError):
        short_finetuning(tiny_model(), output_dir=tmp_path / "b", on_progress=stop, **options)
    with pytest.raises(HeadnbError, match="answers 2, not 3"):
        short_finetuning(tiny_model(), output_dir=tmp_path / "b", resume=True, **options | {"answers": 3})
    with pytest.raises(HeadnbError, match="continue it with resume=True"):
        short_finetuning(tiny_model(), output_dir=tmp_path / "b", **options)
    with pytest.raises(HeadnbError, match="seed 0, not 1"):
        short_finetuning(tiny_model(), output_dir=tmp_path / "b", resume=True, seed=1, **options)
    (tmp_path / "b" / "checkpoint-5").mkdir()  # as if the process was killed while it wrote the checkpoint
    seen: list[int] = []
    resumed = short_finetuning(
        tiny_model(), output_dir=tmp_path / "b", resume=True, on_progress=lambda p: seen.append(p.step), **options
    )
    whole = short_finetuning(tiny_model(), output_dir=tmp_path / "a", resume=True, **options)
    finished = short_finetuning(tiny_model(), output_dir=tmp_path / "b", resume=True, **options)
    assert seen[0] == 4
    for one in (resumed, finished):
        assert one.study.drop_attrs().identical(whole.study.drop_attrs())
        assert one.online_scores.score.identical(whole.online_scores.score)
        files = [result.adapter / "adapter_model.safetensors" for result in (one, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("first", [{"budget": 1e-4, "every": None}, {"every": 1}], ids=["budget", "every"])
def test_a_resumed_run_keeps_the_tracked_samples(first: dict[str, Any], tmp_path: Path) -> None:
    def stop(progress: TuningProgress) -> None:
        if progress.scoring is None and progress.step == 3:
            raise KeyboardInterrupt

    how: dict[str, Any] = {"steps": 4, "save_steps": 2, "track": PAIRS[:18], "output_dir": tmp_path}
    with pytest.raises(TuningInterrupted):
        short_finetuning(tiny_model(), on_progress=stop, **how, **first)
    then = {"every": 1} if "budget" in first else {"every": None, "budget": 1e-4}
    resumed = short_finetuning(tiny_model(), resume=True, **how, **then)
    (scores,) = resumed.scores.values()
    assert scores.sizes["sample"] == (8 if "budget" in first else 18)
    assert not np.isnan(scores.score).any()
    assert not np.isnan(scores.answer_tokens).any()


@pytest.mark.long
def test_a_run_killed_again_before_its_next_tracked_step_resumes(tmp_path: Path) -> None:
    def stop_at(step: int) -> Callable[[TuningProgress], None]:
        def stop(progress: TuningProgress) -> None:
            if progress.scoring is None and progress.step == step:
                raise RuntimeError("killed")

        return stop

    options: dict[str, Any] = {"steps": 6, "every": [0, 5], "save_steps": 4, "track": HELD_OUT, "resume": True}
    for step in (5, 4):  # step 5 is tracked after the last checkpoint, so its files are removed
        with pytest.raises(RuntimeError, match="killed"):
            short_finetuning(tiny_model(), output_dir=tmp_path / "b", on_progress=stop_at(step), **options)
    resumed = short_finetuning(tiny_model(), output_dir=tmp_path / "b", **options)
    assert resumed.study.identical(short_finetuning(tiny_model(), output_dir=tmp_path / "a", **options).study)


@pytest.mark.long
def test_a_run_killed_after_its_last_checkpoint_keeps_its_last_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise RuntimeError("killed")

    options: dict[str, Any] = {"track": HELD_OUT, "resume": True}
    with monkeypatch.context() as patch:
        patch.setattr(headnb.HeadScoreCallback, "on_train_end", killed)
        with pytest.raises(RuntimeError, match="killed"):
            short_finetuning(tiny_model(), output_dir=tmp_path / "b", **options)
    resumed = short_finetuning(tiny_model(), output_dir=tmp_path / "b", **options)
    for study in (resumed.study, headnb.open_study(tmp_path / "b").study):
        assert study.identical(short_finetuning(tiny_model(), output_dir=tmp_path / "a", **options).study)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rte": 1}, "did you mean 'learning_rate'"),
        ({"warmup_step": 1}, "warmup_steps"),
        ({"max_steps": 3}, "is called steps here"),
        ({"per_device_train_batch_size": 3}, "is called batch_size here"),
        ({"loss_type": "nul"}, "SFTTrainer raised an error"),
        ({"every": 0}, "every must be a number of steps"),
        ({"track": "gsm8kk"}, "gsm8k"),
        ({"steps": 0}, "steps must be a whole number of at least 1"),
        ({"steps": -3}, "steps must be a whole number of at least 1"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be a whole number of at least 1"),
        ({"task": "gsm_symbolic", "steps": None}, "it has no epochs"),
        ({"packing": True, "packing_strategy": "wrapped"}, "splits samples"),
        ({"peft_config": LoraConfig(init_lora_weights="olora")}, "irreversibly"),
    ],
)
def test_a_bad_argument_is_answered_in_one_line(model: PreTrainedModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadnbError, match=message) as raised:
        short_finetuning(model, **options)
    assert "\n" not in str(raised.value)


def test_tracked_samples_of_memory_a_file_and_a_name_follow_one_rule(tmp_path: Path) -> None:
    pairs = [(f"{a} + {b} =", f" {a + b}") for a in range(10) for b in range(10)]
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt, "completion": answer}) + "\n" for prompt, answer in pairs))

    def tracked(task: Any, **options: Any) -> list[int]:
        result = short_finetuning(tiny_model(context=1024), task, steps=1, every=1, **options)
        return [scores.sizes["sample"] for scores in result.scores.values()]

    assert [tracked(source) for source in (pairs, str(file), file)] == [[64]] * 3
    assert [tracked(PAIRS, track=source) for source in (pairs, str(file), file)] == [[100]] * 3
    assert tracked(PAIRS, track=("gsm_symbolic", file)) == [64, 100]


@pytest.mark.parametrize("held_out", [[], {}, {"a": PAIRS[:2], "b": PAIRS[2:4]}])
def test_more_or_less_than_one_held_out_task_is_refused(model: PreTrainedModel, held_out: Any) -> None:
    with pytest.raises(HeadnbError, match="held_out must be one task, not "):
        short_finetuning(model, held_out=held_out)


def test_models_that_cannot_be_tuned_are_refused(model: PreTrainedModel) -> None:
    wrapped = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules="all-linear"))
    with pytest.raises(HeadnbError, match="merge_and_unload"):
        short_finetuning(wrapped)
    model.is_loaded_in_4bit = True
    with pytest.raises(HeadnbError, match="omit inplace=True to train adapters"):
        short_finetuning(model, inplace=True)


def test_four_bits_without_bitsandbytes_say_what_to_install(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.is_loaded_in_4bit = True
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HeadnbError, match="pip install bitsandbytes"):
        short_finetuning(model)


def test_nothing_is_printed_and_the_tokenizer_and_adapters_stay_as_they_are(
    model: PreTrainedModel, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    adapters = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    before = copy.deepcopy(adapters)
    headnb.finetune(model, tokenizer, PAIRS, steps=2, every=1, peft_config=adapters)
    assert tokenizer.pad_token is None
    assert dataclasses.asdict(adapters) == dataclasses.asdict(before)
    assert capfd.readouterr() == ("", "")


def test_progress_reports_steps_losses_and_tracked_steps(model: PreTrainedModel) -> None:
    reports: list[tuple[int, int, bool, int]] = []

    def note(progress: TuningProgress) -> None:
        if progress.scoring is None:
            reports.append((progress.step, progress.total, progress.tracked, progress.study().sizes["step"]))

    result = short_finetuning(model, on_progress=note)
    assert reports == [(0, 4, True, 1), (1, 4, False, 1), (2, 4, True, 2), (3, 4, False, 2), (4, 4, True, 3)]
    assert result.study.train_loss.notnull().all()


def test_the_first_training_loss_is_that_of_a_plain_loop(model: PreTrainedModel) -> None:
    result = short_finetuning(model, steps=1, batch_size=24, track=[])
    sums, tokens = 0.0, 0
    for sample in encode_task(headnb.load_task(PAIRS), tiny_tokenizer()).samples:
        ids, labels = (torch.from_numpy(part)[None] for part in (sample.input_ids, sample.labels))
        with torch.no_grad():
            logits = tiny_model()(ids).logits[0, :-1]
        sums += float(functional.cross_entropy(logits, labels[0, 1:], reduction="sum"))
        tokens += sample.answer_tokens
    assert float(result.study.train_loss[0]) == pytest.approx(sums / tokens, rel=1e-5)
