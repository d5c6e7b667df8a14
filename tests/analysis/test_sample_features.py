"""Features of samples: hidden states and gradients of single samples, Adam's own step, and kept scalar products."""

from __future__ import annotations

import shutil

import headnb
import numpy as np
import pytest
import torch
from headnb import HeadnbError
from headnb.analysis.selection import gradient_features as gradients
from headnb.engine.tokenization import encode_task
from headnb.tasks.loading import load_task

from model_state import state
from tiny import tiny_model, tiny_tokenizer
from trainers import PAIRS

TOKENIZER = tiny_tokenizer()
TASK = load_task([*PAIRS[:4], ("Question: How many apples are there in all the gardens?", "12")], name="sums")
SAMPLES = encode_task(TASK, TOKENIZER).samples


@pytest.mark.parametrize(("kind", "layer"), [("embedding", -1), ("embedding-middle", 2)])
def test_an_embedding_is_the_mean_hidden_state_of_the_samples_own_tokens(kind, layer):
    model = tiny_model(layers=4)
    before = state(model)
    found = headnb.sample_features(model, TOKENIZER, TASK, kind)  # one padded batch
    assert state(model) == before
    assert len({len(sample) for sample in SAMPLES}) > 1
    for sample, vector in zip(SAMPLES, found["feature"].values, strict=True):
        with torch.no_grad():
            hidden = model(torch.tensor(sample.input_ids)[None], output_hidden_states=True).hidden_states[layer][0]
        np.testing.assert_allclose(vector, hidden.mean(0), rtol=1e-4, atol=1e-5)
    assert found["sample"].values.tolist() == list(TASK.ids)


def loss_by_hand(model, sample):
    ids, labels = torch.tensor(sample.input_ids)[None], torch.tensor(sample.labels)
    return torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], labels[1:], ignore_index=-100)


def with_lora(**config):
    from peft import LoraConfig, get_peft_model

    model = tiny_model(dtype=torch.float64)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, **config))
    wrapped = wrapped.double().eval()
    return wrapped, [weight for weight in wrapped.parameters() if weight.requires_grad]


def test_gradients_are_those_of_each_sample_alone():
    model, weights = with_lora()
    found = list(gradients.sample_gradients(model, SAMPLES, weights))
    for sample, of_sample in zip(SAMPLES, found, strict=True):
        expected = torch.autograd.grad(loss_by_hand(model, sample), weights)
        for one, other in zip(of_sample, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)
            assert one.abs().max() > 0


def test_an_update_is_the_next_step_of_torchs_adam():
    rng = torch.Generator().manual_seed(0)
    weight = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=0.1, betas=(0.8, 0.99), eps=1e-3, weight_decay=0)
    for _ in range(3):
        weight.grad = torch.randn(3, 4, generator=rng, dtype=torch.float64)
        optimizer.step()
    kept = optimizer.state[weight]
    moments = gradients.Moments(kept["exp_avg"].clone(), kept["exp_avg_sq"].clone(), 3, (0.8, 0.99), 1e-3)
    before, weight.grad = weight.detach().clone(), torch.randn(3, 4, generator=rng, dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(moments.update(weight.grad), (before - weight.detach()) / 0.1)


def test_a_projection_keeps_scalar_products_in_expectation():
    rng = np.random.default_rng(0)
    a = torch.tensor(rng.normal(1, size=60))
    b = a + torch.tensor(rng.normal(size=60))
    draws = 1500
    sketches = (gradients.CountSketch.of(60, 16, seed, torch.device("cpu")) for seed in range(draws))
    products = np.array([float(sketch(a) @ sketch(b)) for sketch in sketches])
    variance = float((a @ a) * (b @ b) + (a @ b) ** 2 - 2 * (a**2 * b**2).sum()) / 16
    assert abs(products.mean() - float(a @ b)) < 4 * np.sqrt(variance / draws)
    assert products.var() == pytest.approx(variance, rel=0.2)


@pytest.fixture(scope="module")
def warmup(tmp_path_factory):
    """Folder of a LoRA training on one sample at a rate that changes nothing, with two checkpoints."""
    folder = tmp_path_factory.mktemp("warmup")
    model, one = tiny_model(), load_task(PAIRS[:1], name="one")
    options = {"steps": 2, "batch_size": 1, "track": [], "save_steps": 1, "save_total_limit": 2}
    headnb.finetune(model, TOKENIZER, one, learning_rate=1e-12, output_dir=folder, **options)
    return folder


def test_moments_belong_to_their_weights(warmup):
    """After one step the first moment is a tenth of the (clipped) gradient, and the weights are still the same."""
    checkpoint, _ = gradients.read_checkpoints(warmup)
    with gradients._with_lora(tiny_model(), checkpoint, 0) as (tuned, weights):
        moments = gradients._read_moments(checkpoint, weights)
        (found,) = gradients.sample_gradients(tuned, encode_task(load_task(PAIRS[:1]), TOKENIZER).samples, weights)
    pairs = [(m.first, g) for m, g in zip(moments, found, strict=True) if g.abs().max() > 1e-6]  # B; A has none yet
    assert 0 < 2 * len(pairs) == len(weights)
    joined = torch.cat([(first / g)[g.abs() > 1e-6] for first, g in pairs])
    assert joined.max() <= 0.1 * (1 + 1e-3)
    torch.testing.assert_close(joined, joined.mean().expand_as(joined), rtol=1e-2, atol=0)


@pytest.mark.parametrize(("of_target", "of_pool"), [(False, False), (True, True), (True, False)])
def test_less_needs_gradients_of_the_target_and_updates_of_the_pool(warmup, of_target, of_pool):
    def select(*candidates):
        parts, how = (TASK.samples[:2], TASK.samples[2:6]), {"warmup": warmup, "dimensions": 64}
        both = [
            headnb.sample_features(tiny_model(), TOKENIZER, part, "less", candidates=update, **how)
            for part, update in zip(parts, candidates, strict=True)
        ]
        return headnb.select_instructions(*both, 2, by="less")

    with pytest.raises(HeadnbError, match="compares gradients of the target with Adam updates of the pool"):
        select(of_target, of_pool)
    assert len(select(False, True)) == 2


def test_scalar_products_sum_the_cosines_of_the_checkpoints_by_their_rates(warmup):
    model, first_two = tiny_model(), TASK.samples[:2]
    how = {"warmup": warmup, "dimensions": 64}
    target = headnb.sample_features(model, TOKENIZER, first_two, "less", **how)["feature"].values
    pool = headnb.sample_features(model, TOKENIZER, first_two, "less", candidates=True, **how)["feature"].values
    checkpoints = gradients.read_checkpoints(warmup)
    shares = np.array([checkpoint.rate for checkpoint in checkpoints])
    shares /= shares.sum()
    assert shares[0] > shares[1] > 0
    expected = np.zeros((2, 2))
    for share, checkpoint in zip(shares, checkpoints, strict=True):
        with gradients._with_lora(model, checkpoint, 0) as (tuned, weights):
            moments = gradients._read_moments(checkpoint, weights)
            sketch = gradients.CountSketch.of(sum(w.numel() for w in weights), 64, 0, torch.device("cpu"))
            plain, updates = [], []
            for of_sample in gradients.sample_gradients(tuned, SAMPLES[:2], weights):
                plain.append(sketch(torch.cat([g.flatten() for g in of_sample])))
                updates.append(
                    sketch(torch.cat([m.update(g).flatten() for m, g in zip(moments, of_sample, strict=True)]))
                )
        cosines = torch.nn.functional.cosine_similarity(torch.stack(plain)[:, None], torch.stack(updates)[None], dim=2)
        expected += share * cosines.numpy()
    np.testing.assert_allclose(target @ pool.T, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(pool, axis=1), 1, rtol=1e-5)


def test_features_are_read_again_only_for_the_same_call(tmp_path, monkeypatch):
    model, file = tiny_model(), tmp_path / "features.nc"
    before = state(model)
    first = headnb.sample_features(model, TOKENIZER, TASK, "gradient", dimensions=32, out=file)
    assert first["feature"].shape == (5, 32)
    assert state(model) == before
    monkeypatch.setattr("headnb.analysis.selection.features.gradient_features", lambda *_, **__: pytest.fail("again"))
    assert headnb.sample_features(model, TOKENIZER, TASK, "gradient", dimensions=32, out=file).equals(first)
    with pytest.raises(pytest.fail.Exception):
        headnb.sample_features(model, TOKENIZER, TASK, "gradient", dimensions=32, seed=1)
    with pytest.raises(HeadnbError, match=r"contains other results \(projection\)"):
        headnb.sample_features(model, TOKENIZER, TASK, "gradient", dimensions=32, seed=1, out=file)
    with pytest.raises(HeadnbError, match=r"contains other results \(method"):
        headnb.sample_features(model, TOKENIZER, TASK, out=file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "embeding"}, "did you mean 'embedding'"),
        ({"kind": "less"}, "needs warmup=, the folder of a LoRA training"),
        ({"kind": "gradient", "warmup": "x"}, "does not accept warmup="),
        ({"kind": "less", "warmup": "nowhere"}, "nowhere has no checkpoint of a LoRA training"),
        ({"dimensions": 0}, "dimensions must be at least 1"),
    ],
)
def test_bad_input_is_one_plain_line(change, message):
    with pytest.raises(HeadnbError, match=message):
        headnb.sample_features(tiny_model(), TOKENIZER, TASK, **change)


def test_copies_of_checkpoints_are_skipped(warmup, tmp_path):
    folder = tmp_path / "training"
    shutil.copytree(warmup, folder)
    known = [checkpoint.fingerprint for checkpoint in gradients.read_checkpoints(warmup)]
    shutil.copytree(next(folder.glob("checkpoint-*")), folder / "checkpoint-final")
    assert [checkpoint.fingerprint for checkpoint in gradients.read_checkpoints(folder)] == known
