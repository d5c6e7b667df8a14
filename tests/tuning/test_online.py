"""Online scores, from the training's own backward pass, equal `score_heads` with the weights of that step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import headnb
import numpy as np
import pytest
import torch
from headnb.engine.tokenization import encode_task
from headnb.errors import HeadnbError
from peft import LoraConfig
from scipy.stats import spearmanr
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from tiny import tiny_model, tiny_tokenizer
from trainers import ARGUMENTS, PAIRS, QuietSFTTrainer, Weights, rows, sft_trainer

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


def offline_scores(online: xr.Dataset, model: Any, weights: Weights, method: str = "activation") -> np.ndarray:
    """Scores by `score_heads` of each sample of the online scores, with the weights before its update."""
    task = headnb.load_task(PAIRS)
    fingerprints = encode_task(task, tiny_tokenizer()).fingerprints
    expected = np.zeros_like(online.score.values)
    for update in np.unique(online.step):
        model.load_state_dict(weights.before[int(update)])
        scores = headnb.score_heads(model, tiny_tokenizer(), task, method=method)
        for row in np.flatnonzero(online.step == update):
            (sample,) = np.flatnonzero(fingerprints == online.fingerprint.values[row])
            expected[row] = scores.score.values[sample]
    return expected


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(abs(found - expected).max() / abs(expected).max())


class ScaledLoss(QuietSFTTrainer):
    """Scales the loss as the loss scaler of mixed precision does."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        return 1024 * super().compute_loss(*args, **kwargs)


CASES: dict[str, dict[str, Any]] = {
    "padded": {},
    "accumulated": {"gradient_accumulation_steps": 3},
    "packed": {"packing": True, "max_length": 96},
    "packed, accumulated": {"packing": True, "max_length": 96, "gradient_accumulation_steps": 2},
    "checkpointed": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
    "checkpointed, reentrant": {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": True},
    },
    "scaled loss": {"trainer": ScaledLoss},
    "adapters": {"peft_config": LORA},
    "adapters, packed, accumulated": {
        "peft_config": LORA,
        "packing": True,
        "max_length": 96,
        "gradient_accumulation_steps": 2,
    },
}


@pytest.mark.parametrize("case", CASES)
def test_online_scores_equal_score_heads_on_that_batch_with_the_weights_of_that_step(case: str, tmp_path: Path) -> None:
    model, weights, callback = tiny_model(), Weights(), headnb.HeadScoreCallback(online=True)
    trainer = sft_trainer(model, tmp_path, callback, weights, **CASES[case])
    trainer.train()
    online = callback.online_scores
    assert set(online.step.values) == {1, 2, 3}
    rows_at_least = 3 * 4 * CASES[case].get("gradient_accumulation_steps", 1)
    assert len(online.sample) >= rows_at_least
    expected = offline_scores(online, trainer.model, weights)
    assert relative_error(online.score.values, expected) < 1e-4


def test_a_plain_trainer_gives_the_same_online_scores(tmp_path: Path) -> None:
    model, weights, callback = tiny_model(), Weights(), headnb.HeadScoreCallback(online=True, method="taylor-token")
    data = [
        {
            "input_ids": row["input_ids"],
            "labels": [token if answer else -100 for token, answer in zip(*row.values(), strict=True)],
        }
        for row in rows()
    ]
    names = (
        "report_to",
        "disable_tqdm",
        "use_cpu",
        "dataloader_pin_memory",
        "save_strategy",
        "max_steps",
        "learning_rate",
    )
    arguments = TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
        **{name: ARGUMENTS[name] for name in names},
    )
    trainer = Trainer(model, arguments, DataCollatorForSeq2Seq(tiny_tokenizer()), data)
    trainer.add_callback(weights)
    trainer.add_callback(callback)
    trainer.train()
    online = callback.online_scores
    assert len(online.sample) == 3 * 6
    assert relative_error(online.score.values, offline_scores(online, model, weights, "taylor-token")) < 1e-4


def test_layers_without_a_gradient_are_named_and_the_others_scored(tmp_path: Path) -> None:
    model = tiny_model(layers=3)
    upper = LoraConfig(r=4, target_modules=r".*layers\.2\..*(q_proj|v_proj)", task_type="CAUSAL_LM")
    weights, callback = Weights(), headnb.HeadScoreCallback(online=True)
    trainer = sft_trainer(model, tmp_path, callback, weights, peft_config=upper)
    with pytest.warns(UserWarning, match="online scores of L0, L1 are NaN"):
        trainer.train()
    online = callback.online_scores
    assert online.attrs["layers_without_gradient"] == "L0,L1"
    assert online.score.isel(layer=[0, 1]).isnull().all()
    expected = offline_scores(online, trainer.model, weights)
    assert relative_error(online.score.values[:, 2], expected[:, 2]) < 1e-4


def test_online_levels_are_the_mean_absolute_scores_of_the_batch(tmp_path: Path) -> None:
    callback = headnb.HeadScoreCallback(online=True)
    sft_trainer(tiny_model(), tmp_path, callback).train()
    online, study = callback.online_scores, callback.study
    second = abs(online.score.values[online.step == 2]).mean(0)
    np.testing.assert_allclose(study.online_level.sel(update=2).values, second, rtol=1e-6)
    np.testing.assert_array_equal(headnb.open_study(tmp_path).online_scores.score, online.score)


@pytest.mark.long
def test_in_bfloat16_online_scores_rank_the_heads_of_each_layer_as_in_float32(tmp_path: Path) -> None:
    levels = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny_model(layers=3, heads=64, kv_heads=64, hidden=512)
        for layer in model.model.layers:  # scales that differ between heads as in a trained model
            layer.self_attn.v_proj.weight.data.view(64, 8, -1).mul_(torch.logspace(-1.5, 0.5, 64)[:, None, None])
        model = model.to(torch.bfloat16).to(dtype)  # the same weights in both
        callback = headnb.HeadScoreCallback(online=True, movement=False)
        sft_trainer(model, tmp_path / str(dtype), callback, max_steps=1, per_device_train_batch_size=24).train()
        levels[dtype] = callback.study.online_level.sel(update=1).values
    for layer in range(3):
        assert spearmanr(levels[torch.float32][layer], levels[torch.bfloat16][layer]).statistic >= 0.999


def test_a_loss_that_is_not_a_mean_over_answer_tokens_is_refused(tmp_path: Path) -> None:
    trainer = sft_trainer(tiny_model(), tmp_path, headnb.HeadScoreCallback(online=True), loss_type="dft")
    with pytest.raises(HeadnbError, match="mean over answer tokens"):
        trainer.train()


class LossOfLogits(QuietSFTTrainer):
    """Computes its own loss from the logits."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        outputs = model(**inputs)
        loss = outputs.logits.square().mean()
        return (loss, outputs) if return_outputs else loss


def test_a_loss_that_is_not_the_models_own_is_refused(tmp_path: Path) -> None:
    callback = headnb.HeadScoreCallback([], online=True)
    with pytest.raises(HeadnbError, match="need the model's own loss"):
        sft_trainer(tiny_model(), tmp_path, callback, trainer=LossOfLogits).train()


def test_evaluation_during_training_leaves_online_scores_alone(tmp_path: Path) -> None:
    """Batches of evaluations and tracked tasks are not training batches and get no online scores."""
    scores = []
    for tasks in ((), {"sums": PAIRS[:5]}):
        callback = headnb.HeadScoreCallback(tasks, online=True, every=1)
        sft_trainer(tiny_model(), tmp_path / str(len(tasks)), callback).train()
        scores.append(callback.online_scores.score.values)
    np.testing.assert_array_equal(*scores)


def test_no_hooks_remain_on_the_model(tmp_path: Path) -> None:
    model = tiny_model()
    sft_trainer(model, tmp_path, headnb.HeadScoreCallback(online=True)).train()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    from headnb.engine import attention_functions

    assert not attention_functions._wrap_counts
