"""Storage on disk: Zarr stores of scores and fits, netCDF and JSON files, checksums and locks."""

from __future__ import annotations
