"""Every public call that takes a path, a name or a file, tested with unusual paths."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
import warnings
from typing import TYPE_CHECKING, Any

from headnb import HeadnbError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = 120  # limit of one call: enough on a busy machine
MEMORY = 8 * 2**30


def strange_paths(folder: Path) -> dict[str, str]:
    """Description -> path."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo(folder / "pipe")
        (folder / "loop").symlink_to(folder / "loop")
        (folder / "file").write_text("x")
        (folder / "store.zarr").mkdir()
        os.mkfifo(folder / "store.zarr" / "zarr.json")
        (folder / "model").mkdir()
        os.mkfifo(folder / "model" / "config.json")
        (folder / "adapter").mkdir()
        os.mkfifo(folder / "adapter" / "adapter_config.json")
        (folder / "run").mkdir()
        os.mkfifo(folder / "run" / "run.json")
    return {
        "300 characters": "x" * 300,
        "300 characters of a file": str(folder / ("x" * 300 + ".jsonl")),
        "5,000 levels": "a/" * 5000 + "a",
        "1,500 levels": str(folder / ("a/" * 1500 + "a")),
        "NUL": "a\0b",
        "no such user": "~nosuchuser/a",
        "loop of links": str(folder / "loop"),
        "below a loop": str(folder / "loop" / "a" / "b.zarr"),
        "below a file": str(folder / "file" / "a"),
        "pipe": str(folder / "pipe"),
        "device without end": "/dev/zero",
        "device that waits": "/dev/tty",
        "pipe in a store": str(folder / "store.zarr"),
        "pipe in a model": str(folder / "model"),
        "pipe in an adapter": str(folder / "adapter"),
        "pipe in a run": str(folder / "run"),
        "half a character": "\ud800",
        "nothing": "",
        "address": "s3://bucket/a.zarr",
    }


def readers() -> dict[str, Callable[[str], Any]]:
    """The calls that read a path and need no model."""
    from headnb import atlas, load_task, open_scores, open_study
    from headnb.display.grid import HeadGrid
    from headnb.experiments import Run
    from headnb.notebook.arguments import find_drawable, find_scores
    from headnb.suite.definition import read_suite
    from headnb.tuning.checkpoints import find_checkpoints

    return {
        "atlas": atlas,
        "load_task": load_task,
        "open_scores": open_scores,
        "open_study": open_study,
        "HeadGrid.open": HeadGrid.open,
        "Run": lambda path: Run(path).settings,
        "find_picture": lambda path: find_drawable(path, {}),
        "find_scores": lambda path: find_scores(path, {}),
        "read_suite": lambda path: read_suite(path, "demo"),
        "find_checkpoints": find_checkpoints,
    }


def writers(folder: Path) -> dict[str, Callable[[str], Any]]:
    """The calls that write to a path, and those that load a model."""
    import numpy as np
    import xarray as xr
    from headnb import finetune, load_model, load_task, score_heads, select_instructions
    from headnb.display.grid import HeadGrid
    from headnb.display.report import ReportContents, report
    from headnb.experiments.folder import Run, Settings

    from tiny import tiny_model, tiny_tokenizer

    model, tokenizer = tiny_model(), tiny_tokenizer()
    saved = folder / "saved"
    model.save_pretrained(saved)
    tokenizer.save_pretrained(saved)
    task = load_task([("2 + 2 =", " 4"), ("2 + 3 =", " 5")])
    grid = HeadGrid.of(xr.DataArray(np.eye(2), dims=("layer", "head"), attrs={"kind": "level", "units": ""}))
    return {
        "score_heads": lambda path: score_heads(model, tokenizer, task, out=path),
        "score_heads gates": lambda path: score_heads(model, tokenizer, task, method="gates", out=path),
        "finetune": lambda path: finetune(model, tokenizer, task, steps=1, output_dir=path or "\0"),
        "select_instructions": lambda path: select_instructions(task, path, k=1, by="random"),
        "select_instructions out": lambda path: select_instructions(task, task, k=1, model=model, out=path or "\0"),
        "load_model": load_model,
        "load_model adapter": lambda path: load_model(saved, adapter=path),
        "HeadGrid.save": lambda path: grid.save(path + ".html"),
        "HeadGrid.save_page": grid.save_page,
        "report": lambda path: report(ReportContents("x", ()), path + ".html"),
        "Run.create": lambda path: Run.create(path or "\0", Settings("m", ("t",))),
    }


class HangsError(BaseException):
    """A call exceeded its time limit."""


def tried(found: dict[str, Any], name: str, call: Callable[[str], Any], path: str) -> None:
    """Count a call, and record an outcome that is neither a success nor a one-line error."""
    found["tried"] += 1
    if threading.current_thread() is threading.main_thread():
        signal.alarm(SECONDS)
    try:
        call(path)
    except HeadnbError as error:
        found["refused"] += 1
        if "\n" in str(error) or len(str(error)) > 1000 + 2 * len(path):
            found["wrong"].append(f"{name} {path!r:.60}: a long or broken line")
    except BaseException as error:  # noqa: BLE001  any other error is a finding
        found["wrong"].append(f"{name} {path!r:.60}: {type(error).__name__}: {error!s:.120}")
    finally:
        signal.alarm(0)


def try_paths(folder: Path, cases: int) -> dict[str, Any]:
    """Try all fixed paths, and `cases` generated paths with the cheap calls, under limits of memory and time.

    For a process of its own. Returns the number of calls, and the outcome of calls that neither succeeded nor failed
    with a one-line error. A negative `cases` includes the calls that write or load a model.
    """

    def hangs(*_: object) -> None:
        raise HangsError

    signal.signal(signal.SIGALRM, hangs)
    warnings.simplefilter("ignore")
    os.chdir(folder)
    found: dict[str, Any] = {"tried": 0, "refused": 0, "wrong": []}
    calls = readers()
    slow = writers(folder) if cases < 0 else {}
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for path in strange_paths(folder).values():
        for name, call in {**calls, **slow}.items():
            tried(found, name, call, path)
    part = st.sampled_from(
        [*strange_paths(folder).values(), "..", ".", "~", "~root", "pipe", "loop", "store.zarr", "*"]
    )
    drawn = st.lists(part | st.text(max_size=4), min_size=1, max_size=3).map("/".join)

    @settings(
        max_examples=max(cases, 1),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(path=drawn, name=st.sampled_from(sorted(set(calls) - {"find_checkpoints"})))
    def try_case(path: str, name: str) -> None:
        tried(found, name, calls[name], path)

    try_case()
    return found
