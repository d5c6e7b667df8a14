"""Tasks: samples of prompt and completion, and the sources that provide them."""

from __future__ import annotations
