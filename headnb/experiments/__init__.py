"""The run folder of one model: what the notebooks write to and read from, and its report."""

from __future__ import annotations
