"""Cost of tracking: the defaults of `finetune` beside its training, and `track_checkpoints` beside its scoring.

    python tests/benchmarks/tracking.py            # the default model; minutes on a quiet machine
    python tests/benchmarks/tracking.py --every 5  # with explicit counts, as the defaults of %headsft were before

Scoring, training and everything else are timed in one process, so that their ratios hold on a shared machine too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import headnb
from headnb.tuning import checkpoint_tracking
from headnb.tuning.tracking import HeadScoreCallback
from headnb.tuning.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable


def timed(seconds: dict[str, float], part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose time is added to `seconds[part]`."""

    def call(*given: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*given, **options)
        finally:
            seconds[part] += time.perf_counter() - began

    return call


def finetuning(model: Any, tokenizer: Any, steps: int, batch_size: int, **options: Any) -> None:
    """Print the time of tracking (with its measurement and its files) beside that of the updates."""
    seconds: dict[str, float] = defaultdict(float)
    with ExitStack() as patches:
        for owner, name, part in (
            (HeadScoreCallback, "_make_plan", "tracking"),
            (HeadScoreCallback, "_track", "tracking"),
            (Trainer, "training_step", "updates"),
        ):
            patches.enter_context(mock.patch.object(owner, name, timed(seconds, part, getattr(owner, name))))
        result = headnb.finetune(model, tokenizer, "gsm_symbolic", steps=steps, batch_size=batch_size, **options)
    (sizes,) = (scores.sizes for scores in result.scores.values())
    print(
        f"{steps} updates of {batch_size} samples: {seconds['updates']:.1f} s; {sizes['sample']} samples tracked at "
        f"{sizes['step']} steps: {seconds['tracking']:.1f} s, {seconds['tracking'] / seconds['updates']:.0%}",
        flush=True,
    )


def checkpoints(model: Any, tokenizer: Any, count: int, samples: int) -> None:
    """Print the time of `track_checkpoints` for `count` adapters beside that of its calls of `score_heads`."""
    seconds: dict[str, float] = defaultdict(float)
    task = headnb.load_task("gsm_symbolic", n=samples)
    with tempfile.TemporaryDirectory() as folder:
        saving = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": None, "save_only_model": True}
        how = {"steps": count, "track": [], "batch_size": 1, "max_length": 64, "output_dir": folder}
        headnb.finetune(model, tokenizer, "gsm_symbolic", **how, **saving)
        scoring = timed(seconds, "scoring", checkpoint_tracking.score_heads)
        began = time.perf_counter()
        with mock.patch.object(checkpoint_tracking, "score_heads", scoring):
            headnb.track_checkpoints(str(Path(folder) / "checkpoint-*"), task, base=model, tokenizer=tokenizer)
        whole = time.perf_counter() - began
    print(
        f"{count} adapters and the base, {samples} samples each: {whole:.1f} s, {whole / seconds['scoring']:.3f} times "
        f"the {seconds['scoring']:.1f} s of scoring",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, help="track all samples every so many steps; default: within the budget")
    parser.add_argument("--shape", choices=["short", "long", "checkpoints"], help="only this measurement")
    parser.add_argument("--samples", type=int, default=8, help="samples of each checkpoint")
    parser.add_argument("--steps", type=int, default=60, help="updates of the long fine-tuning")
    options = parser.parse_args()
    model, tokenizer = headnb.load_model("smollm2-135m", device="cpu", dtype="float32")
    counts = {} if options.every is None else {"every": options.every}
    if options.shape in (None, "short"):
        finetuning(model, tokenizer, 6, 4, **counts)
    if options.shape in (None, "long"):
        finetuning(model, tokenizer, options.steps, 8, **counts)
    if options.shape in (None, "checkpoints"):
        checkpoints(model, tokenizer, 20, options.samples)


if __name__ == "__main__":
    main()
