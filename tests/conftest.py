"""Fixtures for all tests."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from headnb import hub, load_model
from headnb.models import default_model
from hypothesis import HealthCheck, settings

import warm_kernels
from ipython_shells import shell  # noqa: F401  a fixture
from paths import SUPPORT
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel, PreTrainedTokenizerFast

HERE = Path(__file__).parent
# Kernels and subprocesses of tests import the same helpers.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(SUPPORT), os.environ.get("PYTHONPATH"))))
# Tiny matrices gain nothing from more threads, and threads of processes beside each other wait for each other.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")  # a slow machine is not a failure
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background jobs ignore SIGINT
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Folders whose files take longest. Workers get these first, so that none ends long after the others.
LONGEST = ("browser", "suite", "robustness", "integration", "tuning", "experiments", "scoring")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the longest tests when several workers share them."""
    if hasattr(config, "workerinput"):
        places = {name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.path.relative_to(HERE).parts[0], len(places)))


def pytest_collection_finish() -> None:
    """Leave all objects that exist before the first test out of garbage collection.

    `Trainer` collects garbage after each training. Looking through the objects of torch and transformers would take a
    third of the time of tiny trainings.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share the tests out by file; all files that use the Jupyter server go to a single worker."""
    from xdist.scheduler import LoadFileScheduling

    class ByFileAndServer(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "Jupyter server" if file in with_server else file

    folder = HERE / "browser"
    with_server = {
        path.relative_to(config.rootpath).as_posix()
        for path in folder.glob("test_*.py")
        if "jupyter_pages" in path.read_text(encoding="utf-8")
    }
    config.option.loadscopereorder = False  # the order is that of `pytest_collection_modifyitems`
    return ByFileAndServer(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def kernel_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder for JUPYTER_PATH with kernels that start in a second: see `warm_kernels`; empty on other systems."""
    folder = tmp_path_factory.mktemp("kernels")
    with warm_kernels.kernelspec(folder) if sys.platform == "linux" else nullcontext():
        yield folder


@pytest.fixture(scope="module")
def forked_kernels(kernel_folder: Path) -> Iterator[None]:
    """Notebooks of one module use the kernels of `kernel_folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(kernel_folder))
        yield


@pytest.fixture
def model() -> PreTrainedModel:
    """A new tiny random llama: 2 layers, 4 heads, 2 key/value heads."""
    return tiny_model()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """The tiny tokenizer; tests do not change it."""
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of `{task}.{split}.jsonl` files named by HEADNB_DATA; without it the test is skipped."""
    folder = os.environ.get("HEADNB_DATA")
    if not folder:
        pytest.skip("HEADNB_DATA is not set")
    if not Path(folder).is_dir():
        pytest.skip(f"HEADNB_DATA is not a folder: {folder}")
    return Path(folder)


@pytest.fixture
def no_network(monkeypatch):
    """The hub is not reachable; a wait for a retry fails the test."""
    monkeypatch.setattr(hub, "reachable", lambda *_, **__: False)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited for a retry"))


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    """Folder of the tiny model and its tokenizer."""
    path = tmp_path / "tiny"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def input_ids(tokenizer):
    """Token ids of a question and its answer: (1, T)."""
    return tokenizer("Question: How many?\nAnswer: 3", return_tensors="pt").input_ids


@pytest.fixture
def adapter(folder, input_ids, tmp_path):
    """Folder of a LoRA adapter that changes the logits, and its logits."""
    from peft import LoraConfig, get_peft_model

    base, _ = load_model(folder)
    wrapped = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    wrapped.save_pretrained(tmp_path / "lora")
    return tmp_path / "lora", wrapped.eval()(input_ids).logits.detach()


@pytest.fixture
def nothing_outside(monkeypatch, no_network):
    """Without network and data folder."""
    monkeypatch.delenv("HEADNB_DATA", raising=False)


@pytest.fixture
def model_cache(monkeypatch, tmp_path):
    """Folder of the default model's cache; the test also has its own temporary folder."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(hub, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(default_model, "packaged_gguf", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def jsonl(tmp_path):
    """Function that writes a JSONL file from objects or raw lines."""

    def write(*lines):
        path = tmp_path / "pairs.jsonl"
        path.write_bytes(b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines))
        return path

    return write
