"""`score_heads` as a run: progress, memory, interrupts, resumed stores, and bad input."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
import textwrap
import threading
from importlib.metadata import version

import headnb
import numpy as np
import pytest
import torch
import xarray as xr
from headnb import HeadnbError, open_scores, score_heads
from headnb.scoring import one_pass
from headnb.scoring.progress import ScoringInterrupted
from headnb.storage import score_store

from forks import exit_code
from scoring_samples import BUDGET, LENGTHS, TASK, same_scores, stop_after
from tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def whole(model):
    """Scores of an uninterrupted run."""
    return score_heads(model, None, TASK, batch_tokens=BUDGET)


def test_result_is_labelled_in_the_order_of_the_task(model, whole):
    assert whole.score.dims == ("sample", "layer", "head")
    assert whole.score.dtype == np.float32
    assert whole.sample.values.tolist() == list(range(30))
    assert whole.answer_tokens.values.tolist() == [length - 2 for length in LENGTHS]
    assert whole.attrs["complete"] == 1
    assert whole.attrs["method"] == "activation"
    assert json.loads(whole.attrs["versions"])["torch"] == version("torch")
    assert all(isinstance(value, str | int | float) for value in whole.attrs.values())
    alone = score_heads(model, None, [TASK[17]])
    assert np.allclose(whole.score[17], alone.score[0], rtol=1e-4, atol=1e-7)


def test_progress_counts_samples_and_tokens_and_shows_the_scores_so_far(model):
    seen = []
    scores = score_heads(model, None, TASK, batch_tokens=BUDGET, on_progress=seen.append)
    assert (seen[0].done, seen[0].seconds_left) == (0, None)
    assert (seen[-1].done, seen[-1].total, seen[-1].seconds_left) == (30, 30, 0.0)
    assert seen[-1].tokens == LENGTHS.sum()
    assert [progress.done for progress in seen] == sorted({progress.done for progress in seen})
    assert same_scores(seen[-1].scores(), scores)


def test_the_share_of_padding_is_told(model):
    rows = [{"input_ids": [5] * length, "labels": [5] * length} for length in (20, 20, 19)]
    padded = score_heads(model, None, rows, batch_tokens=60, packed=False)
    assert padded.attrs["padding"] == pytest.approx(1 / 60)
    assert score_heads(model, None, rows, batch_tokens=60, packed=True).attrs["padding"] == 0
    assert score_heads(model, None, TASK, packed=False).attrs["padding"] <= 0.05


def test_parts_of_a_block_are_not_shown_once_a_block_is_complete(model, monkeypatch):
    monkeypatch.setattr("headnb.scoring.batch_run.BLOCK", 10)
    plan = headnb.engine.batching.plan_batches(LENGTHS, batch_tokens=BUDGET, block=10)
    monkeypatch.setattr("headnb.scoring.run.plan_batches", lambda lengths, **_: plan)
    sizes = []
    score_heads(model, None, TASK, on_progress=lambda p: sizes.append((p.done, p.scores().sizes["sample"])))
    for done, shown in sizes:
        assert shown == (done if done < 10 else done // 10 * 10)


def test_model_is_left_as_it_was(model):
    model.train()
    model.model.layers[0].mlp.eval()
    flags = [module.training for module in model.modules()]
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    score_heads(model, None, TASK[:3])
    assert [module.training for module in model.modules()] == flags
    assert [parameter.requires_grad for parameter in model.parameters()] == gradients
    assert all(parameter.grad is None for parameter in model.parameters())


def scarce_memory(monkeypatch, limit):
    """Make scoring fail, as on a GPU, for batches of more than `limit` tokens that are not recomputed."""
    score = one_pass.run_pass
    tried = []

    def scarce(self, batch, *, budget):
        recompute = batch.longest_sample > budget
        tried.append((batch.input_ids.numel(), recompute))
        if batch.input_ids.numel() > limit * (2 if recompute else 1):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return score(self, batch, budget=budget)

    monkeypatch.setattr(one_pass, "run_pass", scarce)
    return tried


@pytest.mark.parametrize("limit", [100, 60, 20])
def test_out_of_memory_shrinks_batches_and_changes_no_score(model, whole, monkeypatch, limit, tmp_path):
    tried = scarce_memory(monkeypatch, limit)
    seen = []
    found = score_heads(model, None, TASK, batch_tokens=BUDGET, on_progress=seen.append, out=tmp_path / "a.zarr")
    assert np.allclose(found.score, whole.score, rtol=1e-4, atol=1e-6)
    assert found.sizes == whole.sizes
    assert "out of memory" in seen[-1].message
    failures = sum(tokens > limit * (2 if recompute else 1) for tokens, recompute in tried)
    assert 0 < failures < 10
    assert same_scores(open_scores(tmp_path / "a.zarr"), found)


def test_a_cpu_that_is_out_of_memory_is_understood(model, whole, monkeypatch):
    score, failed = one_pass.run_pass, []

    def scarce(self, batch, *, budget):
        if not failed:
            failed.append(batch)
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return score(self, batch, budget=budget)

    monkeypatch.setattr(one_pass, "run_pass", scarce)
    found = score_heads(model, None, TASK, batch_tokens=BUDGET)
    assert np.allclose(found.score, whole.score, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(one_pass, "run_pass", lambda *_, **__: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        score_heads(model, None, TASK)


def test_a_stopped_run_may_go_on_with_a_smaller_budget(model, whole, monkeypatch, tmp_path):
    out = tmp_path / "a.zarr"
    with pytest.raises(RuntimeError):
        score_heads(model, None, TASK, batch_tokens=BUDGET, out=out, on_progress=stop_after(2, RuntimeError("killed")))
    tried = scarce_memory(monkeypatch, 45)
    found = score_heads(model, None, TASK, batch_tokens=45, out=out)
    assert all(tokens <= 45 for tokens, _ in tried)
    assert np.allclose(found.score, whole.score, rtol=1e-4, atol=1e-6)
    assert len(np.unique(xr.open_zarr(out, consolidated=False)["batch"])) > len(tried)


def test_dropout_sleeps_while_scoring_and_wakes_afterwards():
    """Attention dropout would change every score of a model in training mode."""
    expected = score_heads(tiny_model(attention_dropout=0.5), None, TASK)
    training = tiny_model(attention_dropout=0.5).train()
    assert same_scores(score_heads(training, None, TASK), expected)
    assert training.training


def test_two_threads_may_score_one_model(model, whole):
    found = [None, None]

    def work(index):
        found[index] = score_heads(model, None, TASK, batch_tokens=BUDGET)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same_scores(scores, whole) for scores in found)


def test_a_store_is_not_continued_with_other_tokens_of_the_same_text(model, tokenizer, tmp_path):
    pairs = [("Question: What is 12 + 30?\nAnswer: ", "42")]
    score_heads(model, tokenizer, pairs, out=tmp_path / "a.zarr")
    other = copy.deepcopy(tokenizer)
    other.eos_token = "<|end|>"
    with pytest.raises(HeadnbError, match="task_fingerprint"):
        score_heads(model, other, pairs, out=tmp_path / "a.zarr")


def test_lost_or_broken_chunks_are_scored_again_or_named(model, whole, tmp_path):
    out = tmp_path / "a.zarr"
    score_heads(model, None, TASK, batch_tokens=BUDGET, out=out)
    (out / "loss" / "c" / "0").unlink()
    assert open_scores(out).attrs["complete"] == 0
    assert same_scores(score_heads(model, None, TASK, batch_tokens=BUDGET, out=out), whole)
    chunk = out / "score" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(HeadnbError, match="is damaged"):
        open_scores(out)


def test_all_scores_of_a_complete_store_are_checked_once(model, whole, tmp_path, monkeypatch):
    out = tmp_path / "a.zarr"
    score_heads(model, None, TASK, batch_tokens=BUDGET, out=out)
    check, checked = score_store.ScoreTable.without_scores, []
    monkeypatch.setattr(score_store.ScoreTable, "without_scores", lambda self: checked.append(self) or check(self))
    assert same_scores(score_heads(model, None, TASK, batch_tokens=BUDGET, out=out), whole)
    assert len(checked) == 1


def test_one_sample_that_does_not_fit_is_an_error_with_advice(model, monkeypatch):
    scarce_memory(monkeypatch, 3)
    with pytest.raises(
        HeadnbError, match=r"one sample of \d+ tokens does not fit in memory; truncate samples with max_length"
    ):
        score_heads(model, None, TASK)


def test_interrupt_keeps_what_was_scored(model, whole):
    with pytest.raises(ScoringInterrupted) as stopped:
        score_heads(model, None, TASK, batch_tokens=BUDGET, on_progress=stop_after(4, KeyboardInterrupt()))
    part = stopped.value.scores
    assert 0 < part.sizes["sample"] < 30
    assert part.attrs["complete"] == 0
    assert np.array_equal(part.score, whole.score.sel(sample=part.sample))
    assert same_scores(score_heads(model, None, TASK, batch_tokens=BUDGET), whole)


def test_an_interrupt_counts_without_the_samples_that_are_left_out(model):
    task = [{"input_ids": [5] * 50, "labels": [-100] * 48 + [5, 5]}, *TASK]  # its answer is truncated away
    with pytest.raises(ScoringInterrupted, match=r"interrupted; \d+ of 30 samples are scored"):
        score_heads(
            model, None, task, max_length=40, batch_tokens=BUDGET, on_progress=stop_after(4, KeyboardInterrupt())
        )


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("cable pulled")])
def test_the_same_call_goes_on_after_the_last_complete_batch(model, whole, tmp_path, error):
    out = tmp_path / "a.zarr"
    with pytest.raises((ScoringInterrupted, RuntimeError)):
        score_heads(model, None, TASK, batch_tokens=BUDGET, out=out, on_progress=stop_after(3, error))
    stored = open_scores(out).sizes["sample"]
    assert 0 < stored < 30
    seen = []
    found = score_heads(model, None, TASK, batch_tokens=BUDGET, out=out, on_progress=seen.append)
    assert seen[0].done == stored
    assert same_scores(found, whole)
    assert same_scores(open_scores(out), whole)
    score_heads(model, None, TASK, batch_tokens=BUDGET, out=out, on_progress=seen.append)
    assert (seen[-1].done, seen[-1].tokens) == (30, 0)


KILLED = """
    import os, signal, sys
    import torch
    torch.set_num_threads(1)  # as in this process: sums over several threads differ in the last bit
    from scoring_samples import BUDGET, TASK
    from tiny import tiny_model
    from headnb import score_heads
    from headnb.storage import score_store
    from headnb.storage.score_store import ScoreTable

    score_store.WRITE_INTERVAL = 0.0
    writes = 0
    write = ScoreTable.{method}

    def killed(*args, **kwargs):
        global writes
        writes += 1
        if writes == {count} and not {after}:
            os.kill(os.getpid(), signal.SIGKILL)
        result = write(*args, **kwargs)
        if writes == {count}:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    ScoreTable.{method} = killed
    score_heads(tiny_model(), None, TASK, batch_tokens=BUDGET, out={out!r})
"""


@pytest.mark.parametrize(("count", "after"), [(1, True), (3, False), (6, True)])
def test_killed_run_goes_on_and_ends_bitwise_equal(model, whole, tmp_path, count, after):
    out = str(tmp_path / "a.zarr")
    script = KILLED.format(method="write", count=count, after=after, out=out)
    assert exit_code(exec, textwrap.dedent(script), {}) == -signal.SIGKILL
    assert open_scores(out).attrs["complete"] == 0
    assert same_scores(score_heads(model, None, TASK, batch_tokens=BUDGET, out=out), whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "taylor-token"}, "method 'activation', not 'taylor-token'"),
        ({"loss": "sum"}, "loss_reduction 'sample-mean', not 'sum'"),
        ({"seed": 3}, "seed 0, not 3"),
        ({"max_length": 6}, "max_length -1, not 6"),
        ({"padding_side": "left"}, "padding_side 'right', not 'left'"),
        ({"encoding": "trl"}, "encoding 'official', not 'trl'"),
        ({"model": tiny_model(seed=1)}, "model_fingerprint"),
        ({"task": TASK[1:]}, "task_fingerprint"),
    ],
)
def test_a_store_of_something_else_is_refused_and_kept(model, tmp_path, change, message):
    out = tmp_path / "a.zarr"
    before = score_heads(model, None, TASK, out=out)
    call = {"model": model, "tokenizer": None, "task": TASK, "out": out} | change
    with pytest.raises(HeadnbError, match=message):
        score_heads(**call)
    assert same_scores(open_scores(out), before)


def test_string_ids_and_netcdf_round_trip(model, tmp_path):
    rows = [row | {"id": f"sämple-{number}"} for number, row in enumerate(TASK[:5])]
    path = tmp_path / "tasks.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    scores = score_heads(model, None, path, out=tmp_path / "a.zarr")
    assert scores.sample.values.tolist() == [f"sämple-{number}" for number in range(5)]
    scores.to_netcdf(tmp_path / "a.nc")
    reopened = open_scores(tmp_path / "a.nc")
    assert reopened.sample.values.tolist() == scores.sample.values.tolist()
    assert np.array_equal(reopened.score, scores.score)
    assert reopened.attrs == scores.attrs


def test_a_stored_table_is_plain_zarr(model, tmp_path):
    scores = score_heads(model, None, TASK, out=tmp_path / "a.zarr")
    stored = xr.open_zarr(tmp_path / "a.zarr", consolidated=False)
    assert np.array_equal(stored.score.values, scores.score.values[stored.order.values])


def test_things_that_are_no_store_are_refused(model, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.nc").write_text("no scores")
    with pytest.raises(HeadnbError, match="there are no scores at"):
        open_scores(tmp_path / "nowhere.zarr")
    with pytest.raises(HeadnbError, match="is not a store of head scores"):
        open_scores(tmp_path / "folder")
    with pytest.raises(HeadnbError, match="cannot be read as netCDF"):
        open_scores(tmp_path / "text.nc")
    with pytest.raises(HeadnbError, match="is not a store of head scores"):
        score_heads(model, None, TASK, out=tmp_path / "folder")


def test_a_place_that_cannot_be_written_is_refused_before_any_scoring(model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(one_pass, "run_pass", lambda *_, **__: pytest.fail("scored"))
    with pytest.raises(HeadnbError, match="cannot write scores to"):
        score_heads(model, None, TASK, out=tmp_path / "file" / "a.zarr")
    assert (tmp_path / "file").read_text() == ""


def test_nan_weights_are_named_with_their_layer(model):
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = torch.nan
    with pytest.raises(HeadnbError, match=r"model\.layers\.1\.mlp\.up_proj\.weight \(layer 1\)"):
        score_heads(model, None, TASK)


def test_a_loss_that_is_not_finite_is_named_by_sample(model):
    def no_seven(_module, _inputs, logits):
        return logits.index_fill(-1, torch.tensor([7]), -torch.inf)

    model.lm_head.register_forward_hook(no_seven)
    task = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}, {"input_ids": [1, 7, 3], "labels": [1, 7, 3]}]
    with pytest.raises(HeadnbError, match="the loss of sample 1 is inf"):
        score_heads(model, None, task)


def test_packing_is_refused_where_samples_would_mix():
    model = tiny_model(attn_implementation="eager")
    with pytest.raises(HeadnbError, match="does not separate packed samples"):
        score_heads(model, None, TASK, packed=True)


class Processor:
    """Like the processors of transformers, which are callable and hold a tokenizer."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, text):
        return self.tokenizer(text)


class Wrapper(torch.nn.Module):
    """A module around a model that shows its configuration only."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"method": "activatoin"}, "unknown method 'activatoin'; did you mean 'activation'"),
        ({"loss": "mean"}, "unknown loss 'mean'"),
        ({"encoding": "oficial"}, "unknown encoding"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1"),
        ({"padding_side": "Left"}, "unknown padding side 'Left'; did you mean 'left'"),
        ({"max_length": 0}, "max_length must be at least 1"),
        ({"max_length": -1}, "max_length must be at least 1"),
        ({"model": "smollm2-135m"}, "the first argument is str, not a model"),
        ({"model": (1, 2)}, "the first argument is tuple, not a model"),
        ({"tokenizer": "gpt2"}, "the second argument is str, not a tokenizer"),
        ({"tokenizer": lambda texts: texts}, "the second argument is function, not a tokenizer"),
        ({"tokenizer": tiny_tokenizer().backend_tokenizer}, "the second argument is Tokenizer, not a tokenizer"),
        ({"tokenizer": Processor(tiny_tokenizer())}, "is Processor, not a tokenizer; give its attribute tokenizer"),
        ({"model": Wrapper(tiny_model())}, "the first argument is Wrapper, not a model"),
        (
            {"task": [{"input_ids": [1, 999], "labels": [-100, 999]}]},
            "sample 0 has token id 999, but the model's vocabulary has 320",
        ),
        ({"task": [{"input_ids": [1, -3], "labels": [-100, 4]}]}, "token ids must be 0 or more"),
        ({"out": "s3://bucket/a.zarr"}, "is a URL"),
        ({"task": []}, "no samples"),
        ({"task": "gsm9k"}, "unknown task 'gsm9k'; did you mean 'gsm8k'"),
        ({"task": [("text", "needs a tokenizer")]}, "need a tokenizer"),
        (
            {"task": [{"input_ids": [1] * 600, "labels": [1] * 600}]},
            "sample 0 .* has 600 tokens, more than the model's context of 512",
        ),
    ],
)
def test_bad_input_is_one_clear_error_and_writes_nothing(model, tmp_path, call, message):
    with pytest.raises(HeadnbError, match=message) as refused:
        score_heads(**{"model": model, "tokenizer": None, "task": TASK, "out": tmp_path / "a.zarr"} | call)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_import_loads_no_torch():
    heavy = ("torch", "transformers", "zarr", "IPython", "bokeh", "datasets", "pandas.plotting._matplotlib")
    code = f"import headnb, sys; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
