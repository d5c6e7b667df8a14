"""A fine-tuning resumes in its output folder only with the same settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from headnb.errors import HeadnbError
from headnb.tuning.training import TuningInterrupted
from peft import LoraConfig

from short_trainings import short_finetuning
from tiny import tiny_model

if TYPE_CHECKING:
    from pathlib import Path

    from headnb.tuning.progress import TuningProgress


def stop(progress: TuningProgress) -> None:
    if progress.scoring is None and progress.step == 3:
        raise KeyboardInterrupt


def lora(**options: Any) -> LoraConfig:
    return LoraConfig(**{"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"peft_config": lora(lora_alpha=64)}, "peft_config.lora_alpha the default, not 64"),
        ({"peft_config": lora(r=8)}, "peft_config.r 4, not the default"),
        ({"gradient_accumulation_steps": 4}, "gradient_accumulation_steps the default, not 4"),
        ({"dataloader_drop_last": True}, "dataloader_drop_last the default, not True"),
        ({"model": tiny_model(seed=1)}, "model_fingerprint"),
    ],
)
def test_a_fine_tuning_with_other_settings_does_not_resume(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    options: dict[str, Any] = {"model": tiny_model(), "peft_config": lora(), "output_dir": tmp_path}
    with pytest.raises(TuningInterrupted):
        short_finetuning(on_progress=stop, **options)
    with pytest.raises(HeadnbError, match=message):
        short_finetuning(resume=True, **options | changed)
    same = {"logging_steps": 2, "gradient_checkpointing": True, "weight_decay": 0.0, "batch_size": np.int64(8)}
    short_finetuning(resume=True, **options | same)


def test_a_resumed_in_place_run_has_no_parameter_distance(tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(TuningInterrupted):
        short_finetuning(model, inplace=True, output_dir=tmp_path, on_progress=stop)
    with pytest.warns(UserWarning, match="movement is not available"):
        resumed = short_finetuning(model, inplace=True, output_dir=tmp_path, resume=True).study
    whole = short_finetuning(tiny_model(), inplace=True).study
    np.testing.assert_array_equal(resumed.level, whole.level)
    np.testing.assert_array_equal(resumed.movement[:2], whole.movement[:2])
    assert resumed.movement[2].isnull().all()


def test_a_finished_run_of_half_an_epoch_takes_no_further_step(tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": None, "num_train_epochs": 0.5, "output_dir": tmp_path}
    first = short_finetuning(tiny_model(), **options)
    again = short_finetuning(tiny_model(), resume=True, **options)
    assert again.study.identical(first.study)
