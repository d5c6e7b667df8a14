"""Explorer widget: a session with one model, and the views of its results."""

from __future__ import annotations
