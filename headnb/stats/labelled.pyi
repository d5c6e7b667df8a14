import xarray as xr

from headnb.accessor import PatternHeads, ScoresHeads

class Scores(xr.Dataset):  # type: ignore[no-untyped-call]
    @property
    def heads(self) -> ScoresHeads: ...

class Pattern(xr.DataArray):  # type: ignore[no-untyped-call]
    @property
    def heads(self) -> PatternHeads: ...
