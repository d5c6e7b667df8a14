"""Results of the notebooks 03 to 13 in a run folder: numbers as JSON, arrays as netCDF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headnb.errors import unknown_name
from headnb.stats.findings_revision import FINDINGS_KEY, FINDINGS_REVISION, check_findings
from headnb.storage.files import load_dataset, read_json, write_dataset, write_json

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
    "transfer": "13_transfer",
}


@dataclass(frozen=True)
class Findings:
    """Findings of a run, by the names in `NOTEBOOKS`.

    Reading a missing finding raises HeadnbError, which names the notebook to run.
    """

    paths: Paths

    def numbers(self, name: str, *, current: bool = False) -> dict[str, Any]:
        """Numbers of a finding.

        Args:
            name: name of the finding.
            current: raise for numbers of another findings revision instead of warning.
        """
        path = self._path(name, "json")
        values = read_json(path, NOTEBOOKS[name])
        check_findings(path, values, NOTEBOOKS[name], current=current)
        return {key: value for key, value in values.items() if key != FINDINGS_KEY}

    def arrays(self, name: str) -> xr.Dataset:
        """Labelled arrays of a finding; warns if they have another findings revision."""
        path = self._path(name, "nc")
        arrays = load_dataset(path, NOTEBOOKS[name])
        check_findings(path, arrays.attrs, NOTEBOOKS[name], current=False)
        arrays.attrs.pop(FINDINGS_KEY, None)
        return arrays

    def has_arrays(self, name: str) -> bool:
        """Whether the arrays of a finding exist."""
        return self._path(name, "nc").exists()

    def has_numbers(self, name: str) -> bool:
        """Whether the numbers of a finding exist."""
        return self._path(name, "json").exists()

    def save(self, name: str, numbers: Mapping[str, Any], arrays: xr.Dataset | None = None) -> Path:
        """Write a finding and return the path of its JSON file."""
        revision = {FINDINGS_KEY: FINDINGS_REVISION}
        if arrays is not None:
            write_dataset(self._path(name, "nc"), arrays.assign_attrs(revision))
        return write_json(self._path(name, "json"), {**numbers, **revision})

    def _path(self, name: str, ending: str) -> Path:
        if name not in NOTEBOOKS:
            raise unknown_name("finding", name, NOTEBOOKS)
        return self.paths.finding(name, ending)
