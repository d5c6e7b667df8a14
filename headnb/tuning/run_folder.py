"""The folder of a fine-tuning: which one it holds, and where that goes on."""

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
STATE = "trainer_state.json"  # what a trainer writes last into a checkpoint
BASE = "model_fingerprint"  # the setting that says which weights the tuning began with

# Options of a trainer that change nothing about what is trained, and entries of adapters that say where they are from.
_IRRELEVANT_OPTIONS = re.compile(
    r"logging|log_|save|eval|do_eval|push_to|hub|report|run_name|disable_tqdm|use_cpu|gradient_checkpointing|torch_empty_cache"
    r"|torch_compile|dataloader(?!_drop_last)"
)
_IRRELEVANT_ADAPTER_ENTRIES = {"base_model_name_or_path", "peft_version", "inference_mode", "revision", "auto_mapping"}


def training_settings(adapters: PeftConfig | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that make two trainings on the same samples different ones, as JSON has them.

    What is as it is by default is left out: it is the same where it is not given, and where a library knows more.
    """
    from trl import SFTConfig  # type: ignore[attr-defined]  # noqa: PLC0415

    usual = {option.name: option.default for option in dataclasses.fields(SFTConfig)}
    chosen = {
        name: value
        for name, value in options.items()
        if value != usual.get(name) and not _IRRELEVANT_OPTIONS.match(name)
    }
    if adapters is not None:
        usual, given = type(adapters)().to_dict(), adapters.to_dict()
        own = [name for name in given.keys() - _IRRELEVANT_ADAPTER_ENTRIES if given[name] != usual.get(name)]
        chosen |= {f"peft_config.{name}": given[name] for name in own}
    return {name: _to_json(value) for name, value in chosen.items()}


def _to_json(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(key): _to_json(held) for key, held in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, (list, tuple)):
        return [_to_json(held) for held in value]
    return type(value).__qualname__  # its text may hold an address


def open_folder(folder: Path, settings: dict[str, Any], *, resume: bool, inplace: bool) -> Path | None:
    """The checkpoint to go on from, if any.

    Args:
        folder: made if it is not there.
        settings: of this fine-tuning.
        resume: whether one that the folder holds may go on.
        inplace: the model's own weights are trained, and may have gone on from `settings["base"]`.

    Raises:
        HeadnbError: the folder holds a fine-tuning that is not to be resumed, or another one than this.
    """
    path = folder / SETTINGS
    if path.is_file():
        stored = read_json(path, "")
        check_revision(folder, stored, settings, "a fine-tuning")
        compared = stored.keys() | settings.keys() if BASE in stored else stored.keys()  # earlier versions kept few
        differ = [
            f"{name} {_setting_text(stored, name)}, not {_setting_text(settings, name)}"
            for name in sorted(compared - ({BASE} if inplace else set()))
            if stored.get(name) != settings.get(name)
        ]
        if differ:
            raise HeadnbError(f"{folder} holds a fine-tuning with {'; '.join(differ)}; choose another output_dir")
        if not resume:
            raise HeadnbError(f"{folder} holds this fine-tuning already; resume=True goes on with it")
        return _last_checkpoint(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
    except OSError as error:
        raise HeadnbError(f"cannot write to {folder}: {error.strerror or error}") from error
    return None


def _setting_text(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "as by default"


def began_with_other_weights(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the folder's fine-tuning began with other weights than the model has now."""
    return bool(read_json(folder / SETTINGS, "").get(BASE, settings[BASE]) != settings[BASE])


def step_of(checkpoint: Path) -> int:
    """After how many updates it was written; -1 for a folder of another name."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that is complete."""
    for path in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        with contextlib.suppress(OSError, ValueError):
            json.loads((path / STATE).read_text(encoding="utf-8"))
            return path
    return None
