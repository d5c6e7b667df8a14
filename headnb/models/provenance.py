"""Where a model's weights are from, and which base an adapter names.

peft writes `model.name_or_path` into adapter_config.json, so that is always something other tools can load: a hub id or
an absolute path. The default model is a dequantized 4-bit file, whose weights are close to those of the hub but not
equal. Its adapters name the hub id for peft, and a file beside them names the exact base for headnb.
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
    """What `load_model` knows of a model beyond `name_or_path`; each is empty where it is not needed.

    Attributes:
        name: how results call the model.
        load_as: what `load_model` takes to load the same weights again.
        source: where the weights are from, for people.
        revision: branch, tag or commit of a hub id, where the user chose one.
    """

    name: str = ""
    load_as: str = ""
    source: str = ""
    revision: str = ""


def origin(model: Any) -> Origin:
    """Of a model that `load_model` loaded, compiled or with an adapter as well; else an empty one."""
    found = getattr(getattr(model, "_orig_mod", model), "headnb_origin", None)
    return found if isinstance(found, Origin) else Origin()


def set_origin(model: Any, tokenizer: Any, place: str, origin: Origin) -> None:
    """Note on model and tokenizer where they are from; `place` is a hub id or an absolute path."""
    model.name_or_path = model.config._name_or_path = tokenizer.name_or_path = place  # noqa: SLF001
    model.headnb_origin = origin


def weights_source(model: Any) -> dict[str, str]:
    """The attribute `weights_source` of results, where it is known."""
    source = origin(model).source
    return {"weights_source": source} if source else {}


def loadable_name(model: Any) -> str:
    """What `load_model` takes to load the same weights again; empty if the model does not know."""
    return origin(model).load_as or str(getattr(model, "name_or_path", ""))


def record_base(model: Any, folder: Path) -> None:
    """Complete what peft wrote of an adapter's base: its revision, and the exact base's name in headnb."""
    known = origin(model)
    if not (folder / CONFIG).is_file():
        return
    if known.load_as:
        (folder / BASE).write_text(json.dumps({"base": known.load_as, "weights_source": known.source}))
    if known.revision:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(config | {"revision": known.revision}, indent=2))


def adapter_base(folder: Path) -> tuple[str, str | None]:
    """The base that an adapter names, and its revision, for `load_model`; ("", None) if it names none.

    Raises:
        HeadnbError: a file that says so is damaged.
    """
    if (folder / BASE).is_file():
        return str(_entries(folder / BASE).get("base") or ""), None
    config = adapter_config(folder)
    base, revision = (config.get(name) or None for name in ("base_model_name_or_path", "revision"))
    if not all(isinstance(value, (str, type(None))) for value in (base, revision)):
        raise HeadnbError(f"{folder / CONFIG}: base_model_name_or_path and revision are text")
    return base or "", revision


def adapter_config(folder: Path) -> dict[str, Any]:
    """What an adapter's config says; raises HeadnbError where it is no JSON object."""
    return _entries(folder / CONFIG)


def _entries(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(user_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HeadnbError(f"cannot read {path}: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise HeadnbError(f"{path} is not a JSON object")
    return found
