"""Online scores of two processes: they contain all samples, and equal the scores of a single process."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import headnb
import numpy as np
import pytest
import torch
from headnb.engine.tokenization import encode_task
from torch.multiprocessing import start_processes

from distributed_training import run_rank
from forks import METHOD, ensure_running
from tiny import tiny_model, tiny_tokenizer
from trainers import PAIRS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.long

TASK = headnb.load_task(PAIRS)
ENCODED = encode_task(TASK, tiny_tokenizer())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ensure_running()
    start_processes(run_rank, args=(port, str(output)), nprocs=2, start_method=METHOD)
    return output


def relative_error(found: dict[str, Any], weights: dict[int, Any]) -> float:
    """Largest relative difference from `score_heads` in one process, with the weights of each update."""
    model = tiny_model()
    worst = 0.0
    for update, state in weights.items():
        model.load_state_dict(state)
        expected = headnb.score_heads(model, tiny_tokenizer(), TASK).score.values
        rows = found["step"] == update
        samples = [int(np.flatnonzero(ENCODED.fingerprints == mark)[0]) for mark in found["fingerprint"][rows]]
        worst = max(worst, abs(found["score"][rows] - expected[samples]).max() / abs(expected).max())
    return float(worst)


def test_under_ddp_with_accumulation_each_sample_scores_as_alone(folder: Path) -> None:
    found = np.load(folder / "ddp.npz")
    assert np.bincount(found["step"]).tolist() == [0, 8, 8, 8]  # 2 processes, 2 micro-batches, 2 samples each
    assert relative_error(found, torch.load(folder / "weights.pt")) < 1e-4


def test_under_ddp_samples_and_tokens_of_all_processes_are_counted(folder: Path) -> None:
    found = np.load(folder / "ddp.npz")
    lengths = dict(zip(ENCODED.fingerprints.tolist(), ENCODED.lengths.tolist(), strict=True))
    assert found["counts"].tolist() == [24, sum(lengths[mark] for mark in found["fingerprint"].tolist())]


@pytest.mark.parametrize("kind", ["fsdp1", "fsdp2"])
def test_under_fsdp_each_sample_scores_as_alone(kind: str, folder: Path) -> None:
    found = np.load(folder / f"{kind}.npz")
    assert sorted(found["fingerprint"]) == sorted(ENCODED.fingerprints[:8])
    assert relative_error(found, {1: tiny_model().state_dict()}) < 1e-4
    assert found["counts"].tolist() == [8, ENCODED.lengths[:8].sum()]
