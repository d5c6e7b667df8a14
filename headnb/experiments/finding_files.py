"""What the notebooks from 03 on found, in a run folder: numbers as JSON, arrays as netCDF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headnb.errors import unknown_name
from headnb.storage.files import load, read_json, write_dataset, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import xarray as xr

    from headnb.experiments.paths import Paths

NOTEBOOKS = {
    "selectivity": "03_selectivity",
    "composition": "04_composition",
    "rapid_change": "05_rapid_change",
    "mixture": "07_mixture",
    "instruction_selection": "08_instruction_selection",
    "selective_tuning": "09_selective_tuning",
    "methods_agree": "10_methods_agree",
    "layers": "11_layers",
    "continual": "12_continual",
}


@dataclass(frozen=True)
class Findings:
    """The findings of a run, by the names in `NOTEBOOKS`.

    Reading raises HeadnbError where one is not there yet, and says which notebook makes it.
    """

    paths: Paths

    def numbers(self, name: str) -> dict[str, Any]:
        """The numbers of a finding."""
        return read_json(self._path(name, "json"), NOTEBOOKS[name])

    def arrays(self, name: str) -> xr.Dataset:
        """The labelled arrays of a finding."""
        return load(self._path(name, "nc"), NOTEBOOKS[name])

    def has_arrays(self, name: str) -> bool:
        """Whether a finding with arrays is there."""
        return self._path(name, "nc").exists()

    def save(self, name: str, numbers: Mapping[str, Any], arrays: xr.Dataset | None = None) -> Path:
        """Write what a notebook found."""
        if arrays is not None:
            write_dataset(self._path(name, "nc"), arrays)
        return write_json(self._path(name, "json"), numbers)

    def _path(self, name: str, ending: str) -> Path:
        if name not in NOTEBOOKS:
            raise unknown_name("finding", name, NOTEBOOKS)
        return self.paths.finding(name, ending)
