"""The code of each of the two processes in the tests of distributed training (gloo on the CPU)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist


def run_rank(rank: int, port: int, folder: str) -> None:
    """Train with DDP in TRL's trainer, then with both versions of FSDP in a loop: accelerate refuses FSDP on a CPU."""
    torch.set_num_threads(1)
    os.environ |= {name: str(rank) for name in ("RANK", "LOCAL_RANK")}
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo")
    with_ddp(Path(folder))
    for name, sharded in (("fsdp1", fsdp1), ("fsdp2", fsdp2)):
        save(Path(folder), name, *train_sharded(sharded, rank))
    dist.destroy_process_group()


def save(folder: Path, name: str, online: Any, counts: Any) -> None:
    if dist.get_rank() == 0:
        columns = {column: online[column].values for column in ("score", "fingerprint", "step")}
        np.savez(folder / f"{name}.npz", counts=np.array(counts, float), **columns)


def with_ddp(folder: Path) -> None:
    import headnb

    from tiny import tiny_model
    from trainers import PAIRS, Weights, sft_trainer

    weights = Weights()
    callback = headnb.HeadScoreCallback({"sums": PAIRS[:4]}, online=True, every=2)
    arguments = {"ddp_backend": "gloo", "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    sft_trainer(tiny_model(), folder / "trainer", callback, weights, **arguments).train()
    last = callback.study.isel(step=-1)
    save(folder, "ddp", callback.online_scores, (last["samples_seen"], last["tokens_seen"]))
    if dist.get_rank() == 0:
        torch.save(weights.before, folder / "weights.pt")


def fsdp1(model: Any) -> Any:
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    layer = type(model.model.layers[0])
    return FullyShardedDataParallel(model, auto_wrap_policy=ModuleWrapPolicy({layer}), device_id=torch.device("cpu"))


def fsdp2(model: Any) -> Any:
    from torch.distributed.fsdp import fully_shard

    for layer in model.model.layers:
        fully_shard(layer)
    return fully_shard(model)


def train_sharded(sharded: Any, rank: int) -> tuple[Any, Any]:
    """Scores of one update with eight samples, four per process; the loss is the mean over all answer tokens."""
    import headnb
    from headnb.engine.batching import collate
    from headnb.engine.hooks import find_heads
    from headnb.engine.tokenization import encode_task
    from headnb.scoring.registry import find_method
    from headnb.tuning.online import TrainingBatches

    from tiny import tiny_model, tiny_tokenizer
    from trainers import PAIRS

    encoded = encode_task(headnb.load_task(PAIRS[:8]), tiny_tokenizer())
    samples = encoded.samples[4 * rank : 4 * rank + 4]
    model = sharded(tiny_model().train())
    batches = TrainingBatches(model, find_heads(model), find_method("activation").online)
    batch = collate(samples)
    mask = torch.tensor([[index < len(sample) for index in range(batch.input_ids.shape[1])] for sample in samples])
    tokens = int(encoded.answer_tokens.sum())
    inputs = {"input_ids": batch.input_ids, "labels": batch.labels, "attention_mask": mask.long()}
    (2 * model(**inputs, num_items_in_batch=tokens).loss).backward()
    batches.end_update(1)
    return batches.collect(), batches.counts()
