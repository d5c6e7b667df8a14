"""Trainer classes of transformers. bitsandbytes is imported first, to suppress a warning when peft imports it."""

from __future__ import annotations

from headnb.models.quantization import import_bitsandbytes_quietly

import_bitsandbytes_quietly()

from transformers import Trainer, TrainerCallback, TrainerState  # noqa: E402
from transformers.integrations.integration_utils import (  # noqa: E402
    TensorBoardCallback,
    TrackioCallback,
    WandbCallback,
)
from transformers.trainer_callback import CallbackHandler, PrinterCallback  # noqa: E402

__all__ = [
    "CallbackHandler",
    "PrinterCallback",
    "TensorBoardCallback",
    "TrackioCallback",
    "Trainer",
    "TrainerCallback",
    "TrainerState",
    "WandbCallback",
]
