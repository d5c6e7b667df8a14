"""The explorer widget: a session on one model, and the tabs that use it."""

from __future__ import annotations
