"""Running a model: tokenization, batches, hooks on head outputs, losses, interventions and generation."""

from __future__ import annotations
