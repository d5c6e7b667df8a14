"""Head scores equal the attention-matrix form of the method, for every architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from headnb.engine.batching import collate, pack
from headnb.engine.tokenization import EncodedSample
from headnb.scoring.gradient import activation, gradient_scorer
from headnb.tasks.row_values import IGNORED

from architectures import (
    ARCHITECTURES,
    FLOAT32_ONLY,
    MOVED,
    VOCABULARY,
    attention_matrix_scores,
    build,
    tolerance,
)


def samples(lengths: tuple[int, ...] = (9, 14, 14)) -> list[EncodedSample]:
    """Samples of random tokens; the last two thirds of each sample are its answer."""
    random = np.random.default_rng(0)
    ids = [random.integers(1, VOCABULARY, length) for length in lengths]
    return [EncodedSample(row, np.where(np.arange(len(row)) < len(row) // 3, IGNORED, row)) for row in ids]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_activation_score_equals_attention_matrix_form(name):
    dtype = torch.float32 if name in FLOAT32_ONLY else torch.float64
    expected = attention_matrix_scores(name, samples(), dtype)
    found, _ = gradient_scorer(build(name, dtype), activation)(collate(samples()))
    largest = expected.abs().max()
    assert largest > 0.01
    assert (found - expected).abs().max() < tolerance(name) * largest


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_score_of_a_sample_depends_on_nothing_but_the_sample(name):
    """In float32, as in normal use. Padding side, other samples of the batch and recomputation have no effect."""
    scorer = gradient_scorer(build(name, torch.float32), activation)
    alone = torch.cat([scorer(collate([sample]))[0] for sample in samples()])
    largest = alone.abs().max()
    for batch, budget in (
        (collate(samples()), None),
        (collate(samples(), side="left"), None),
        (collate(samples()), 1),
    ):
        found, _ = scorer(batch, budget=budget)
        assert (found - alone).abs().max() < 1e-5 * largest


# Custom attention code, eager attention only, attention chunks counted from the start of the row, or a language-model
# head of several layers.
NOT_PACKED = {
    "bloom", "codegen", "gemma2", "gpt_neo", "gpt_oss", "gptj", "llama4", "modernbert-decoder", "mpt", "xglm",
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_samples_score_as_they_do_alone(name):
    """Some lengths are shorter, some longer than every sliding window."""
    scorer = gradient_scorer(build(name, torch.float32), activation)
    assert scorer.supports_packing == (name not in NOT_PACKED - MOVED and "falcon" not in name)
    if scorer.supports_packing:
        rows = samples((14, 3, 25, 9, 2))
        alone = [scorer(collate([sample])) for sample in rows]
        scores, losses = scorer(pack(rows))
        expected = torch.cat([score for score, _ in alone])
        assert (scores - expected).abs().max() < 1e-5 * expected.abs().max()
        assert torch.allclose(losses, torch.cat([loss for _, loss in alone]))


def test_at_least_25_architectures_are_tested():
    assert len({kind for kind, _ in ARCHITECTURES.values()}) >= 25
