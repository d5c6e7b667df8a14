"""Stores on disk: Zarr tables of scores, fits, checksums and locks."""

from __future__ import annotations
