"""Loading models, the registry of names, and checks on weights and memory."""

from __future__ import annotations
