"""Fine-tuning, and what is tracked along the way."""

from __future__ import annotations

from headnb.models.quantization import import_quietly

import_quietly()  # before a trainer's imports do it
