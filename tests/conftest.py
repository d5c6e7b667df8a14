"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

torch.set_num_threads(1)  # tiny matrices: more threads only wait for each other


@pytest.fixture
def model() -> PreTrainedModel:
    """A fresh tiny random llama: 2 layers, 4 heads, 2 key/value heads."""
    return tiny_model()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """The tiny tokenizer; tests do not change it."""
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of `{task}.{split}.jsonl` files that HEADNB_DATA names; without it the test is skipped."""
    folder = os.environ.get("HEADNB_DATA")
    if not folder:
        pytest.skip("HEADNB_DATA is not set")
    if not Path(folder).is_dir():
        pytest.skip(f"HEADNB_DATA names no folder: {folder}")
    return Path(folder)
