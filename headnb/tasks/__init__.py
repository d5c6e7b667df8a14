"""Tasks: samples of prompt and completion, and the sources they are loaded from."""

from __future__ import annotations
