"""Speed and memory of activation scores, compared with the paper's script and plain transformers.

    python tests/benchmarks/scoring.py            # needs HEADNB_DATA, the default model, 20 GB and a quarter of an hour

Every method runs in its own process, and the methods take turns. The table gives medians over rounds and ratios to
headnb in the same round. The scores of all methods are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import headnb
import numpy as np
import torch
from headnb.engine.batching import collate, plan_batches
from headnb.engine.model_contexts import frozen
from headnb.engine.tokenization import EncodedSample, encode_task
from headnb.scoring.gradient import activation, gradient_scorer
from headnb.tasks.row_values import IGNORED
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

Samples = tuple[EncodedSample, ...]


def headnb_scores(model: PreTrainedModel, samples: Samples) -> np.ndarray:
    rows = [{"input_ids": sample.input_ids.tolist(), "labels": sample.labels.tolist()} for sample in samples]
    return headnb.score_heads(model, None, rows).score.values


def official(model: PreTrainedModel, samples: Samples) -> np.ndarray:
    """The paper's script: eager attention, batches of four padded to 1024 tokens, gradients of all parameters."""
    model.requires_grad_(True)
    return attention_matrix_scores(model, samples, length=1024)


def eager_dynamic(model: PreTrainedModel, samples: Samples) -> np.ndarray:
    """The paper's script with one change: batches are padded to their longest sample."""
    model.requires_grad_(True)
    return attention_matrix_scores(model, samples)


def eager_frozen(model: PreTrainedModel, samples: Samples) -> np.ndarray:
    """As `eager_dynamic`, without gradients of parameters."""
    model.requires_grad_(False)
    return attention_matrix_scores(model, samples)


def attention_matrix_scores(model: PreTrainedModel, samples: Samples, length: int = 0) -> np.ndarray:
    model.set_attn_implementation("eager")
    found = []
    for start in range(0, len(samples), 4):
        batch = collate(samples[start : start + 4])
        padding = (0, max(0, length - batch.input_ids.shape[1]))
        ids, labels = functional.pad(batch.input_ids, padding), functional.pad(batch.labels, padding, value=IGNORED)
        mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in samples[start : start + 4]])[:, None]
        ids, labels, mask = (tensor.to(model.device) for tensor in (ids, labels, mask))
        embeddings = model.get_input_embeddings()(ids).requires_grad_()
        output = model(
            inputs_embeds=embeddings, attention_mask=mask.long(), labels=labels, output_attentions=True, use_cache=False
        )
        for attention in output.attentions:
            attention.retain_grad()
        output.loss.backward()
        tokens = (labels[:, 1:] != IGNORED).sum(1)
        scores = torch.stack([(A.detach() * A.grad).sum((2, 3)) for A in output.attentions], 1)
        found.append(scores * (tokens.sum() / tokens)[:, None, None])  # batch-mean to sample-mean loss
        model.zero_grad()
    return torch.cat(found).float().cpu().numpy()


def plain_backward(model: PreTrainedModel, samples: Samples) -> None:
    """Forward pass with labels and backward pass to the embeddings, without scores, on batches of similar length."""
    with frozen(model):
        for batch in padded_batches(samples):
            embeddings = model.get_input_embeddings()(batch.input_ids).detach().requires_grad_()
            model(inputs_embeds=embeddings, labels=batch.labels, use_cache=False).loss.backward()


def padded_batches(samples: Samples) -> Iterator:
    """headnb's batches without packing: at most 5 % padding. Plain attention is slower on packed rows."""
    plan = plan_batches(np.array([len(sample) for sample in samples]), batch_tokens=4096)
    for slots in plan.batches():
        yield collate([samples[position] for position in plan.order[slots]])


METHODS = {
    "headnb": headnb_scores,
    "plain forward + backward": plain_backward,
    "eager, dynamic, frozen": eager_frozen,
    "eager, dynamic padding": eager_dynamic,
    "official settings": official,
}


def default_model(samples: int) -> tuple[PreTrainedModel, Samples]:
    model, tokenizer = headnb.load_model("smollm2-135m", device="cpu", dtype=torch.float32)
    path = Path(os.environ["HEADNB_DATA"]) / "gsm8k.test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()[:samples]]
    return model, encode_task(headnb.load_task(rows), tokenizer).samples


def llama_shaped(samples: int) -> tuple[PreTrainedModel, Samples]:
    """Two layers of TinyLlama's shape with a small vocabulary, and samples of the same lengths."""
    _, real = default_model(samples)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=2,
        num_attention_heads=32,
        num_key_value_heads=4,
    )
    torch.manual_seed(0)
    ids = [np.asarray(sample.input_ids) % 1024 for sample in real]
    mapped = [
        EncodedSample(row, np.where(sample.labels == IGNORED, IGNORED, row))
        for row, sample in zip(ids, real, strict=True)
    ]
    return LlamaForCausalLM(config).eval(), tuple(mapped)


MODELS = {"smollm2-135m": default_model, "llama-shaped layers": llama_shaped}


def measure(model_name: str, method: str, samples: int, save: str | None) -> dict[str, float]:
    """The work of one process: seconds of the second run, peak memory, and scores for the comparison."""
    model, encoded = MODELS[model_name](samples)
    # With padding to 1024 tokens all batches cost the same, so the official settings run one batch without warm-up.
    part = encoded[:4] if method == "official settings" else encoded
    if part is encoded:
        METHODS[method](model, part)  # warm up
    began = time.perf_counter()
    scores = METHODS[method](model, part)
    seconds = (time.perf_counter() - began) * len(encoded) / len(part)
    if save and scores is not None:
        np.save(save, scores)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "peak": peak, "limit": least_seconds(model, encoded), "tokens": sum(map(len, encoded))}


def least_seconds(model: PreTrainedModel, samples: Samples) -> float:
    """Lower limit: 4 operations per weight and token (2 forward, 2 backward) at the measured matrix-product rate."""
    head = model.get_output_embeddings().weight.numel()
    body = sum(weight.numel() for name, weight in model.named_parameters() if "layers" in name)
    work = 4 * (body * sum(map(len, samples)) + head * sum(sample.answer_tokens for sample in samples))
    return work / matrix_rate()


def matrix_rate(size: int = 2048, repeats: int = 5) -> float:
    a, b = torch.randn(size, size), torch.randn(size, size)
    rates = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        a @ b
        rates.append(2 * size**3 / (time.perf_counter() - began))
    return statistics.median(rates[1:])


def long_sample(tokens: int = 8192) -> dict[str, float]:
    """Time and memory of one long sample whose second half is the answer."""
    model, _ = default_model(1)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    ids = np.random.default_rng(0).integers(0, 40_000, tokens)
    sample = EncodedSample(ids, np.where(np.arange(tokens) < tokens // 2, IGNORED, ids))
    began = time.perf_counter()
    scores, _ = gradient_scorer(model, activation)(collate([sample]), budget=1)
    assert scores.isfinite().all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": time.perf_counter() - began, "peak": peak, "loaded": loaded}


def child(*arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def agreement(folder: Path) -> None:
    reference = np.load(folder / "headnb.npy")
    for method in ("eager, dynamic, frozen", "eager, dynamic padding", "official settings"):
        if (path := folder / f"{method}.npy").exists():
            scores = np.load(path)
            error = abs(scores - reference[: len(scores)]).max() / abs(reference).max()
            print(f"{method} and headnb agree to {error:.1e} of the largest score")
            assert error < 1e-4


def compare(model_name: str, methods: list[str], rounds: int, samples: int, folder: Path) -> None:
    found: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
    for _ in range(rounds):
        for method in methods:
            found[method].append(
                child(
                    "--child", method, "--model", model_name, "--samples", str(samples), "--save", str(folder / method)
                )
            )
    print(f"\n{model_name}, {samples} samples of gsm8k, {torch.get_num_threads()} threads, medians of {rounds} rounds")
    print(f"{'method':28}{'seconds':>9}{'tokens/s':>10}{'peak GB':>9}{'time':>8}{'memory':>8}{'of limit':>10}")
    for method, runs in found.items():
        pairs = list(zip(runs, found["headnb"], strict=True))
        time_ratio = statistics.median(run["seconds"] / own["seconds"] for run, own in pairs)
        memory_ratio = statistics.median(run["peak"] / own["peak"] for run, own in pairs)
        seconds, peak = (statistics.median(run[key] for run in runs) for key in ("seconds", "peak"))
        reached = statistics.median(run["limit"] / run["seconds"] for run in runs)
        columns = f"{seconds:9.1f}{runs[0]['tokens'] / seconds:10.0f}{peak / 1e9:9.2f}"
        print(f"{method:28}{columns}{time_ratio:7.2f}x{memory_ratio:7.2f}x{reached:9.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--without-official", action="store_true", help="omit the official settings, which need 20 GB")
    parser.add_argument("--child", choices=[*METHODS, "long"], help=argparse.SUPPRESS)
    parser.add_argument("--model", choices=list(MODELS), help=argparse.SUPPRESS)
    parser.add_argument("--save", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "long":
        print(json.dumps(long_sample()))
    elif options.child:
        print(json.dumps(measure(options.model, options.child, options.samples, options.save)))
    else:
        folder = Path("runs/benchmark")
        folder.mkdir(parents=True, exist_ok=True)
        methods = [method for method in METHODS if method != "official settings" or not options.without_official]
        compare("smollm2-135m", methods, options.rounds, options.samples, folder)
        agreement(folder)
        compare("llama-shaped layers", ["headnb", "plain forward + backward"], options.rounds, options.samples, folder)
        long = child("--child", "long")
        print(f"\none sample of 8192 tokens, half answer: {long['seconds']:.0f} s, peak {long['peak'] / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
