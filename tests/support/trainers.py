"""Trainers of the tiny model without telemetry, and samples of many lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from tiny import tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

ARGUMENTS: dict[str, Any] = {
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
    "dataloader_pin_memory": False,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "logging_steps": 1,
    "max_steps": 3,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "completion_only_loss": True,
}
PAIRS = [
    (f"What is {a} plus {b}? {'Think. ' * (a % 3)}", f"It is {a + b}{', sure' * (b % 4)}.")
    for a in range(4)
    for b in range(6)
]


class QuietSFTTrainer(SFTTrainer):
    """TRL's trainer without telemetry."""

    def _send_telemetry(self) -> None:
        pass


def rows(pairs: list[tuple[str, str]] = PAIRS) -> list[dict[str, list[int]]]:
    """Encoded rows: prompt and completion tokenized separately, followed by the end-of-sequence token."""
    tokenizer = tiny_tokenizer()
    encoded = []
    for prompt, completion in pairs:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, completion)]
        ids[1].append(tokenizer.eos_token_id)
        encoded.append({"input_ids": ids[0] + ids[1], "completion_mask": [0] * len(ids[0]) + [1] * len(ids[1])})
    return encoded


def sft_trainer(
    model: PreTrainedModel,
    folder: Path,
    *callbacks: TrainerCallback,
    trainer: type = QuietSFTTrainer,
    peft_config: Any = None,
    **arguments: Any,
) -> SFTTrainer:
    return trainer(
        model=model,
        args=SFTConfig(str(folder), **ARGUMENTS | arguments),
        train_dataset=Dataset.from_list(rows()),
        processing_class=tiny_tokenizer(),
        peft_config=peft_config,
        callbacks=list(callbacks),
    )


class Weights(TrainerCallback):
    """Records the weights before each update."""

    def __init__(self) -> None:
        self.before: dict[int, dict[str, Any]] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.before[state.global_step + 1] = {
            name: value.detach().clone() for name, value in model.state_dict().items()
        }
