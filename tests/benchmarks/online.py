"""Cost of online scores: seconds of a training step with and without them, alternating in one process.

    python tests/benchmarks/online.py            # needs HEADNB_DATA and the default model; two minutes

Each round trains the same steps on the same batches with and without online scores. The order alternates. The table
gives the median of the rounds' ratios and an interval for it (order statistics).
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from typing import Any

import headnb
import torch
from headnb.engine.tokenization import encode_task
from rounds import median_interval
from transformers import TrainerCallback


class StepTimes(TrainerCallback):
    """Seconds of each update, including all callbacks of the update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = self._now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(self._now() - self._began)

    def _now(self) -> float:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter()


def seconds_of_steps(
    model: Any, tokenizer: Any, rows: Any, steps: int, batch_size: int, *, online: bool, cpu: bool = True
) -> float:
    """Median seconds of a step, without the first step."""
    from trl import SFTConfig, SFTTrainer

    class Trainer(SFTTrainer):
        def _send_telemetry(self) -> None:
            pass

    times = StepTimes()
    callbacks = [headnb.HeadScoreCallback(online=True, movement=False)] if online else []
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        arguments = SFTConfig(
            folder,
            report_to="none",
            disable_tqdm=True,
            use_cpu=cpu,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            max_steps=steps,
            per_device_train_batch_size=batch_size,
            learning_rate=0.0,  # the weights stay the same in all rounds
            completion_only_loss=True,
            max_length=None,
        )
        # The timing callback comes last, so that it includes the work of online scores at the end of a step.
        Trainer(model, arguments, train_dataset=rows, processing_class=tokenizer, callbacks=[*callbacks, times]).train()
    return statistics.median(times.seconds[1:])


def main() -> None:
    from datasets import Dataset

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=160)
    options = parser.parse_args()
    model, tokenizer = headnb.load_model("smollm2-135m", device="cpu", dtype="float32")
    task = headnb.load_task("gsm8k", split="train", n=options.batch_size * options.steps)
    encoded = encode_task(task, tokenizer, max_length=options.max_length)
    rows = Dataset.from_list(
        [
            {"input_ids": sample.input_ids.tolist(), "completion_mask": (sample.labels >= 0).astype(int).tolist()}
            for sample in encoded.samples
        ]
    )
    model.requires_grad_(True)
    work = (model, tokenizer, rows, options.steps, options.batch_size)
    seconds_of_steps(*work, online=True)  # warm up
    ratios, plain = [], []
    for round_ in range(options.rounds):
        order = (False, True) if round_ % 2 else (True, False)
        found = {online: seconds_of_steps(*work, online=online) for online in order}
        ratios.append(found[True] / found[False])
        plain.append(found[False])
    low, high = median_interval(ratios)
    threads = torch.get_num_threads()
    print(f"{len(ratios)} rounds of {options.steps} steps of {options.batch_size} samples, {threads} threads")
    print(f"a step without online scores: {statistics.median(plain):.2f} s")
    print(f"with online scores: {statistics.median(ratios):.4f} times as long [{low:.4f}, {high:.4f}]")


if __name__ == "__main__":
    main()
