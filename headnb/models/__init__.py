"""Models: loading, the registry of names, and checks of weights and memory."""

from __future__ import annotations
