"""Fine-tuning, and what is tracked along the way."""

from __future__ import annotations
