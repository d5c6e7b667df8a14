"""Origin of a model's weights, and the base model of an adapter.

peft writes `model.name_or_path` into adapter_config.json, so this attribute is always something that other tools can
load: a hub id or an absolute path. The default model is a dequantized 4-bit file, whose weights are close to the hub's
but not equal. Its adapters name the hub id for peft; an additional file in the adapter's folder names the exact base
for headnb.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError, first_line
from headnb.hub import user_path

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "adapter_config.json"
BASE = "headnb_base.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """What `load_model` knows about a model's weights beyond `name_or_path`; fields that are not needed are empty.

    Attributes:
        name: name of the model in results.
        load_as: argument of `load_model` that loads the same weights again.
        source: human-readable source of the weights.
        revision: branch, tag or commit of a hub id, if the user gave one.
    """

    name: str = ""
    load_as: str = ""
    source: str = ""
    revision: str = ""


def origin(model: Any) -> Origin:
    """The origin of a model loaded by `load_model`, also when compiled or with an adapter; else an empty one."""
    stored = getattr(getattr(model, "_orig_mod", model), "headnb_origin", None)
    return stored if isinstance(stored, Origin) else Origin()


def set_origin(model: Any, tokenizer: Any, path: str, origin: Origin) -> None:
    """Store the origin on model and tokenizer; `path` is a hub id or an absolute path."""
    model.name_or_path = model.config._name_or_path = tokenizer.name_or_path = path  # noqa: SLF001
    model.headnb_origin = origin


def weights_source(model: Any) -> dict[str, str]:
    """The attribute `weights_source` of results; empty if the source is unknown."""
    source = origin(model).source
    return {"weights_source": source} if source else {}


def loadable_name(model: Any) -> str:
    """The argument of `load_model` that loads the same weights again; empty if unknown."""
    return origin(model).load_as or str(getattr(model, "name_or_path", ""))


def record_base(model: Any, folder: Path) -> None:
    """Add the base model's revision to peft's adapter config, and write the file that names the exact base."""
    known = origin(model)
    if not (folder / CONFIG).is_file():
        return
    if known.load_as:
        (folder / BASE).write_text(json.dumps({"base": known.load_as, "weights_source": known.source}))
    if known.revision:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | {"revision": known.revision}, indent=2))


def adapter_base(folder: Path) -> tuple[str, str | None]:
    """An adapter's base model and its revision, for `load_model`; ("", None) if the adapter names none.

    Raises:
        HeadnbError: a file of the adapter is damaged.
    """
    if (folder / BASE).is_file():
        return str(_entries(folder / BASE).get("base") or ""), None
    config = adapter_config(folder)
    base, revision = (config.get(name) or None for name in ("base_model_name_or_path", "revision"))
    if not all(isinstance(value, (str, type(None))) for value in (base, revision)):
        raise HeadnbError(f"{folder / CONFIG}: base_model_name_or_path and revision must be text")
    return base or "", revision


def adapter_config(folder: Path) -> dict[str, Any]:
    """The content of an adapter's config; raises HeadnbError if it is not a JSON object."""
    return _entries(folder / CONFIG)


def _entries(path: Path) -> dict[str, Any]:
    try:
        entries = json.loads(user_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HeadnbError(f"cannot read {path}: {first_line(error)}") from error
    if not isinstance(entries, dict):
        raise HeadnbError(f"{path} is not a JSON object")
    return entries
