"""Models quantized by bitsandbytes are scored and tuned like their dequantized weights."""

from __future__ import annotations

import json
import subprocess
import sys

import headnb
import numpy as np
import pytest
import torch
from headnb.errors import HeadnbError
from headnb.models.fingerprint import weights_fingerprint
from headnb.tuning.training import TuningInterrupted
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tiny import tiny_model, tiny_tokenizer
from trainers import PAIRS

FOUR = {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32}
KINDS = {
    "nf4": FOUR | {"bnb_4bit_quant_type": "nf4"},
    "fp4": FOUR,
    "nested": FOUR | {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "int8": {"load_in_8bit": True},
}
QUICK = {"steps": 4, "every": 2, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model(hidden=128).save_pretrained(folder)
    return folder


@pytest.fixture
def load(folder):
    return lambda kind="nf4": AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=BitsAndBytesConfig(**KINDS[kind]), device_map="cpu"
    )


def scores_of(model, method="activation"):
    return headnb.score_heads(model, tiny_tokenizer(), PAIRS, method=method).score.values


@pytest.mark.parametrize(
    ("kind", "method"), [*((kind, "activation") for kind in KINDS), ("nf4", "ablate-zero"), ("nf4", "attattr")]
)
def test_scores_are_those_of_the_weights_that_the_bits_stand_for(load, kind, method):
    model = load(kind)
    before = weights_fingerprint(model)
    found, expected = (scores_of(variant, method) for variant in (model, load(kind).dequantize().float()))
    # With 8 bits the activations are also rounded, to 1 / 254 of a token's largest value.
    assert np.linalg.norm(found - expected) <= (0.1 if kind == "int8" else 1e-5) * np.linalg.norm(expected)
    np.testing.assert_array_equal(scores_of(model, method), found)
    assert weights_fingerprint(model) == before


def test_adapters_of_a_model_in_four_bits_learn_and_leave_every_bit_of_it(load):
    model = load()
    before, scores = weights_fingerprint(model), scores_of(model)
    result = headnb.finetune(model, tiny_tokenizer(), PAIRS, track={"own": PAIRS}, **QUICK | {"steps": 20, "every": 10})
    assert result.study.attrs["kind_of_tuning"] == "qlora"
    assert result.study.eval_loss[-1, 0] < result.study.eval_loss[0, 0] - 1
    assert (result.study.movement[-1] > 0).all()
    tracked = result.scores["own"].score
    np.testing.assert_allclose(tracked.isel(step=0), scores, rtol=1e-4, atol=1e-6)
    assert weights_fingerprint(model) == before
    with result.applied(model) as tuned, torch.no_grad():
        tuned(torch.arange(4)[None])
        found = scores_of(tuned)
    # Adapters are trained and tracked in bfloat16, and applied in float32.
    assert np.linalg.norm(found - tracked.isel(step=-1)) < 0.02 * np.linalg.norm(found)
    np.testing.assert_array_equal(scores_of(model), scores)


def test_a_tuning_in_four_bits_that_was_stopped_ends_as_one_that_was_not(load, tmp_path):
    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    whole = headnb.finetune(load(), tiny_tokenizer(), PAIRS, **QUICK)
    with pytest.raises(TuningInterrupted):
        headnb.finetune(load(), tiny_tokenizer(), PAIRS, output_dir=tmp_path, on_progress=stop, **QUICK)
    resumed = headnb.finetune(load(), tiny_tokenizer(), PAIRS, output_dir=tmp_path, resume=True, **QUICK)
    np.testing.assert_array_equal(resumed.study.level, whole.study.level)
    np.testing.assert_array_equal(resumed.study.train_loss, whole.study.train_loss)


@pytest.mark.long
def test_nothing_is_said_where_bitsandbytes_is_imported_with_others():
    program = "import headnb.tuning.finetuning, headnb.models.loading"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stderr == b""


@pytest.mark.parametrize("use", [scores_of, lambda model: headnb.finetune(model, tiny_tokenizer(), PAIRS, **QUICK)])
def test_weights_that_were_laid_out_for_inference_are_refused(load, use):
    model = load()
    layer = model.model.layers[0].mlp.up_proj
    with torch.no_grad():
        model(torch.arange(4)[None])
    if not layer.support_avx512bf16_for_cpu:  # simulate a processor with bfloat16 instructions
        layer.support_avx512bf16_for_cpu = True
        layer.weight.quant_state.original_qshape = layer.weight.shape
    with pytest.raises(HeadnbError, match="load the model again"):
        use(model)


@pytest.mark.parametrize("option", ["load_in_4bit", "load_in_8bit"])
def test_a_checkpoint_that_is_said_to_be_quantized_and_is_not_is_refused(tmp_path, option):
    """Otherwise transformers puts float weights into bitsandbytes layers, and the first pass fails in an assertion."""
    tiny_model(hidden=128).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", option: True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(HeadnbError, match=r"q_proj is in float32; remove quantization_config from config.json"):
        headnb.load_model(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(HeadnbError, match="remove quantization_config"):
        headnb.score_heads(model, tiny_tokenizer(), PAIRS)
