"""All checks and measurements that need a GPU, in under ten minutes: speed, memory, packing, online scores, agreement.

    make gpu                                        # or: python tests/benchmarks/gpu.py --out gpu.md
    python tests/benchmarks/gpu.py --small          # the same steps on the CPU, in seconds; the numbers mean nothing

It needs no data: models have random weights in the shapes of SmolLM2-135M and Llama-3-8B, in bfloat16 (Llama-3-8B's
shape needs 80 GB). Samples have 512 tokens, half of them answer tokens; those of mixed lengths have 32 to 512. The
limit is 4 operations per weight and token (2 forward, 2 backward) at the measured rate of a large bfloat16 matrix
product; the target is 50 % of it. `--out` gets the table as Markdown, for docs/benchmarks.md. A measurement that fails
is a line of the table.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # a trainer would split its batches over several GPUs

import headnb
import numpy as np
import torch
from headnb.engine.tokenization import EncodedSample
from headnb.tasks.row_values import IGNORED
from online import seconds_of_steps
from processes import forget_peak, peak, resident
from rounds import disagreement, median_interval
from shapes import SHAPES, as_rows, random_llama, random_samples
from torch.nn.attention import SDPBackend, sdpa_kernel

from scoring import official

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedModel

Samples = tuple[EncodedSample, ...]
TARGET = 0.5  # share of the limit to reach with samples of 512 tokens
WITHOUT_MATH = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    device: str
    shapes: tuple[str, ...]
    budgets: tuple[int, ...]
    """Tokens of a batch, ascending; the second is used where the batch size does not vary."""
    tokens: int = 512
    matrix: int = 8192
    masked_tokens: int = 8192
    rounds: int = 8
    training_samples: int = 8
    compiled: bool = True


GPU = Size("cuda", ("smollm2-135m", "llama-3-8b"), (2048, 8192, 32768, 65536))
SMALL = Size("cpu", ("tiny",), (128, 256), 64, 64, 32, rounds=2, training_samples=2, compiled=False)


@dataclass(frozen=True)
class Measured:
    """Time and memory of a piece of work."""

    seconds: float
    memory: int
    """Peak memory in bytes above the memory before."""


@dataclass
class Table:
    """The measurements so far; it prints each one at once and leaves the rest out when the time is over."""

    minutes: float
    rows: list[tuple[str, ...]] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)

    def add(self, shape: str, what: str, *values: str) -> None:
        self.rows.append((shape, what, *values))
        print(" | ".join(self.rows[-1]), flush=True)

    def measure(self, shape: str, what: str, work: Callable[[], tuple[str, ...]]) -> None:
        """Add the values that `work` returns, or in one line why there are none."""
        if time.perf_counter() - self.began > 60 * self.minutes:
            self.add(shape, what, "left out: the time is over")
            return
        try:
            values = work()
        except torch.OutOfMemoryError:
            values = ("out of memory",)
        except Exception as error:  # noqa: BLE001  the other measurements go on
            values = (f"not available: {type(error).__name__}: {' '.join(str(error).split())[:100]}",)
        self.add(shape, what, *(value.replace("|", "/") for value in values))
        release()

    def markdown(self, title: str) -> str:
        """The table with its title, in the format of docs/benchmarks.md."""
        head = ("shape", "measurement", "tokens/s or result", "of the limit", "GB above the model")
        rows = [head, ("---",) * len(head), *(row + ("",) * (len(head) - len(row)) for row in self.rows)]
        return f"{title}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def release() -> None:
    """Free the memory of tensors that nothing refers to, also after an error."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def synchronize(device: str) -> None:
    """Wait until the device has done its work: CUDA calls return before."""
    if device == "cuda":
        torch.cuda.synchronize()


def measure(device: str, work: Callable[[], Any], repeats: int = 3) -> Measured:
    """Median time over some repeats after one warm-up run, and the peak memory."""
    work()
    synchronize(device)
    cuda = device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        forget_peak()
    before = torch.cuda.memory_allocated() if cuda else resident()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    most = torch.cuda.max_memory_allocated() if cuda else peak()
    return Measured(statistics.median(seconds), most - before)


def matrix_rate(size: Size, products: int = 20) -> float:
    """Operations per second of a square matrix product in bfloat16."""
    a, b = (torch.randn(size.matrix, size.matrix, device=size.device, dtype=torch.bfloat16) for _ in range(2))

    def work() -> None:
        for _ in range(products):  # launched together, so that the launches do not count
            a @ b

    return 2 * size.matrix**3 * products / measure(size.device, work).seconds


def operations(model: PreTrainedModel, samples: Samples) -> int:
    """4 operations per weight and token. The output head counts at answer tokens only; embeddings are look-ups."""
    head = model.get_output_embeddings().weight.numel()
    body = sum(weight.numel() for name, weight in model.named_parameters() if "layers" in name)
    return 4 * (body * sum(map(len, samples)) + head * sum(sample.answer_tokens for sample in samples))


def score(model: PreTrainedModel, samples: Samples, **options: Any) -> Any:
    """Scores; torch.OutOfMemoryError if batches had to be smaller, whose time would be that of another batch size."""

    def check(progress: Any) -> None:
        if "out of memory" in progress.message:
            raise torch.OutOfMemoryError(progress.message)

    return headnb.score_heads(model, None, as_rows(samples), **{"on_progress": check} | options)


def mixed(samples: Samples) -> Samples:
    """The ends of samples, of random lengths from a sixteenth of the samples' length."""
    lengths = np.random.default_rng(1).integers(len(samples[0]) // 16, len(samples[0]) + 1, len(samples))
    return tuple(
        EncodedSample(sample.input_ids[-n:], sample.labels[-n:]) for sample, n in zip(samples, lengths, strict=True)
    )


@dataclass(frozen=True)
class Scoring:
    """A random model in bfloat16, and samples for it."""

    size: Size
    model: PreTrainedModel
    samples: Samples
    rate: float

    @classmethod
    def of(cls, size: Size, shape: str, rate: float) -> Scoring:
        count = max(4, size.budgets[-1] // size.tokens)
        samples = random_samples(count, size.tokens, SHAPES[shape]["vocab_size"])
        return cls(size, random_llama(shape, dtype=torch.bfloat16, device=size.device), samples, rate)

    def values(self, work: Callable[[], Any], scored: Samples, repeats: int = 3) -> tuple[str, ...]:
        """Tokens per second, share of the limit, and memory."""
        found = measure(self.size.device, work, repeats)
        share = operations(self.model, scored) / self.rate / found.seconds
        return f"{sum(map(len, scored)) / found.seconds:.0f}", f"{share:.0%}", f"{found.memory / 1e9:.2f}"

    def scored(self, samples: Samples | None = None, **options: Any) -> tuple[str, ...]:
        chosen = self.samples if samples is None else samples
        options = {"batch_tokens": self.size.budgets[1]} | options
        return self.values(lambda: score(self.model, chosen, **options), chosen)

    def with_flash_attention(self) -> tuple[str, ...]:
        self.model.set_attn_implementation("flash_attention_2")
        return self.scored()

    def by_the_papers_script(self) -> tuple[str, ...]:
        try:
            return self.values(lambda: official(self.model, self.samples[:4]), self.samples[:4], 1)
        finally:
            self.model.requires_grad_(False)

    def compiled(self) -> tuple[str, ...]:
        self.model.get_decoder().compile()
        return self.scored()


def speeds(table: Table, size: Size, shape: str, rate: float) -> None:
    """Speed, share of the limit and memory: batch sizes, packing, flash attention, and the paper's script."""
    scoring = Scoring.of(size, shape, rate)

    for budget in size.budgets:
        batches = partial(scoring.scored, batch_tokens=budget, packed=False)
        table.measure(shape, f"batches of {budget} tokens", batches)
    best = max((int(row[3][:-1]) for row in table.rows if row[0] == shape and len(row) == 5), default=0)
    table.add(shape, f"{TARGET:.0%} of the limit", "reached" if best >= 100 * TARGET else f"not reached: {best}%")
    lengths = mixed(scoring.samples)
    for name, packed in (("padded", False), ("packed", True)):
        table.measure(shape, f"mixed lengths, {name}", partial(scoring.scored, lengths, packed=packed))
    for name, work in (
        ("flash attention", scoring.with_flash_attention),
        ("the paper's script", scoring.by_the_papers_script),
    ):
        table.measure(shape, name, work)
        scoring.model.set_attn_implementation("sdpa")


def masked_attention(size: Size, shape: str) -> tuple[str, ...]:
    """Whether grouped-query attention with a mask (left padding) runs without PyTorch's math kernel."""
    model = random_llama(shape, dtype=torch.bfloat16, device=size.device, num_hidden_layers=1)
    long, short = random_samples(2, size.masked_tokens, SHAPES[shape]["vocab_size"])
    samples = (long, EncodedSample(short.input_ids[:-8], short.labels[:-8]))
    options = {"padding_side": "left", "batch_tokens": 2 * size.masked_tokens}
    with sdpa_kernel(WITHOUT_MATH):
        found = measure(size.device, lambda: score(model, samples, **options), repeats=1)
    matrices = 2 * model.config.num_attention_heads * size.masked_tokens**2 * 2
    return f"runs; attention matrices would take {matrices / 1e9:.2f} GB", "", f"{found.memory / 1e9:.2f}"


def online(size: Size, shape: str) -> tuple[str, ...]:
    """Time of a training step with online scores, relative to a step without them."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    model = random_llama(shape, device=size.device)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    samples = random_samples(5 * size.training_samples, size.tokens, SHAPES[shape]["vocab_size"])
    rows = Dataset.from_list(
        [
            {
                "input_ids": sample.input_ids.tolist(),
                "completion_mask": (sample.labels != IGNORED).astype(int).tolist(),
            }
            for sample in samples
        ]
    )

    def seconds(*, online: bool) -> float:
        steps = (model, tokenizer, rows, 5, size.training_samples)
        return seconds_of_steps(*steps, online=online, cpu=size.device == "cpu")

    seconds(online=True)  # warm up
    ratios = [1 / (seconds(online=False) / seconds(online=True)) for _ in range(size.rounds)]
    low, high = median_interval(ratios)
    return (f"{statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}] times a step without",)


def agreement(size: Size) -> tuple[str, ...]:
    """Largest difference of scores in float32 on the device, padded and packed, from those on the CPU."""
    samples = mixed(random_samples(8, 64, SHAPES["tiny"]["vocab_size"]))
    expected = score(random_llama("tiny"), samples).score.values
    model = random_llama("tiny").to(size.device)
    found = [
        disagreement(score(model, samples, packed=packed, batch_tokens=256).score.values, expected)
        for packed in (False, True)
    ]
    if max(found) > 1e-4:
        raise AssertionError(f"scores differ from those on the CPU by {max(found):.0e} of the largest")
    return (f"{found[0]:.0e} padded, {found[1]:.0e} packed, of the largest score",)


def out_of_memory(size: Size) -> tuple[str, ...]:
    """Whether a real out-of-memory error leads to smaller batches and the same scores."""
    if size.device != "cuda":
        raise RuntimeError("needs CUDA")
    model = random_llama("smollm2-135m", device=size.device)
    samples = random_samples(32, size.tokens, SHAPES["smollm2-135m"]["vocab_size"])
    expected = score(model, samples, batch_tokens=2 * size.tokens).score.values
    release()
    limit = torch.cuda.memory_reserved() + 3e9  # fewer than 32 samples at once, more than two
    messages: list[str] = []
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    try:
        note = lambda progress: messages.append(progress.message)  # noqa: E731
        found = score(model, samples, batch_tokens=32 * size.tokens, on_progress=note)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return (f"{messages[-1] or 'memory was sufficient'}; difference {disagreement(found.score.values, expected):.0e}",)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="tiny models on the CPU, to test this script")
    parser.add_argument("--shape", choices=[*SHAPES], help="one shape; default: the shapes of real models")
    parser.add_argument("--minutes", type=float, default=9, help="start no measurement after this time")
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    options = parser.parse_args(arguments)
    size = SMALL if options.small else GPU
    if size.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is available; nothing is measured")
        return
    table = Table(options.minutes)
    rate = matrix_rate(size)
    name = torch.cuda.get_device_name() if size.device == "cuda" else "the CPU"
    title = f"{name}, PyTorch {torch.__version__}: {rate / 1e12:.3g}·10¹² operations per second in a bfloat16 product"
    print(title, flush=True)
    shapes = (options.shape,) if options.shape else size.shapes
    table.measure("tiny", "float32 beside the CPU", lambda: agreement(size))
    for shape in shapes:
        try:
            speeds(table, size, shape, rate)
        except torch.OutOfMemoryError:
            table.add(shape, "weights", "out of memory")
        release()
    for what, shape, work in (
        ("online scores in training", shapes[0], lambda: online(size, shapes[0])),
        ("left padding without the math kernel", shapes[-1], lambda: masked_attention(size, shapes[-1])),
        ("out of memory", "smollm2-135m", lambda: out_of_memory(size)),
        *(
            [("torch.compile", shapes[0], lambda: Scoring.of(size, shapes[0], rate).compiled())]
            if size.compiled
            else []
        ),
    ):
        table.measure(shape, what, work)
    if options.out is not None:
        options.out.write_text(table.markdown(title), encoding="utf-8")


if __name__ == "__main__":
    main()
