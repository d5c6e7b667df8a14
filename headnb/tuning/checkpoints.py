"""Discovery of saved checkpoints, and the parameter distance between two of them.

Only files are read. Weights are loaded one tensor at a time.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import math
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.errors import HeadnbError
from headnb.hub import user_path
from headnb.models.checks import check_folder
from headnb.models.configs import read_config
from headnb.models.provenance import adapter_base

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

ADAPTER, FULL = "adapter_config.json", "config.json"
_SHAPE = ("model_type", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size", "vocab_size")


@dataclass(frozen=True)
class Checkpoint:
    """A folder that a trainer saved after `step` updates: a full model or a PEFT adapter."""

    folder: Path
    step: int
    is_adapter: bool

    @property
    def trainer_state(self) -> dict[str, Any]:
        """Content of trainer_state.json; empty if there is no such file."""
        return _json(self.folder / "trainer_state.json")

    @property
    def base(self) -> tuple[str, str | None]:
        """Name and revision of an adapter's base model; the name is empty if the adapter does not record it."""
        return adapter_base(self.folder) if self.is_adapter else ("", None)

    @property
    def file_signature(self) -> str:
        """Hash of the weight files' names, sizes and times. It changes when other weights are saved to the folder."""
        files = sorted(self.folder.glob("*.safetensors"))
        stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashlib.blake2b(json.dumps(stats).encode(), digest_size=8).hexdigest()

    @property
    def tokens_seen(self) -> float:
        """Training tokens up to this step, counted by transformers or TRL; NaN if they were not counted."""
        state = self.trainer_state
        logged = [log["num_tokens"] for log in state.get("log_history", ()) if "num_tokens" in log]
        return float(state.get("num_input_tokens_seen") or (logged[-1] if logged else math.nan))

    @property
    def train_loss(self) -> dict[int, float]:
        """Update -> training loss, as the trainer logged it up to this step."""
        return {
            int(log["step"]): float(log["loss"]) for log in self.trainer_state.get("log_history", ()) if "loss" in log
        }


def find_checkpoints(paths: str | Path | Sequence[str | Path]) -> list[Checkpoint]:
    """Checkpoints, sorted by step.

    Args:
        paths: a pattern such as "runs/checkpoint-*", a trainer's output_dir, or a list of these.

    Raises:
        HeadnbError: there is no checkpoint; a checkpoint has no weights or no step; two have the same step; adapters
            and full models are mixed; or the models have different shapes.
    """
    patterns = [paths] if isinstance(paths, (str, Path)) else list(paths)
    folders = dict.fromkeys(folder for pattern in patterns for folder in _checkpoint_folders(pattern))
    if not folders:
        raise HeadnbError("give at least one checkpoint: a pattern such as 'runs/checkpoint-*', or an output_dir")
    checkpoints = sorted((_checkpoint(folder) for folder in folders), key=lambda checkpoint: checkpoint.step)
    for one, other in itertools.pairwise(checkpoints):
        if one.step == other.step:
            raise HeadnbError(
                f"{one.folder} and {other.folder} both have step {one.step}; give the checkpoints of one run"
            )
        if one.is_adapter != other.is_adapter:
            adapter, model = (one, other) if one.is_adapter else (other, one)
            raise HeadnbError(
                f"{adapter.folder} is an adapter and {model.folder} is a full model; give the checkpoints of one run"
            )
        if (difference := _difference(one, other)) is not None:
            raise HeadnbError(f"{one.folder} and {other.folder} are of different models: {difference}")
    return checkpoints


def _checkpoint_folders(pattern: str | Path) -> list[Path]:
    folder = user_path(pattern)
    if folder.is_dir():
        inside = [path for path in folder.iterdir() if path.is_dir() and path.name.startswith("checkpoint-")]
        if _is_checkpoint(folder) and not inside:
            return [folder]
        if not inside:
            raise HeadnbError(f"{folder} is not a checkpoint and contains none (checkpoint-*)")
        return inside
    folders = [Path(path) for path in glob.glob(str(folder)) if Path(path).is_dir()]  # noqa: PTH207  absolute patterns
    if not folders:
        raise HeadnbError(f"no folder matches {str(pattern)!r}{_folder_hint(folder)}")
    return folders


def _folder_hint(pattern: Path) -> str:
    """The folders in the nearest existing parent, for an error message."""
    parent = next((folder for folder in pattern.parents if folder.is_dir()), Path())
    names = sorted(path.name for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    more = ", ..." if len(names) > 6 else ""
    return f"; {parent.resolve()} contains {', '.join(names[:6]) + more if names else 'no folders'}"


def _is_checkpoint(folder: Path) -> bool:
    return (folder / ADAPTER).is_file() or (folder / FULL).is_file()


def _checkpoint(folder: Path) -> Checkpoint:
    if not _is_checkpoint(folder):
        raise HeadnbError(f"{folder} is not a checkpoint: it has neither {FULL} nor {ADAPTER}")
    is_adapter = (folder / ADAPTER).is_file()
    if not is_adapter:
        check_folder(folder)
    elif not (folder / "adapter_model.safetensors").is_file():
        raise HeadnbError(f"{folder} has no adapter_model.safetensors (pickled weights are not loaded)")
    number = re.search(r"(\d+)$", folder.name)
    step = _json(folder / "trainer_state.json").get("global_step", number and int(number[1]))
    if step is None:
        raise HeadnbError(f"the step of {folder} is not recorded; rename the folder to checkpoint-STEP")
    return Checkpoint(folder, int(step), is_adapter)


def _difference(one: Checkpoint, other: Checkpoint) -> str | None:
    """Description of a difference that two checkpoints of one run cannot have; None if there is none."""
    if one.is_adapter:
        if one.base == other.base:
            return None
        first, second = (
            name if revision is None else f"{name} at {revision}" for name, revision in (one.base, other.base)
        )
        return f"their base models are {first!r} and {second!r}"
    options = {"trust_remote_code": False}
    configs = [read_config(str(checkpoint.folder), options).get_text_config() for checkpoint in (one, other)]
    for name in _SHAPE:
        a, b = (getattr(config, name, None) for config in configs)
        if a != b:
            return f"{name} {a!r} and {b!r}"
    return None


def _json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is no such file.

    Raises:
        HeadnbError: the file cannot be read or does not contain a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HeadnbError(f"{path} cannot be read: {error}") from error
    if not isinstance(read, dict):
        raise HeadnbError(f"{path} does not contain a JSON object")
    return read


def moved_weights(
    before: Path | nn.Module, after: Path, layer_of: Callable[[str], int | None], layers: int
) -> np.ndarray:
    """Relative L2 distance of each layer's weights in a folder from those before, || W - W0 || / || W0 ||, (L,).

    It is NaN for a layer whose weights have other names or shapes than before.

    Args:
        before: folder with the weights W0, or a model that has them.
        after: folder with the weights W.
        layer_of: function from a weight's name to its layer; see `layer_finder`.
        layers: number of layers.
    """
    import torch  # noqa: PLC0415

    def squares(values: Tensor) -> float:
        return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2

    distance, norm = np.zeros(layers), np.zeros(layers)
    with ExitStack() as files:
        first = _tensors(before, files) if isinstance(before, Path) else _tensors_of(before)
        second = _tensors(after, files)
        for name, read in second.items():
            layer = layer_of(name)
            if layer is None:
                continue
            now, then = read(), _same_weight(name, first)
            if then is None or then.shape != now.shape:
                distance[layer] = np.nan
                continue
            distance[layer] += squares(now.double() - then.double())
            norm[layer] += squares(then)
    return np.asarray(np.sqrt(np.divide(distance, norm, out=np.full(layers, np.nan), where=norm > 0)))


def _tensors(folder: Path, files: ExitStack) -> dict[str, Callable[[], Tensor]]:
    """Name -> function that reads the weight, for all weights in a folder. Files stay open until `files` is closed."""
    from safetensors import safe_open  # noqa: PLC0415

    readers: dict[str, Callable[[], Tensor]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        opened: Any = files.enter_context(safe_open(path, framework="pt"))
        for name in opened.keys():  # noqa: SIM118  it is not a mapping
            readers[name] = lambda opened=opened, name=name: opened.get_tensor(name)  # type: ignore[misc]
    return readers


def _tensors_of(model: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """Name -> function that returns the weight in main memory, for all weights of a model that are not offloaded."""
    weights = {name: weight for name, weight in model.state_dict().items() if not weight.is_meta}
    return {name: weight.detach().cpu for name, weight in weights.items()}


def _same_weight(name: str, weights: Mapping[str, Callable[[], Tensor]]) -> Tensor | None:
    """Read the weight `name`. Files on the hub may lack the prefix that trainers write."""
    while name not in weights and "." in name:
        name = name.partition(".")[2]
    return weights[name]() if name in weights else None
