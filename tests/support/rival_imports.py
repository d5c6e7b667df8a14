"""Processes in which cells import packages while headnb imports torch and transformers in the background.

    python tests/support/rival_imports.py 200

Each process is forked from one that has loaded IPython and the magics, but neither torch nor scipy. It loads the
extension, waits for a random time, and runs cells that import other packages. Then it checks that all of them are
whole, and scores a model. Prints each failure with its seed; the exit status is 1 if there is any.
"""

from __future__ import annotations

import argparse
import builtins
import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import headnb.notebook.extension  # noqa: F401  once for all processes
from IPython.core.interactiveshell import InteractiveShell

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

# Cells whose imports the extension sees, so that they wait.
SEEN = (
    "import torch.nn.functional as F",
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    "from transformers.models.llama import modeling_llama",
    "import importlib; _ = importlib.import_module('torch.distributed')",
    "import headnb; _ = headnb.load_task([('2 + 3 = ', '5')])",
    "%load_ext autoreload",
    "import sympy, scipy.stats",
)
# Packages that a cell imports by a function that the extension does not see, so that both threads import.
UNSEEN = ("torch", "transformers", "scipy.stats", "sympy", "PIL.Image", "numpy.f2py", "huggingface_hub", "jinja2")
CHECK = """
import gc, headnb, scipy.stats, torch, transformers
sizes = dict(vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_key_value_heads=2))
scores = headnb.score_heads(model, None, [{"input_ids": [1, 2, 3, 4], "labels": [-100, -100, 3, 4]}])
assert scores.score.shape == (1, 2, 2)
assert gc.isenabled()
assert 0.97 < scipy.stats.norm.cdf(2) < 0.98
"""


def trial(seed: int, output: Path) -> None:
    """One process: load the extension, then import rivals after a random time; exits with 1 if a cell fails."""
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    rng = random.Random(seed)
    shell = InteractiveShell.instance()
    builtins.unseen = __import__

    def run(cell: str) -> None:
        result = shell.run_cell(cell)
        if not result.success:
            sys.exit(f"{cell}: {result.error_before_exec or result.error_in_exec!r}")

    run("%load_ext headnb")
    time.sleep(rng.choice((0, rng.uniform(0, 1), rng.uniform(0, 5), rng.uniform(0, 20))))
    for cell in rng.sample([*SEEN, *(f"_ = unseen({name!r})" for name in UNSEEN)], 3):
        run(cell)
    run(CHECK)


def run_trials(count: int, *, first: int = 0, parallel: int = 2, seconds: float = 3600) -> dict[int, str]:
    """Seed and output of each trial that failed; one that takes longer than `seconds` counts as a deadlock."""
    context = multiprocessing.get_context("fork")
    seeds, failures = list(range(first, first + count)), {}
    running: dict[int, tuple[BaseProcess, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        while seeds or running:
            while seeds and len(running) < parallel:
                seed = seeds.pop(0)
                process = context.Process(target=trial, args=(seed, Path(folder, str(seed))))
                process.start()
                running[seed] = process, time.monotonic()
            time.sleep(0.2)
            for seed, (process, started) in list(running.items()):
                late = time.monotonic() - started > seconds
                if process.is_alive() and not late:
                    continue
                process.kill()
                process.join()
                del running[seed]
                if late or process.exitcode:
                    output = Path(folder, str(seed)).read_text(errors="replace")
                    failures[seed] = f"{'deadlock' if late else f'exit {process.exitcode}'}\n{output[-3000:]}"
                print(f"seed {seed}: {failures.get(seed, 'whole')}", flush=True)
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", type=int)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--parallel", type=int, default=2)
    options = parser.parse_args()
    failures = run_trials(options.trials, first=options.first, parallel=options.parallel)
    print(f"{options.trials} trials, {len(failures)} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
