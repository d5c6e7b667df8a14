"""Speed and memory of activation scores by headnb and other tools, with the same weights, tokens, labels and loss.

    pip install --target peers --no-deps -r tests/benchmarks/peers.txt
    PYTHONPATH=peers python tests/benchmarks/peers.py      # half an hour; needs HEADNB_DATA and the default model

First, all methods must agree to 1e-5 of the largest score. Then the methods take turns on the same samples, each in its
own process. The table gives medians over rounds, and intervals for the medians of the time ratios within rounds.

Peers are configured carefully: frozen parameters, one backward pass for all layers, no gradient below the embeddings,
cross-entropy at answer positions only, and sdpa attention if the tool supports it. For samples of equal length, peers
get the batches of headnb. For mixed lengths, they get batches of eight in the order of the data, padded on the right,
without a mask: padding on the right needs no mask, and attention is faster without one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import headnb
import numpy as np
import torch
from headnb.engine.batching import collate, plan_batches
from headnb.engine.packing import MAX_PACKED_TOKENS_ON_CPU
from headnb.engine.tokenization import EncodedSample
from headnb.tasks.row_values import IGNORED
from processes import Worker, forget_peak, peak, resident, serve
from rounds import disagreement, median_interval
from shapes import as_rows, random_llama, random_samples
from torch import Tensor
from torch.nn import functional

from scoring import default_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Samples: TypeAlias = tuple[EncodedSample, ...]
Method: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # ids (B, T), labels (B, T) -> scores (B, L, H)

LENGTHS = (64, 256, 1024)
MIX = "mix"
STREAM = 500  # number of gsm8k samples that workloads are taken from


def sum_of_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Each sample's mean cross-entropy over its answer tokens, summed: logits (B, T, V), labels (B, T) -> ()."""
    answer = labels[:, 1:] != IGNORED
    losses = functional.cross_entropy(logits[:, :-1][answer], labels[:, 1:][answer], reduction="none")
    weight = (1 / answer.sum(1, keepdim=True)).expand(answer.shape)[answer]  # weight of a token in its sample's mean
    return (losses * weight).sum()


def by_head(products: Tensor, heads: int) -> Tensor:
    """Sum over tokens and head dimensions: (B, T, H * D) or (B, T, H, D) -> (B, H)."""
    return products.reshape(*products.shape[:2], heads, -1).sum((1, 3))


def eager_attentions(model: PreTrainedModel) -> Method:
    """Plain transformers: attention matrices and their gradients."""
    model.set_attn_implementation("eager")

    def scores(ids: Tensor, labels: Tensor) -> Tensor:
        embeddings = model.get_input_embeddings()(ids).requires_grad_()
        output = model(inputs_embeds=embeddings, output_attentions=True, use_cache=False)
        gradients = torch.autograd.grad(sum_of_losses(output.logits, labels), output.attentions)
        pairs = zip(output.attentions, gradients, strict=True)
        return torch.stack([(A.detach() * dA).sum((2, 3)) for A, dA in pairs], 1)

    return scores


def captum(model: PreTrainedModel) -> Method:
    from captum.attr import LayerGradientXActivation

    def loss(ids: Tensor, labels: Tensor) -> Tensor:
        return sum_of_losses(model(ids, use_cache=False).logits, labels)[None]

    heads = model.config.num_attention_heads
    products = LayerGradientXActivation(loss, [layer.self_attn.o_proj for layer in model.model.layers])

    def scores(ids: Tensor, labels: Tensor) -> Tensor:
        found = products.attribute(ids, additional_forward_args=(labels,), attribute_to_layer_input=True)
        return torch.stack([by_head(layer, heads) for layer in found], 1)

    return scores


def transformer_lens(model: PreTrainedModel) -> Method:
    """TransformerLens' bridge from a loaded module, which computes attention matrices itself."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    bridge = build_bridge_from_module(model, type(model).__name__, hf_config=model.config)
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads

    def scores(ids: Tensor, labels: Tensor) -> Tensor:
        z: dict[int, Tensor] = {}
        found: dict[int, Tensor] = {}

        def start(embeddings: Tensor, hook: Any) -> Tensor:
            return embeddings.detach().requires_grad_()

        def record(layer: int, value: Tensor, hook: Any) -> None:
            z[layer] = value.detach()

        def score(layer: int, gradient: Tensor, hook: Any) -> None:
            found[layer] = by_head(z[layer] * gradient, heads)

        names = [f"blocks.{layer}.attn.hook_z" for layer in range(layers)]
        forward = [(name, partial(record, layer)) for layer, name in enumerate(names)]
        backward = [(name, partial(score, layer)) for layer, name in enumerate(names)]
        with bridge.hooks(fwd_hooks=[("hook_embed", start), *forward], bwd_hooks=backward):
            sum_of_losses(bridge(ids, return_type="logits"), labels).backward()
        return torch.stack([found[layer] for layer in range(layers)], 1)

    return scores


def nnsight(model: PreTrainedModel) -> Method:
    from nnsight import NNsight, save

    traced = NNsight(model)
    heads = model.config.num_attention_heads

    def scores(ids: Tensor, labels: Tensor) -> Tensor:
        embeddings = model.get_input_embeddings()(ids).requires_grad_()
        with traced.trace(inputs_embeds=embeddings, use_cache=False):
            outputs = [layer.self_attn.o_proj.input for layer in traced.model.layers]
            loss = sum_of_losses(traced.output.logits, labels)
            with loss.backward():  # gradients come from the last layer down
                found = save([by_head(O.detach() * O.grad, heads) for O in reversed(outputs)])
        return torch.stack(found[::-1], 1)

    return scores


PEERS: dict[str, Callable[[PreTrainedModel], Method]] = {
    "transformers, eager": eager_attentions,
    "captum": captum,
    "TransformerLens": transformer_lens,
    "nnsight": nnsight,
}


def headnb_scores(model: PreTrainedModel, samples: Samples) -> np.ndarray:
    return headnb.score_heads(model, None, as_rows(samples)).score.values


def peer_scores(method: Method, samples: Samples, groups: list[np.ndarray]) -> np.ndarray:
    """Scores (n, L, H) of the samples by a peer, which processes them in these groups of positions."""
    scored = []
    for group in groups:
        batch = collate([samples[position] for position in group])
        scored.append(method(batch.input_ids, batch.labels).detach().numpy())
    order = np.concatenate(groups)
    return np.concatenate(scored)[np.argsort(order)]


def groups_of(samples: Samples, *, equal: bool) -> list[np.ndarray]:
    """Positions of the samples in each batch of a peer."""
    if not equal:
        return np.split(np.arange(len(samples)), range(8, len(samples), 8))
    plan = plan_batches(
        np.array([len(sample) for sample in samples]), batch_tokens=MAX_PACKED_TOKENS_ON_CPU, packed=True
    )
    return [plan.order[places] for places in plan.batches()]


def workloads(stream: Samples, lengths: tuple[int, ...], tokens: int, mix: int) -> dict[str, Samples]:
    """Samples of equal length, sliced from a stream of real tokens, and `mix` unmodified samples of the stream.

    The unmodified samples are runs of eight consecutive samples, spread evenly over the stream, because the variation
    of lengths changes along the stream.
    """
    ids = np.concatenate([sample.input_ids for sample in stream])
    found = {}
    for length in lengths:
        rows = np.resize(ids, (max(1, tokens // length), length))
        labels = np.where(np.arange(length) < length // 2, IGNORED, rows)
        found[str(length)] = tuple(EncodedSample(*sample) for sample in zip(rows, labels, strict=True))
    starts = np.linspace(0, max(0, len(stream) - 8), -(-mix // 8)).astype(int)
    return found | {MIX: tuple(sample for start in starts for sample in stream[start : start + 8])[:mix]}


def model_and_workloads(options: argparse.Namespace) -> tuple[PreTrainedModel, dict[str, Samples]]:
    if options.tiny:
        model = random_llama("tiny", initializer_range=0.1)
        lengths = (24, 5, 16, 40, 8, 31, 12, 20, 9, 28)
        stream = tuple(random_samples(1, length, 320)[0] for length in lengths)
        return model, workloads(stream, (8, 32), options.tokens, options.mix)
    model, stream = default_model(STREAM)
    return model, workloads(stream, LENGTHS, options.tokens, options.mix)


def child(options: argparse.Namespace) -> Callable[[str], dict[str, Any]]:
    """Prepare one method. The result is a function that measures the time and peak memory of a workload."""
    model, tasks = model_and_workloads(options)
    model.requires_grad_(False)
    sum(weight.sum() for weight in model.parameters())  # reads the memory-mapped weights into memory
    loaded = resident()
    method = PEERS[options.child](model) if options.child in PEERS else None

    def answer(workload: str) -> dict[str, Any]:
        samples = tasks[workload]
        groups = groups_of(samples, equal=workload != MIX)
        forget_peak()
        began = time.perf_counter()
        scores = headnb_scores(model, samples) if method is None else peer_scores(method, samples, groups)
        seconds = time.perf_counter() - began
        path = Path(options.folder) / f"{options.child}.{workload}.npy"
        np.save(path, scores)
        tokens = sum(map(len, samples))
        padded = sum(len(group) * max(len(samples[position]) for position in group) for group in groups)
        return {"seconds": seconds, "memory": peak() - loaded, "tokens": tokens, "padded": padded, "scores": str(path)}

    return answer


def compare(workload: str, workers: dict[str, Worker], rounds: int) -> None:
    """Check the agreement, which is also the warm-up, then measure the rounds and print their table."""
    print(f"\n{workload if workload == MIX else f'samples of {workload} tokens'}")
    first = {name: worker.ask(workload) for name, worker in workers.items()}
    for name in [name for name, run in first.items() if "error" in run]:
        print(f"{name}: not available: {first.pop(name)['error']}")
        workers.pop(name).close()
    reference = np.load(first["headnb"]["scores"])
    for name, run in first.items():
        error = disagreement(np.load(run["scores"]), reference)
        if error >= 1e-5:
            raise SystemExit(f"{name} and headnb differ by {error:.1e} of the largest score")
        if name != "headnb":
            print(f"{name} and headnb agree to {error:.1e} of the largest score")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in first}
    for round_ in range(rounds):
        names = list(found) if round_ % 2 else list(found)[::-1]
        for name in names:
            found[name].append(workers[name].ask(workload))
    if rounds:
        print_table(found)


def print_table(found: dict[str, list[dict[str, Any]]]) -> None:
    seconds = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    memory = {name: max(run["memory"] for run in runs) for name, runs in found.items()}
    columns = f"{'seconds':>9}{'tokens/s':>10}{'GB above model':>16}{'time':>8}{'95 % interval':>18}{'memory':>8}"
    print(f"{'method':22}{columns}")
    for name, runs in found.items():
        ratios = [run["seconds"] / own["seconds"] for run, own in zip(runs, found["headnb"], strict=True)]
        low, high = median_interval(ratios)
        measured = f"{seconds[name]:9.2f}{runs[0]['tokens'] / seconds[name]:10.0f}{memory[name] / 1e9:16.3f}"
        interval = f"[{low:.2f}, {high:.2f}]"
        ratio = f"{statistics.median(ratios):7.2f}x{interval:>18}{memory[name] / memory['headnb']:7.2f}x"
        print(f"{name:22}{measured}{ratio}")
    padded = next((run["padded"] / run["tokens"] - 1 for name, (run, *_) in found.items() if name != "headnb"), 0)
    print(f"peers compute {padded:.0%} additional padding tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8, help="0: agreement only")
    parser.add_argument("--tokens", type=int, default=2048, help="total tokens of the samples of one length")
    parser.add_argument("--mix", type=int, default=16, help="number of gsm8k samples of mixed length, in runs of eight")
    parser.add_argument("--quick", action="store_true", help="two rounds of a quarter of the tokens")
    parser.add_argument("--only", nargs="+", choices=[*map(str, LENGTHS), MIX], help="print only these tables")
    parser.add_argument("--tiny", action="store_true", help="use a tiny random model, to test whether all peers work")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.tokens, options.mix = 2, 512, 8
    if options.child:
        serve(lambda: child(options))
        return
    with tempfile.TemporaryDirectory() as folder:
        sizes = ["--tokens", str(options.tokens), "--mix", str(options.mix), *["--tiny"] * options.tiny]
        names = ["headnb", *PEERS]
        workers = {name: Worker(__file__, "--child", name, "--folder", folder, *sizes) for name in names}
        lengths = (8, 32) if options.tiny else LENGTHS
        print(f"{torch.get_num_threads()} threads, medians of {options.rounds} rounds; ratios to headnb in a round")
        for workload in options.only or [*map(str, lengths), MIX]:
            compare(workload, workers, options.rounds)
        for worker in workers.values():
            worker.close()


if __name__ == "__main__":
    main()
