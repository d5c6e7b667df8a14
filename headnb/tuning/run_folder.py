"""Output folder of a fine-tuning: the stored settings, and the checkpoint to resume from."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.errors import HeadnbError
from headnb.stats.scoring_revision import check_revision
from headnb.storage.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from peft import PeftConfig

SETTINGS = "finetuning.json"
STATE = "trainer_state.json"  # the last file that a trainer writes into a checkpoint
BASE = "model_fingerprint"  # the setting that identifies the initial weights

# Trainer options and adapter entries that do not affect the trained weights.
_IRRELEVANT_OPTIONS = re.compile(
    r"logging|log_|save|eval|do_eval|push_to|hub|report|run_name|disable_tqdm|use_cpu|gradient_checkpointing|torch_empty_cache"
    r"|torch_compile|dataloader(?!_drop_last)"
)
_IRRELEVANT_ADAPTER_ENTRIES = {"base_model_name_or_path", "peft_version", "inference_mode", "revision", "auto_mapping"}


def training_settings(adapters: PeftConfig | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that affect the trained weights, as JSON values.

    Default values are omitted, so that a new library version with more options does not change the settings.
    """
    from trl import SFTConfig  # type: ignore[attr-defined]  # noqa: PLC0415

    default = {option.name: option.default for option in dataclasses.fields(SFTConfig)}
    chosen = {
        name: value
        for name, value in options.items()
        if value != default.get(name) and not _IRRELEVANT_OPTIONS.match(name)
    }
    if adapters is not None:
        default, given = type(adapters)().to_dict(), adapters.to_dict()
        own = [name for name in given.keys() - _IRRELEVANT_ADAPTER_ENTRIES if given[name] != default.get(name)]
        chosen |= {f"peft_config.{name}": given[name] for name in own}
    return {name: _to_json(value) for name, value in chosen.items()}


def _to_json(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(key): _to_json(entry) for key, entry in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, (list, tuple)):
        return [_to_json(entry) for entry in value]
    return type(value).__qualname__  # repr may contain a memory address


def open_folder(folder: Path, settings: dict[str, Any], *, resume: bool, inplace: bool) -> Path | None:
    """Open or create the folder of a fine-tuning, and return the checkpoint to resume from, if any.

    Args:
        folder: created if it does not exist.
        settings: settings of this fine-tuning.
        resume: permit resuming a fine-tuning that the folder contains.
        inplace: the model's own weights are trained. They may differ from the stored initial weights
            (`model_fingerprint`).

    Raises:
        HeadnbError: the folder contains another fine-tuning, or the same fine-tuning and `resume` is false.
    """
    path = folder / SETTINGS
    if path.is_file():
        stored = read_json(path, "")
        check_revision(folder, stored, settings, "a fine-tuning")
        compared = stored.keys() | settings.keys() if BASE in stored else stored.keys()  # earlier versions stored few
        differ = [
            f"{name} {_setting_text(stored, name)}, not {_setting_text(settings, name)}"
            for name in sorted(compared - ({BASE} if inplace else set()))
            if stored.get(name) != settings.get(name)
        ]
        if differ:
            raise HeadnbError(f"{folder} contains a fine-tuning with {'; '.join(differ)}; choose another output_dir")
        if not resume:
            raise HeadnbError(f"{folder} already contains this fine-tuning; continue it with resume=True")
        return last_checkpoint(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
    except OSError as error:
        raise HeadnbError(f"cannot write to {folder}: {error.strerror or error}") from error
    return None


def _setting_text(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "the default"


def began_with_other_weights(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the initial weights of the folder's fine-tuning differ from the model's current weights."""
    return bool(read_json(folder / SETTINGS, "").get(BASE, settings[BASE]) != settings[BASE])


def step_of(checkpoint: Path) -> int:
    """Step of a folder checkpoint-STEP; -1 for other names."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def last_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint, if any."""
    for path in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        with contextlib.suppress(OSError, ValueError):
            json.loads((path / STATE).read_text(encoding="utf-8"))
            return path
    return None
