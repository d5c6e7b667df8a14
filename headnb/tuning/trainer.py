"""Trainer classes of transformers. bitsandbytes is imported first, to suppress a warning when peft imports it."""

from __future__ import annotations

from headnb.models.quantization import import_bitsandbytes_quietly

import_bitsandbytes_quietly()

from transformers import Trainer, TrainerCallback, TrainerState  # noqa: E402
from transformers.trainer_callback import PrinterCallback  # noqa: E402

__all__ = ["PrinterCallback", "Trainer", "TrainerCallback", "TrainerState"]
