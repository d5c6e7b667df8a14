"""Malicious files that are small but cost a reader much memory or time, each with the call that reads it."""

from __future__ import annotations

import json
import resource
import shutil
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = 6 * 2**30  # bytes of address space, including the libraries of torch
SECONDS = 90  # of processor time
ROW = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def netcdf(folder: Path) -> None:
    import netCDF4
    from headnb import open_scores

    with netCDF4.Dataset(folder / "a.nc", "w") as file:
        for name, size in (("sample", 9000), ("layer", 500), ("head", 500)):
            file.createDimension(name, size)
        score = file.createVariable("score", "f4", ("sample", "layer", "head"), zlib=True, chunksizes=(9, 500, 500))
        file.createVariable("loss", "f4", ("sample",))
        score[0:9] = 0
    open_scores(folder / "a.nc")


def netcdf_of_a_run(folder: Path) -> None:
    import netCDF4
    from headnb.storage.files import read_dataset

    with netCDF4.Dataset(folder / "a.nc", "w") as file:
        file.createDimension("many", 10**9)
        file.createVariable("x", "f8", ("many",), zlib=True)
    read_dataset(folder / "a.nc")


def frame(size: int) -> bytes:
    """A Zstandard frame that decompresses to `size` zeros, made of run-length blocks."""
    blocks = [2**17] * (size // 2**17)
    headers = (int(index == len(blocks) - 1) | 1 << 1 | length << 3 for index, length in enumerate(blocks))
    written = b"".join(header.to_bytes(3, "little") + b"\0" for header in headers)
    return b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + written


def _zarr(folder: Path, column: str, chunk: bytes) -> None:
    import google_crc32c
    from headnb import open_scores

    from stores import score_into

    score_into(folder / "a.zarr")
    for file in (folder / "a.zarr" / column / "c").rglob("*"):
        if file.is_file():
            file.write_bytes(chunk + google_crc32c.value(chunk).to_bytes(4, "little"))
    open_scores(folder / "a.zarr").load()


def zarr_chunk(folder: Path) -> None:
    _zarr(folder, "score", frame(3 * 2**29))


def zarr_ids(folder: Path) -> None:
    _zarr(folder, "sample", frame(3 * 2**29))


def zarr_marks(folder: Path) -> None:
    _zarr(folder, "done", frame(3 * 2**29))


def zarr_chunk_of_unknown_size(folder: Path) -> None:
    whole = frame(3 * 2**29)
    _zarr(folder, "loss", whole[:4] + b"\x00\x58" + whole[13:])


def zarr_codec(folder: Path) -> None:
    from headnb import open_scores

    from stores import score_into

    score_into(folder / "a.zarr")
    path = folder / "a.zarr" / "loss" / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["codecs"] = [metadata["codecs"][0], {"name": "gzip", "configuration": {"level": 5}}]
    path.write_text(json.dumps(metadata))
    open_scores(folder / "a.zarr")


MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 13)
)


def yaml_merges(folder: Path) -> None:
    from headnb.suite.definition import read_suite

    (folder / "suite.yaml").write_text(MERGES)
    read_suite(folder / "suite.yaml", "demo")


def yaml_merges_of_a_setting(_: Path) -> None:
    from headnb.cli.suite import _values

    _values([f"x={MERGES}"])


def yaml_number(folder: Path) -> None:
    from headnb.suite.definition import read_suite

    (folder / "suite.yaml").write_text("a: " + "1:" * 125_000 + "1")
    read_suite(folder / "suite.yaml", "demo")


def gguf_entries(folder: Path) -> None:
    from headnb import load_model

    key = struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 4, 10**12)  # an array of 10**12 numbers
    (folder / "a.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key)
    load_model(folder / "a.gguf")


def long_id(folder: Path) -> None:
    import numpy as np
    from headnb import load_task

    rows = [{"prompt": "a", "completion": "b", "id": "x" * (9_000_000 if i == 0 else 1) + str(i)} for i in range(300)]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    np.array(load_task(folder / "a.jsonl").ids)


def _template(text: str) -> None:
    from headnb import load_task
    from headnb.engine.tokenization import encode_task

    from tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = text
    encode_task(load_task([ROW]), tokenizer)


def template_loops(_: Path) -> None:
    _template("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")


def template_fills_memory(_: Path) -> None:
    _template("{{ 'a' * 4000000000 }}")


def template_loops_in_one_step(_: Path) -> None:
    _template("{{ 7 ** (7 ** 12) % 10 }}")


def _model(folder: Path, kind: str = "llama", **config: object) -> None:
    from headnb import load_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from tiny import tiny_tokenizer

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    small |= {"num_key_value_heads": 2} if kind == "llama" else {}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=320, **small)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | config))
    load_model(folder)


def layers(folder: Path) -> None:
    _model(folder, num_hidden_layers=10**9)


def layers_of_a_part(folder: Path) -> None:
    _model(folder, text_config={"num_hidden_layers": 10**9})


def width(folder: Path) -> None:
    _model(folder, hidden_size=10**5, vocab_size=10**5)


def positions(folder: Path) -> None:
    _model(folder, "gpt2", n_positions=10**6)


def no_class(folder: Path) -> None:
    _model(folder, architectures=[None], model_type="bert")


def _adapter(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    from headnb import load_model
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from tiny import tiny_tokenizer

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=320, num_key_value_heads=2, **small))
    base.save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    get_peft_model(base, LoraConfig(r=2, target_modules="all-linear")).save_pretrained(folder / "adapter")
    path = folder / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    load_model(folder / "base", adapter=folder / "adapter")


def pattern(folder: Path) -> None:
    _adapter(folder, lambda config: config | {"target_modules": r"(\w+\.?)+(\w+)+X"})


def pattern_of_ranks(folder: Path) -> None:
    _adapter(folder, lambda config: config | {"rank_pattern": {r"(\w+\.?)+(\w+)+X": 4}})


def rank(folder: Path) -> None:
    _adapter(folder, lambda config: config | {"r": 10**7})


def adapter_list(folder: Path) -> None:
    _adapter(folder, lambda config: [config])


# Name -> pattern of the error message.
ATTACKS = {
    "netcdf": "bytes would take more than 256 MB",
    "netcdf_of_a_run": "bytes would take more than 256 MB",
    "zarr_chunk": "it would take 1536 MB, more than 256 MB",
    "zarr_ids": "it would take 1536 MB, more than 256 MB",
    "zarr_marks": "it would take 1536 MB, more than 256 MB",
    "zarr_chunk_of_unknown_size": "it does not state its decompressed size",
    "zarr_codec": r"headnb does not write the codecs of .* \(bytes, gzip\)",
    "yaml_merges": "has more than 100000 values with its aliases expanded",
    "yaml_merges_of_a_setting": "has more than 100000 values with its aliases expanded",
    "yaml_number": "a value has more than 10000 characters",
    "gguf_entries": "header declares 4000000000000 entries, more than the file can contain",
    "long_id": "the id of sample 0 has more than 1000 characters",
    "template_loops": "it takes more than 10 s",
    "template_fills_memory": "it takes more than 1024 MB of memory",
    "template_loops_in_one_step": "it takes more than 10 s",
    "layers": r"declares 1e\+09 layers; headnb reads models of up to 1024",
    "layers_of_a_part": r"declares 1e\+09 layers; headnb reads models of up to 1024",
    "width": "config.json describes .* weights, but its files have",
    "positions": "config.json describes .* weights, but its files have",
    "no_class": "is an encoder; headnb scores causal",
    "pattern": "target_modules is .* which headnb does not pass to peft",
    "pattern_of_ranks": "rank_pattern is .* which headnb does not pass to peft",
    "rank": r"r is 1e\+07, but no side of the weights is above 256",
    "adapter_list": "adapter_config.json is not a JSON object",
}


def _peak_memory() -> int:
    """Bytes of this process's own memory at its peak; `ru_maxrss` would include the parent's at the fork."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def attack(name: str, folder: Path) -> tuple[str | None, int]:
    """Run one attack with limits of memory and time, for a process of its own; message of the error, peak memory."""
    from headnb import HeadnbError

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    message = None
    try:
        globals()[name](folder)
    except HeadnbError as error:
        message = str(error)
    peak = _peak_memory()
    shutil.rmtree(folder, ignore_errors=True)
    return message, peak
