"""Results of several methods by name: what `score_heads` returns for a list of methods, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, cast

from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    import xarray as xr

    from headnb.display.grid import HeadGrid
    from headnb.stats.labelled import Scores

_ENDINGS = (".zarr", ".nc")


class UnknownMethodError(HeadnbError, KeyError):
    """There is no result of this method; also a KeyError, as of a mapping."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would show quotes


class MethodResults(Mapping[str, "Scores"]):
    """Results of several methods on the same samples, by method name.

        results = headnb.score_heads(model, tokenizer, task, method=["activation", "entropy"])
        results["activation"].heads.top(10)     # the scores that method="activation" alone gives
        results.grid()                          # one grid for each method
        headnb.compare_methods(results)
        results.save("runs/both")               # headnb.open_scores opens the folder

    `score_tasks` returns the study of each method in this form. In a notebook it is drawn as its grids.
    """

    def __init__(self, results: Mapping[str, xr.Dataset]) -> None:
        self._results = cast("dict[str, Scores]", dict(results))

    def __getitem__(self, method: str) -> Scores:
        """The result of a method.

        Raises:
            HeadnbError: there is no result of this method.
        """
        if method not in self._results:
            raise UnknownMethodError(str(unknown_name("method of these results", str(method), self._results)))
        return self._results[method]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        """Number of methods."""
        return len(self._results)

    @property
    def heads(self) -> NoReturn:
        """Only a single result has `.heads`."""
        first = next(iter(self), "activation")
        raise AttributeError(f"these are results of several methods; choose one, such as results[{first!r}].heads")

    def grid(self, *, title: str = "") -> HeadGrid:
        """One layer x head picture for each method, side by side; methods with the same unit share a colour scale."""
        from headnb.display.grid import HeadGrid  # noqa: PLC0415

        return HeadGrid.of(self, title=title)

    @check_arguments
    def save(self, folder: str | Path) -> Path:
        """Save each result as a netCDF file in a folder, which `open_scores` opens; returns the folder's path.

        Raises:
            HeadnbError: a file cannot be written.
        """
        from headnb.storage.files import safe_file_name, write_dataset  # noqa: PLC0415
        from headnb.storage.locks import local_path  # noqa: PLC0415

        path = local_path(folder)
        if path.suffix or path.is_file():
            raise HeadnbError(f"results of several methods are saved to a folder, with one file for each: not {path}")
        for method, result in self.items():
            write_dataset(path / f"{safe_file_name(method)}.nc", result)
        return path

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, Any]:
        return self.grid()._repr_mimebundle_(include, exclude)

    def __repr__(self) -> str:
        result = next(iter(self.values()))
        samples = f" of {result.sizes['sample']} samples" if "sample" in result.sizes else ""
        return f"results{samples} by {len(self)} methods: {', '.join(self)}"


def stored_results(folder: Path) -> list[Path]:
    """The stores and files of results in a folder."""
    return sorted(path for path in folder.iterdir() if path.suffix in _ENDINGS and not path.name.startswith("."))


def results_by_method(results: Mapping[Path, xr.Dataset]) -> MethodResults:
    """Results of several methods, from those read from the files of one folder; only samples that all have.

    Raises:
        HeadnbError: two files have the same method, or the files have different models or tasks.
    """
    by_method: dict[str, Any] = {}
    common = None
    first = next(iter(results.values())).attrs
    for path, result in results.items():
        for name in ("model_fingerprint", "task", "task_fingerprint"):
            if result.attrs.get(name) != first.get(name):
                raise HeadnbError(f"{path.parent} has scores of different models or tasks; open one of them: {path}")
        if (method := str(result.attrs.get("method", path.stem))) in by_method:
            raise HeadnbError(f"{path.parent} has two results of the method {method}; open one of them: {path}")
        by_method[method] = result
        if "sample" in result.dims:
            ids = result.indexes["sample"]
            common = ids if common is None else common[common.isin(ids)]
    for method, result in by_method.items():
        if common is not None and "sample" in result.dims and len(common) < result.sizes["sample"]:
            by_method[method] = result.sel(sample=common).assign_attrs(complete=0)
    return MethodResults(by_method)
