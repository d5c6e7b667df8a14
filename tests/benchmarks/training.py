"""CPU time of a training step on a CPU, with losses at answer tokens only and with TRL's losses at every position.

    python tests/benchmarks/training.py --rounds 5        # needs HEADNB_DATA and the default model; five minutes

Each round trains the same LoRA steps both ways, in alternating order. The table gives the median of the rounds' ratios
and an interval for it (order statistics), and the largest difference of a training loss.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from unittest import mock

import headnb
from headnb.tuning.answer_losses import answer_losses_only
from rounds import median_interval

WAYS = {"answers": answer_losses_only, "every position": contextlib.nullcontext}


def cpu_of_step(model, tokenizer, task, way: str, given: argparse.Namespace) -> tuple[float, list[float]]:
    """Median CPU seconds of a step without the first, and the losses."""
    ends = {}

    def report(progress: headnb.tuning.progress.TuningProgress) -> None:
        ends.setdefault(progress.step, time.process_time())

    with mock.patch("headnb.tuning.training.answer_losses_only", WAYS[way]):
        tuned = headnb.finetune(
            model,
            tokenizer,
            task,
            steps=given.steps,
            batch_size=given.batch_size,
            max_length=given.max_length,
            track=[],
            logging_steps=1,
            on_progress=report,
        )
    times = [ends[step] - ends[step - 1] for step in range(2, given.steps + 1)]
    return statistics.median(times), tuned.study["train_loss"].to_numpy().tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=192)
    parser.add_argument("--task", nargs="+", default=["gsm8k", "mathqa_python", "boolq"])
    given = parser.parse_args()
    model, tokenizer = headnb.load_model("smollm2-135m", dtype="bfloat16")
    for name in given.task:
        task = headnb.load_task(name, split="train", n=64)
        ratios, difference = [], 0.0
        for number in range(given.rounds):
            order = list(WAYS)[:: 1 if number % 2 else -1]
            measured = {way: cpu_of_step(model, tokenizer, task, way, given) for way in order}
            (one, losses), (other, of_all) = (measured[way] for way in WAYS)
            ratios.append(other / one)
            difference = max(difference, *(abs(a - b) for a, b in zip(losses, of_all, strict=True)))
        low, high = median_interval(ratios)
        print(f"| {name} | {statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}] | {difference:.1e} |", flush=True)


if __name__ == "__main__":
    main()
