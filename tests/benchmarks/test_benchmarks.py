"""Tests of the benchmarks' computations that need no peer, GPU or clock."""

from __future__ import annotations

import importlib

import headnb
import numpy as np
import pytest
import torch
from headnb.engine.tokenization import EncodedSample
from headnb.tasks.row_values import IGNORED

from paths import BENCHMARKS


@pytest.fixture
def benchmark(monkeypatch):
    """Function that imports a benchmark module by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_exponent_of_a_power_law_is_its_power_whatever_small_sizes_cost(benchmark, power):
    sizes = [10, 100, 1000, 10_000]
    values = [7.0, *(3 * size**power for size in sizes[1:])]
    assert benchmark("rounds").exponent(sizes, values) == pytest.approx(power)


def test_interval_of_a_median_leaves_out_at_most_a_fortieth_on_each_side(benchmark):
    interval = benchmark("rounds").median_interval
    assert interval([3, 1, 2]) == (1, 3)
    # 8 values: the median is outside the extremes with probability 2 * 2^-8, outside the next values with 18 * 2^-8.
    assert interval(list(range(8))) == (0, 7)
    # 9 values: 2 * (1 + 9) * 2^-9 = 3.9 % for the second lowest and the second highest value.
    assert interval(list(range(9))) == (1, 7)


@pytest.mark.parametrize("equal", [True, False])
def test_peers_by_attention_matrices_agree_with_headnb_in_the_order_of_the_samples(benchmark, model, equal):
    peers = benchmark("peers")
    model.requires_grad_(False)
    random = np.random.default_rng(0)
    samples = []
    for length, answer in zip([9, 9, 9] if equal else [5, 9, 14, 6, 11, 7, 8, 13, 10, 4], range(1, 11), strict=False):
        ids = random.integers(3, 320, length)
        samples.append(EncodedSample(ids, np.where(np.arange(length) < length - min(answer, 3), IGNORED, ids)))
    samples = tuple(samples)
    ours = peers.headnb_scores(model, samples)
    groups = peers.groups_of(samples, equal=equal)
    theirs = peers.peer_scores(peers.eager_attentions(model), samples, groups)
    assert [len(group) for group in groups] == ([3] if equal else [8, 2])
    assert benchmark("rounds").disagreement(theirs, ours) < 1e-5


def test_sum_of_losses_is_that_of_each_sample_alone(benchmark, model):
    peers = benchmark("peers")
    ids = torch.arange(24).reshape(2, 12) + 5
    labels = ids.clone()
    labels[0, :4] = labels[1, :9] = IGNORED
    alone = [model(row[None], labels=answer[None]).loss for row, answer in zip(ids, labels, strict=True)]
    torch.testing.assert_close(peers.sum_of_losses(model(ids).logits, labels), sum(alone))


def test_workloads_of_equal_length_are_cut_out_of_the_real_tokens(benchmark):
    peers = benchmark("peers")
    stream = tuple(EncodedSample(np.full(7, value), np.full(7, value)) for value in range(5))
    found = peers.workloads(stream, (64, 1024), tokens=1500, mix=3)
    assert [(len(found[name]), len(found[name][0])) for name in ("64", "1024")] == [(23, 64), (1, 1024)]
    assert found["64"][0].answer_tokens == 32
    assert found["mix"] == stream[:3]


def test_a_process_answers_in_turn_and_an_exception_is_an_answer(benchmark, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from processes import serve\n"
        "def answer(question):\n"
        "    print('noise')\n"
        "    return sys.exit(3) if question == 'die' else {'answer': 1 / int(question)}\n"
        "def prepare():\n"
        "    return answer\n"
        "serve(prepare)\n"
    )
    worker = benchmark("processes").Worker(str(script))
    assert worker.ask("4") == {"answer": 0.25}
    assert worker.ask("0") == {"error": "ZeroDivisionError: division by zero"}
    assert worker.ask("2") == {"answer": 0.5}
    assert worker.ask("die") == {"error": "the process ended with code 3"}
    worker.close()


def test_looking_up_lengths_costs_the_same_for_each_sample_however_many_there_are(model, monkeypatch):
    counted = 0
    plain = EncodedSample.__len__

    def count(sample):
        nonlocal counted
        counted += 1
        return plain(sample)

    monkeypatch.setattr(EncodedSample, "__len__", count)
    calls = []
    for n in (10, 20, 40):
        counted = 0
        headnb.score_heads(model, None, [{"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7]}] * n, batch_tokens=3)
        calls.append(counted)
    assert calls[2] - calls[1] == 2 * (calls[1] - calls[0])


@pytest.mark.long
def test_each_step_of_the_gpu_script_runs_in_its_small_form(benchmark, tmp_path):
    benchmark("gpu").main(["--small", "--out", str(tmp_path / "gpu.md")])
    title, _, head, _, *lines = (tmp_path / "gpu.md").read_text(encoding="utf-8").splitlines()
    assert "operations per second" in title
    columns = head.count("|")
    assert {line.count("|") for line in lines} == {columns}
    rows = {(cells[0], cells[1]): cells[2:] for cells in ([*map(str.strip, line.split("|")[1:-1])] for line in lines)}
    missing = {what for (_, what), values in rows.items() if "not available" in values[0]}
    # The others of a GPU; flash attention and PyTorch's kernels for left padding depend on the machine.
    assert missing - {"flash attention", "left padding without the math kernel"} == {"out of memory"}
    for what in ("batches of 256 tokens", "mixed lengths, padded", "mixed lengths, packed", "the paper's script"):
        speed, share, memory = rows["tiny", what]
        assert float(speed) > 0
        assert share.endswith("%")
        assert float(memory) >= 0
    assert rows["tiny", "50% of the limit"][0].startswith(("reached", "not reached"))
    assert "times a step without" in rows["tiny", "online scores in training"][0]


def test_an_error_of_a_measurement_is_a_line_and_the_rest_is_left_out_when_the_time_is_over(benchmark):
    gpu = benchmark("gpu")

    def fails(error):
        raise error

    table = gpu.Table(minutes=1)
    table.measure("s", "a", lambda: fails(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GB")))
    table.measure("s", "b", lambda: fails(ImportError("no | flash\nattention")))
    table.measure("s", "c", lambda: ("1", "2%", "3"))
    table.minutes = 0
    table.measure("s", "d", lambda: fails(KeyError("not called")))
    assert table.rows == [
        ("s", "a", "out of memory"),
        ("s", "b", "not available: ImportError: no / flash attention"),
        ("s", "c", "1", "2%", "3"),
        ("s", "d", "left out: the time is over"),
    ]
