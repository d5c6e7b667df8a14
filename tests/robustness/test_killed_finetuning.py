"""A tracked fine-tuning is killed at random moments; the same call resumes it, with bitwise equal results.

A run is killed repeatedly until it ends, so one run gives several cases. Fifty cases are slow: `make robustness`.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import headnb
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file

from forks import PROCESSES
from tiny import tiny_model, tiny_tokenizer
from trainers import PAIRS

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from pathlib import Path

STEPS, SAVED = 12, 2  # optimizer steps in total, and between two checkpoints
HELD_OUT = [(f"What is {a} plus {b}? ", f"It is {a + b}.") for a, b in ((1, 9), (3, 8), (2, 7))]
# With dropout, so that the state of the random generators must be restored.
ADAPTERS = LoraConfig(r=4, lora_dropout=0.2, target_modules="all-linear", task_type="CAUSAL_LM")
KINDS: dict[str, dict[str, Any]] = {
    "adapters": {"peft_config": ADAPTERS},
    "all weights": {"inplace": True},
    "some heads": {"inplace": True, "heads": "L0H1,L1H2,L1H3"},
}


def train(kind: str, out: Path, reports: Connection) -> None:
    """Train, save the study and apply the result, as notebook 02 does; report each step."""
    torch.set_num_threads(1)
    model = tiny_model(attention_dropout=0.1)
    options = {"steps": STEPS, "every": [0, 1, 5, 8], "save_steps": SAVED, "learning_rate": 3e-3, **KINDS[kind]}
    tuned = headnb.finetune(
        model,
        tiny_tokenizer(),
        PAIRS,
        **options,
        track={"held out": HELD_OUT, "trained": PAIRS[:4]},
        online=True,
        output_dir=out / "trainer",
        resume=True,
        on_progress=lambda progress: reports.send(progress.step),
    )
    tuned.save(out)
    with tuned.applied(model) as trained:
        save_file({name: value.clone() for name, value in trained.state_dict().items()}, out / "weights.safetensors")


class Training:
    """A training in another process."""

    def __init__(self, kind: str, out: Path) -> None:
        self._reports, theirs = PROCESSES.Pipe(duplex=False)
        self.process: BaseProcess = PROCESSES.Process(target=train, args=(kind, out, theirs))
        self.process.start()
        theirs.close()

    def step(self) -> int | None:
        """Wait for the next reported step; None when the training has ended."""
        with suppress(EOFError):
            step: int = self._reports.recv()
            return step
        self.process.join()
        return None

    def kill(self) -> bool:
        """Kill the training; return whether it was still running."""
        self.process.kill()
        self.process.join()
        assert self.process.exitcode in {-signal.SIGKILL, 0}
        return self.process.exitcode != 0


def undisturbed(kind: str, out: Path) -> list[float]:
    """Train without kills; return the seconds before each step (the first from the start) and after the last."""
    times = [time.perf_counter()]
    training = Training(kind, out)
    while training.step() is not None:
        times.append(time.perf_counter())
    assert training.process.exitcode == 0
    return [after - before for before, after in zip(times, [*times[1:], time.perf_counter()], strict=True)]


def complete(checkpoint: Path) -> bool:
    """Whether a checkpoint's state, which is written last, exists."""
    with suppress(OSError, ValueError):
        return bool(json.loads((checkpoint / "trainer_state.json").read_text()))
    return False


def last_checkpoint(out: Path) -> int:
    """Step from which a run in this folder resumes."""
    whole = [path for path in (out / "trainer").glob("checkpoint-*") if complete(path)]
    return max((int(path.name.rpartition("-")[2]) for path in whole), default=0)


def half_checkpoints(out: Path) -> dict[Path, int]:
    """Files of incomplete checkpoints, with their modification times."""
    half = [path for path in (out / "trainer").glob("checkpoint-*") if not complete(path)]
    found = {}
    for path in (file for folder in half for file in folder.glob("*")):
        with suppress(OSError):
            found[path] = path.stat().st_mtime_ns
    return found


def wait_for_half_a_checkpoint(training: Training, out: Path, left: dict[Path, int]) -> None:
    """Wait until a checkpoint is being written, ignoring the remains `left` by an earlier kill."""
    while training.process.is_alive() and not half_checkpoints(out).items() - left.items():
        time.sleep(0.0002)


def same_files(one: Path, other: Path) -> bool:
    """Whether weights are bitwise equal, and studies and scores identical."""
    studies = [headnb.open_study(folder) for folder in (one, other)]
    datasets = [[study.study, study.online_scores, *study.scores.values()] for study in studies]
    return (
        (one / "weights.safetensors").read_bytes() == (other / "weights.safetensors").read_bytes()
        and list(studies[0].scores) == list(studies[1].scores)
        and all(a.drop_attrs().identical(b.drop_attrs()) for a, b in zip(*datasets, strict=True))
        and studies[0].study.attrs == studies[1].study.attrs
    )


@pytest.mark.long
@pytest.mark.parametrize("cases", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_a_fine_tuning_killed_at_random_moments_ends_bitwise_equal(cases: int, tmp_path: Path) -> None:
    moments = random.Random(cases)
    kinds = list(KINDS)[: 1 if cases < 10 else None]
    seconds = {kind: undisturbed(kind, tmp_path / kind) for kind in kinds}
    kills, runs, moments_of = 0, 0, Counter[str]()
    while kills < cases:
        kind = kinds[runs % len(kinds)]
        out, last = tmp_path / f"run {runs}", 0
        while True:
            left, training = half_checkpoints(out), Training(kind, out)
            first = -1 if kills < cases and moments.random() < 0.1 else training.step()
            if kills >= cases or first is None:
                while training.step() is not None:
                    pass
                break
            if first < 0:
                time.sleep(moments.uniform(0, seconds[kind][0]))
            else:
                assert first == last  # resumes from the last checkpoint that was complete at the kill
                if moments.random() < 0.3:
                    wait_for_half_a_checkpoint(training, out, left)
                    time.sleep(moments.uniform(0, 0.02))
                else:
                    step = first
                    for _ in range(moments.randrange(min(6, STEPS - first + 1))):
                        step = training.step() or STEPS
                    time.sleep(moments.uniform(0, seconds[kind][step + 1]))
            if not training.kill():
                break
            kills += 1
            last = last_checkpoint(out)
            half = half_checkpoints(out).items() - left.items()
            moment = "while a checkpoint was written" if half else "at the end" if last == STEPS else "between"
            moments_of["before the first step" if first < 0 else moment] += 1
        assert training.process.exitcode == 0
        assert same_files(out, tmp_path / kind)
        runs += 1
    print(f"kills of a fine-tuning: {kills} tried, {dict(moments_of)}; all {runs} runs ended bitwise equal")
    assert moments_of["while a checkpoint was written"] or cases < 10
