"""Which models may be trained on several samples in a row."""

from __future__ import annotations

import pytest
import torch
from headnb.errors import HeadnbError
from headnb.packing import check_packed_training

from architectures import build


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3"])
def test_models_that_tell_samples_by_their_positions_may(name, dtype):
    check_packed_training(build(name, dtype))


@pytest.mark.parametrize("name", ["opt", "bloom", "gpt_oss"])
def test_others_are_refused(name):
    with pytest.raises(HeadnbError, match="train without packing"):
        check_packed_training(build(name, torch.float32))
