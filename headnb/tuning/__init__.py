"""Fine-tuning, and head scores tracked during the training."""

from __future__ import annotations
