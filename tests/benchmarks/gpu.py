"""Activation scores on one CUDA device: speed, fraction of the matrix-product rate, memory, and possible speed-ups.

    python tests/benchmarks/gpu.py            # random weights, no data; Llama-3-8B's shape needs 80 GB

Models have random bfloat16 weights in the shapes of SmolLM2-135M and Llama-3-8B. Samples have 512 tokens, half of them
answer tokens. The limit is 4 operations per weight and token (2 forward, 2 backward) at the measured rate of a large
bfloat16 matrix product.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import headnb
import torch
from headnb.engine.tokenization import IGNORED, EncodedSample
from online import seconds_of_steps
from processes import forget_peak, peak, resident
from rounds import median_interval
from shapes import SHAPES, as_rows, random_llama, random_samples
from torch.nn.attention import SDPBackend, sdpa_kernel

from scoring import official

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedModel

Samples = tuple[EncodedSample, ...]
TOKENS = 512
WITHOUT_MATH = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]


@dataclass(frozen=True)
class Measured:
    """Time and memory of a piece of work."""

    seconds: float
    memory: int
    """Peak memory in bytes above the memory before."""


def measure(device: str, work: Callable[[], Any], repeats: int = 3) -> Measured:
    """Median time over some repeats after one warm-up run, and the peak memory."""
    cuda = device == "cuda"
    work()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    forget_peak()
    before = torch.cuda.memory_allocated() if cuda else resident()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    most = torch.cuda.max_memory_allocated() if cuda else peak()
    return Measured(statistics.median(seconds), most - before)


def matrix_rate(device: str, size: int) -> float:
    """Operations per second of a square matrix product in bfloat16."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / measure(device, lambda: a @ b, repeats=10).seconds


def operations(model: PreTrainedModel, samples: Samples) -> int:
    """4 operations per weight and token. The output head counts at answer tokens only; embeddings are look-ups."""
    head = model.get_output_embeddings().weight.numel()
    body = sum(weight.numel() for name, weight in model.named_parameters() if "layers" in name)
    return 4 * (body * sum(map(len, samples)) + head * sum(sample.answer_tokens for sample in samples))


def score(model: PreTrainedModel, samples: Samples, **options: Any) -> None:
    headnb.score_heads(model, None, as_rows(samples), **options)


@contextlib.contextmanager
def errors_printed(measurement: str) -> Iterator[None]:
    """Print an error of a measurement as one line, so that the benchmark continues."""
    try:
        yield
    except (ImportError, RuntimeError, ValueError, headnb.HeadnbError) as error:
        message = " ".join(str(error).split())[:120]
        print(f"{measurement}: not available: {type(error).__name__}: {message}", flush=True)


def line(what: str, found: Measured, model: PreTrainedModel, samples: Samples, rate: float) -> None:
    speed = sum(map(len, samples)) / found.seconds
    share = operations(model, samples) / rate / found.seconds
    print(f"{what:38}{speed:12.0f}{share:10.0%}{found.memory / 1e9:16.3f}", flush=True)


def speeds(device: str, shape: str, budgets: tuple[int, ...], rate: float) -> None:
    """Print the table of a shape: batch sizes, possible speed-ups, and the paper's script."""
    model = random_llama(shape, dtype=torch.bfloat16, device=device)
    samples = random_samples(max(2, budgets[-1] // TOKENS), TOKENS, SHAPES[shape]["vocab_size"])
    print(f"\n{shape}\n{'':38}{'tokens/s':>12}{'of limit':>10}{'GB above model':>16}")
    for budget in budgets:
        with errors_printed(f"batches of {budget} tokens"):
            found = measure(device, lambda budget=budget: score(model, samples, batch_tokens=budget))
            line(f"batches of {budget} tokens", found, model, samples, rate)
    default = {"batch_tokens": budgets[1]}
    with errors_printed("packed rows"):
        line(
            "packed rows", measure(device, lambda: score(model, samples, **default, packed=True)), model, samples, rate
        )
    with errors_printed("flash attention"):
        model.set_attn_implementation("flash_attention_2")
        line("flash attention", measure(device, lambda: score(model, samples, **default)), model, samples, rate)
    model.set_attn_implementation("sdpa")
    with errors_printed("the paper's script"):
        line("the paper's script", measure(device, lambda: official(model, samples[:4]), 1), model, samples[:4], rate)
    model.set_attn_implementation("sdpa")
    with errors_printed("torch.compile"):
        model.get_decoder().compile()
        line("torch.compile", measure(device, lambda: score(model, samples, **default)), model, samples, rate)


def masked_attention(device: str, shape: str, tokens: int) -> None:
    """Test whether grouped-query attention with a mask (left padding) runs without PyTorch's math kernel."""
    model = random_llama(shape, dtype=torch.bfloat16, device=device, num_hidden_layers=1)
    long, short = random_samples(2, tokens, SHAPES[shape]["vocab_size"])
    samples = (long, EncodedSample(short.input_ids[:-8], short.labels[:-8]))
    options = {"padding_side": "left", "batch_tokens": 2 * tokens}
    with errors_printed("grouped-query sdpa with a mask, without the math kernel"), sdpa_kernel(WITHOUT_MATH):
        found = measure(device, lambda: score(model, samples, **options), repeats=1)
        matrices = 2 * model.config.num_attention_heads * tokens**2 * 2
        print("\ngrouped-query sdpa with a mask runs without the math kernel")
        print(f"memory above the model for two samples of {tokens} tokens: {found.memory / 1e9:.3f} GB")
        print(f"size of their attention matrices: {matrices / 1e9:.3f} GB per layer")


def online(device: str, shape: str, rounds: int) -> None:
    """Time of a training step with online scores, relative to a step without them."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    model = random_llama(shape, device=device)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")
    samples = random_samples(40, TOKENS, SHAPES[shape]["vocab_size"])
    rows = Dataset.from_list(
        [
            {
                "input_ids": sample.input_ids.tolist(),
                "completion_mask": (sample.labels != IGNORED).astype(int).tolist(),
            }
            for sample in samples
        ]
    )
    work = (model, tokenizer, rows, 5, 8)
    seconds_of_steps(*work, online=True, cpu=device == "cpu")  # warm up
    ratios = []
    for _ in range(rounds):
        found = {on: seconds_of_steps(*work, online=on, cpu=device == "cpu") for on in (False, True)}
        ratios.append(found[True] / found[False])
    low, high = median_interval(ratios)
    print(f"\n{shape}, training with 8 samples per step: time with / without online scores")
    print(f"{statistics.median(ratios):.4f} [{low:.4f}, {high:.4f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8, help="rounds of training with and without online scores")
    parser.add_argument("--shape", choices=[*SHAPES], help="one shape; default: the shapes of real models")
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is available; nothing is measured")
        return
    small = options.device == "cpu"
    name = "the CPU" if small else torch.cuda.get_device_name()
    rate = matrix_rate(options.device, 256 if small else 8192)
    print(f"{name}: {rate / 1e12:.3g} tera-operations per second in a bfloat16 matrix product")
    budgets = (TOKENS, 2 * TOKENS) if small else (2048, 8192, 32768, 65536)
    shapes = [options.shape] if options.shape else ["smollm2-135m", "llama-3-8b"]
    for shape in shapes:
        speeds(options.device, shape, budgets, rate)
    masked_attention(options.device, shapes[-1], 256 if small else 8192)
    online(options.device, shapes[0], options.rounds)


if __name__ == "__main__":
    main()
