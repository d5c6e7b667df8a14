"""Loading: every source gives the saved weights, unsafe or unsupported models are refused, and no call waits."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest
import torch
import transformers
from headnb import HeadnbError
from headnb.models.checks import model_name
from headnb.models.fingerprint import weights_fingerprint
from headnb.models.loading import load_model, read_ahead, weights_folder
from headnb.models.registry import known_models, loading_error
from safetensors.torch import load_file

from tiny import tiny_model


def test_folder_gives_the_saved_model_in_eval_mode(folder, model, tokenizer, input_ids):
    loaded, its_tokenizer = load_model(folder)
    assert not loaded.training
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(loaded(input_ids).logits, model(input_ids).logits, rtol=0, atol=0)
    assert its_tokenizer("Answer: 3").input_ids == tokenizer("Answer: 3").input_ids
    assert its_tokenizer.chat_template == tokenizer.chat_template
    assert model_name(loaded) == "tiny"


def test_half_precision_is_widened_exactly_on_a_cpu_unless_asked_for(folder, model):
    model.to(torch.bfloat16).save_pretrained(folder)
    wide, _ = load_model(folder, device="cpu")
    half, _ = load_model(folder, device="cpu", dtype="bfloat16")
    assert (wide.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    for name, weight in half.state_dict().items():
        assert torch.equal(wide.state_dict()[name], weight.float())


def test_loading_writes_nothing_and_leaves_transformers_settings(folder, capfd):
    transformers.logging.set_verbosity_info()
    try:
        load_model(folder)
        assert transformers.logging.get_verbosity() == transformers.logging.INFO
    finally:
        transformers.logging.set_verbosity_warning()
    assert transformers.logging.is_progress_bar_enabled()
    assert capfd.readouterr() == ("", "")


def test_adapter_folder_finds_its_base_and_stays_unmerged(adapter, model, input_ids):
    path, logits = adapter
    loaded, _ = load_model(path)
    torch.testing.assert_close(loaded(input_ids).logits, logits, rtol=0, atol=0)
    assert (logits - model(input_ids).logits).abs().max() > 0.01
    with loaded.disable_adapter():
        torch.testing.assert_close(loaded(input_ids).logits, model(input_ids).logits, rtol=0, atol=0)
    assert not loaded.training
    assert model_name(loaded) == "tiny + lora"


def test_adapter_on_a_named_base(adapter, folder, input_ids):
    path, logits = adapter
    loaded, _ = load_model(folder, adapter=path)
    torch.testing.assert_close(loaded(input_ids).logits, logits, rtol=0, atol=0)


def test_adapter_that_names_no_base_or_does_not_fit(adapter, tokenizer, tmp_path):
    path, _ = adapter
    other = tmp_path / "other"
    tiny_model(hidden=64).save_pretrained(other)
    tokenizer.save_pretrained(other)
    with pytest.raises(HeadnbError, match="does not fit other"):
        load_model(other, adapter=path)
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": None}))
    with pytest.raises(HeadnbError, match="does not name its base model"):
        load_model(path)
    (path / "adapter_config.json").write_text("{")
    with pytest.raises(HeadnbError, match=r"cannot read .*adapter_config\.json"):
        load_model(path)


def test_pickled_adapter_is_refused(adapter):
    path, _ = adapter
    torch.save(load_file(path / "adapter_model.safetensors"), path / "adapter_model.bin")
    (path / "adapter_model.safetensors").unlink()
    with pytest.raises(HeadnbError, match=r"no adapter_model\.safetensors \(pickled weights are not loaded\)"):
        load_model(path)


class Trap:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused_unread(folder, tmp_path, name):
    torch.save(Trap(tmp_path / "mark"), folder / name)
    (folder / "model.safetensors").unlink()
    with pytest.raises(HeadnbError, match=rf"pickled weights \({name}\)"):
        load_model(folder)
    index = {"metadata": {}, "weight_map": {"lm_head.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "extra.safetensors").write_bytes(b"")
    with pytest.raises(HeadnbError, match="pickled weights"):
        load_model(folder)
    assert not (tmp_path / "mark").exists()


def test_code_that_comes_with_a_model_is_not_run(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\n")
    with pytest.raises(HeadnbError, match="needs its own code"):
        load_model(folder)
    assert not (tmp_path / "mark").exists()


def small(kind, **more):
    return kind(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, **more)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("encoder", "is an encoder;"),
        ("encoder-decoder", "is an encoder-decoder;"),
        ("classifier", "is a LlamaForSequenceClassification;"),
        ("vision", "is a ViTModel;"),
        ("headless", r"lacks weights of a causal language model: lm_head\.weight"),
    ],
)
def test_what_is_no_causal_decoder_is_refused(kind, message, tokenizer, tmp_path):
    if kind == "encoder":
        model = transformers.BertForMaskedLM(small(transformers.BertConfig, vocab_size=320))
    elif kind == "encoder-decoder":
        model = transformers.T5ForConditionalGeneration(
            transformers.T5Config(d_model=32, d_ff=32, num_layers=1, num_heads=2, d_kv=16, vocab_size=320)
        )
    elif kind == "classifier":
        model = transformers.LlamaForSequenceClassification(small(transformers.LlamaConfig, vocab_size=320))
    elif kind == "vision":
        model = transformers.ViTModel(small(transformers.ViTConfig, image_size=32))
    else:
        model = transformers.LlamaModel(small(transformers.LlamaConfig, vocab_size=320))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(HeadnbError, match=message):
        load_model(tmp_path)


def test_broken_folders_say_what_is_missing(folder):
    with pytest.raises(HeadnbError, match="not a GGUF file; give the folder"):
        load_model(folder / "config.json")
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(HeadnbError, match="cannot load"):
        load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(HeadnbError, match=r"no weights \(model\.safetensors\)"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(HeadnbError, match=r"no config\.json"):
        load_model(folder)


def test_folder_without_a_tokenizer_says_so(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(HeadnbError, match=r"has no loadable tokenizer .*tokenizer\.save_pretrained"):
        load_model(folder)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm2-135", r"unknown model 'smollm2-135'.*no network; nearest known: smollm2-135m"),
        ("google/gemma-7b", r"cannot load google/gemma-7b: .* and no network$"),
        ("meta-llama/Lama-3.2-1B", r"nearest known: meta-llama/Llama-3\.2-1B"),
        ("./nowhere", r"unknown model './nowhere': no such file or folder"),
        ("two words", r"no such file or folder"),
        ("nowhere.gguf", r"no GGUF file at nowhere\.gguf"),
    ],
)
def test_unknown_model_says_what_was_tried_and_does_not_wait(name, message):
    with pytest.raises(HeadnbError, match=message) as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_network")
def test_adapter_of_the_hub_without_a_network(folder):
    with pytest.raises(HeadnbError, match="unknown model 'somebody/lora'"):
        load_model(folder, adapter="somebody/lora")


@pytest.mark.usefixtures("no_network")
def test_adapter_of_the_hub_in_place_of_a_model_says_how_to_load_it(adapter, folder, input_ids, tmp_path, monkeypatch):
    path, logits = adapter
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    cached = tmp_path / "cache" / "models--somebody--lora"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.copytree(path, cached / "snapshots" / ("0" * 40))
    call = f"load_model({str(folder)!r}, adapter='somebody/lora')"
    with pytest.raises(HeadnbError, match=re.escape(f"somebody/lora is an adapter, not a model: {call}")):
        load_model("somebody/lora")
    loaded, _ = load_model(folder, adapter="somebody/lora")
    torch.testing.assert_close(loaded(input_ids).logits, logits, rtol=0, atol=0)
    assert model_name(loaded) == "tiny + somebody/lora"


def test_a_revision_of_what_is_not_on_the_hub_is_refused(folder):
    for source in (folder, "smollm2-135m"):
        with pytest.raises(
            HeadnbError, match=f"revision applies to models on the hub, not to {re.escape(str(source))}"
        ):
            load_model(source, revision="v1")


def test_weights_in_the_hubs_cache_are_those_of_the_revision_and_complete(folder, model, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--somebody--model"
    (cached / "refs").mkdir(parents=True)
    for name, commit in (("main", "0" * 40), ("v1", "1" * 40)):
        (cached / "refs" / name).write_text(commit)
    snapshots = {name: cached / "snapshots" / (digit * 40) for name, digit in (("main", "0"), ("v1", "1"))}
    shutil.copytree(folder, snapshots["main"])
    model.save_pretrained(snapshots["v1"], max_shard_size="20kB")
    for name, snapshot in snapshots.items():
        assert weights_folder("somebody/model", name) == snapshot
    assert weights_folder("somebody/model") == snapshots["main"]
    assert weights_folder("somebody/model", "v2") is None
    next(snapshots["v1"].glob("model-*.safetensors")).unlink()  # a download that was stopped
    assert weights_folder("somebody/model", "v1") is None


def test_weights_that_would_not_fit_in_float32_are_refused_before_they_are_widened(folder, monkeypatch):
    import psutil

    load_model(folder, dtype="bfloat16")[0].save_pretrained(folder)
    memory = psutil.virtual_memory()
    little = memory._replace(available=sum(file.stat().st_size for file in folder.glob("*.safetensors")))
    monkeypatch.setattr("psutil.virtual_memory", lambda: little)
    monkeypatch.setattr("headnb.models.loading.weight_bytes", lambda *_: 0)
    assert load_model(folder)[0].dtype == torch.float32
    monkeypatch.setattr("psutil.virtual_memory", lambda: little._replace(available=little.available // 2))
    with pytest.raises(HeadnbError, match=r"the weights in float32 need .* free; dtype='bfloat16' keeps them"):
        load_model(folder)


WITHOUT_SAFETENSORS = "m does not appear to have a file named x and thus cannot be loaded with `safetensors`. Please"


@pytest.mark.parametrize(
    ("text", "online", "message"),
    [
        (WITHOUT_SAFETENSORS, True, "m has only pickled weights"),
        (WITHOUT_SAFETENSORS, False, "unknown model 'm': no folder of that name, not or not completely in the hub's"),
        ("503 Server Error for url: https://hub/m/model.safetensors", True, "cannot load m: 503 Server Error"),
    ],
)
def test_only_missing_safetensors_of_the_hub_are_called_pickled(text, online, message):
    assert str(loading_error("m", OSError(text), online=online)).startswith(message)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there(folder):
    with pytest.raises(HeadnbError, match="no device 'cuda' on this machine"):
        load_model(folder, device="cuda")


def test_a_dtype_that_is_not_one(folder):
    with pytest.raises(HeadnbError, match="no dtype 'float99'"):
        load_model(folder, dtype="float99")


@pytest.mark.parametrize("source", [None, 5, b"gpt2", "x" * 300, "a\0b", "~nobody-of-this-name/x", "\ud800"])
def test_what_names_no_model_is_one_plain_error(folder, source, no_network):
    for arguments in ({"id": source}, {"id": folder, "adapter": source}):
        if arguments.get("adapter", "") is None:
            continue
        with pytest.raises(HeadnbError) as caught:
            load_model(**arguments)
        assert len(str(caught.value)) < 200
        assert "\n" not in str(caught.value)


def test_known_models_are_described_in_one_line():
    known = known_models()
    assert {"smollm2-135m", "meta-llama/Meta-Llama-3-8B", "google/gemma-7b", "facebook/opt-6.7b"} <= set(known)
    assert all(text and "\n" not in text for text in known.values())
    known.clear()
    assert known_models()


def test_shards_open_again(folder, model):
    model.save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    assert (folder / "model.safetensors.index.json").is_file()
    assert weights_fingerprint(load_model(folder)[0]) == weights_fingerprint(model)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system has no such advice")
def test_the_weights_of_a_folder_are_read_ahead_and_nothing_else(folder, monkeypatch):
    advised = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, *_: advised.append(os.fstat(file).st_size))
    read_ahead(str(folder))
    assert advised == [(folder / "model.safetensors").stat().st_size]


@pytest.mark.parametrize("source", [None, torch.nn.Linear(1, 1), "no such folder", "hub/id", "\0", "pipe"])
def test_what_cannot_be_read_ahead_is_left_to_loading(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "model.safetensors")
    read_ahead(source)
