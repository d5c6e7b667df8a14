"""Every format gives back what was written: values, ids, attributes and identity."""

from __future__ import annotations

import json

import headnb
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from headnb import HeadnbError, open_scores
from headnb.display.grid import HeadGrid
from headnb.stats.results import is_result
from headnb.storage.frames import from_frame
from headnb.storage.method_results import MethodResults
from headnb.storage.reading import open_scores_of_one_method

from scoring_samples import TASK
from tiny import tiny_model

SAMPLES = [{"id": f"sämple {at}", **row} for at, row in enumerate(TASK)]


@pytest.fixture(scope="module")
def scores():
    return headnb.score_heads(tiny_model(), None, SAMPLES)


def through_zarr(_, folder):
    headnb.score_heads(tiny_model(), None, SAMPLES, out=folder / "a.zarr")
    return open_scores(folder / "a.zarr")


def through_file(suffix):
    return lambda scores, folder: open_scores(scores.heads.save(folder / f"a{suffix}"))


def through_xarray(scores, folder):
    scores.to_netcdf(folder / "a.nc")
    return open_scores(folder / "a.nc")


def through_memory(scores, folder):
    return open_scores(scores.heads.save(f"memory://{folder.name}/a.nc"))


WAYS = {
    "zarr": through_zarr,
    "netcdf": through_file(".nc"),
    "netcdf of xarray": through_xarray,
    "parquet": through_file(".parquet"),
    "frame": lambda scores, _: open_scores(scores.heads.to_frame()),
    "shuffled frame": lambda scores, _: open_scores(scores.heads.to_frame().sort_values(["head", "sample"])),
    "url": through_memory,
}


@pytest.mark.parametrize("way", WAYS)
def test_scores_come_back_as_they_were(scores, way, tmp_path):
    found = WAYS[way](scores, tmp_path)
    found = found.sel(sample=scores["sample"]) if way == "shuffled frame" else found
    of_run = {"created", "padding"} if way == "zarr" else set()  # scored a second time
    assert found.sizes == scores.sizes
    for name in ("score", "loss", "answer_tokens", "batch_answer_tokens", "fingerprint"):
        np.testing.assert_array_equal(found[name], scores[name])
        assert found[name].dtype == scores[name].dtype
    assert list(found["sample"].values) == [row["id"] for row in SAMPLES]
    assert {name: value for name, value in found.attrs.items() if name not in of_run} == {
        name: value for name, value in scores.attrs.items() if name not in of_run
    }
    assert is_result(found)
    assert found.heads.evidence() == scores.heads.evidence()
    assert (headnb.compare(scores, found)["difference"] == 0).all()


@pytest.mark.parametrize("kind", ["level", "difference"])
def test_a_grid_file_gives_its_pattern(scores, kind, tmp_path):
    other = headnb.score_heads(tiny_model(seed=1), None, SAMPLES)
    result = scores if kind == "level" else headnb.compare(scores, other)
    pattern, found = result.heads.pattern(), open_scores(result.heads.save(tmp_path / "a.heads.json"))
    assert found.dims == ("layer", "head")
    np.testing.assert_allclose(found, pattern, rtol=1e-3)
    assert is_result(found)
    shared = ("kind", "units", "model", "task", "method", "loss_reduction", "kv_heads", "samples", "runs")
    assert {name: found.attrs[name] for name in shared} == {name: pattern.attrs[name] for name in shared}
    assert found.heads.reliability() == pytest.approx(pattern.heads.reliability(), abs=1e-4)
    drawn, again = HeadGrid.of(result).payload, HeadGrid.of(found).payload
    for name in ("kind", "quantity", "units", "title", "model", "task"):
        assert again[name] == drawn[name]
    assert again["scale"] == pytest.approx(drawn["scale"], rel=0.01)


def test_a_grid_file_of_plain_numbers_gives_plain_numbers(tmp_path):
    headnb.grid(np.array([[1.0, np.nan], [-3.0, 4.0]])).save(tmp_path / "a.heads.json")
    found = open_scores(tmp_path / "a.heads.json")
    np.testing.assert_array_equal(found, [[1, np.nan], [-3, 4]])
    assert found.attrs["kind"] == "value"
    assert HeadGrid.of(found).payload["quantity"] == "value"


def test_a_grid_file_of_several_panels_has_a_leading_dim(tmp_path):
    headnb.grid({"one": np.ones((2, 3)), "two": np.zeros((2, 3))}).save(tmp_path / "a.heads.json")
    found = open_scores(tmp_path / "a.heads.json")
    assert found.dims == ("panel", "layer", "head")
    assert list(found["panel"].values) == ["one", "two"]


def test_a_method_without_samples_has_a_frame_of_heads():
    gates = xr.Dataset(
        {"score": (("layer", "head"), np.eye(2, 3))},
        coords={"layer": range(2), "head": range(3)},
        attrs={"method": "gates", "reduction": "mean-abs", "model": "m"},
    )
    xr.testing.assert_equal(open_scores(gates.heads.to_frame()), gates)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="score"), "the column score is missing"),
        (lambda frame: frame.iloc[1:], "exactly one row"),
        (lambda frame: frame.iloc[:0], "exactly one row"),
        (lambda frame: pd.concat([frame.iloc[1:], frame.iloc[1:2]]), "exactly one row"),
        (lambda frame: frame.assign(loss=range(len(frame))), "loss differs between the rows of a sample"),
    ],
)
def test_a_wrong_frame_is_one_clear_error(scores, change, message):
    with pytest.raises(HeadnbError, match=message):
        from_frame(change(scores.heads.to_frame()))


def test_a_comparison_and_a_pattern_come_back_from_netcdf(scores, tmp_path):
    change, pattern = headnb.compare(scores, scores), scores.heads.pattern()
    change.heads.save(tmp_path / "change.nc")
    pattern.to_netcdf(tmp_path / "pattern.nc")
    for name, result in (("change", change), ("pattern", pattern)):
        opened = open_scores(tmp_path / f"{name}.nc")
        xr.testing.assert_identical(opened, result)
        assert is_result(opened)
        assert HeadGrid.of(opened).payload == HeadGrid.of(result).payload
        with pytest.raises(HeadnbError, match=f"{name}.nc has no head scores"):
            open_scores_of_one_method(tmp_path / f"{name}.nc")


def test_where_one_method_is_needed_a_folder_of_several_is_refused(scores, tmp_path):
    folder = MethodResults({"a": scores, "b": scores.assign_attrs(method="b")}).save(tmp_path / "om")
    with pytest.raises(HeadnbError, match=r"om has results of several methods; give those of one, such as .*om/a\.nc$"):
        open_scores_of_one_method(folder)
    assert set(open_scores(folder)) == {scores.attrs["method"], "b"}


def test_wrong_paths_and_files_are_one_clear_error(scores, tmp_path):
    for name, message in (("a.zarr", "out=path"), ("a.xlsx", "cannot tell the file format"), ("a", "cannot tell")):
        with pytest.raises(HeadnbError, match=message):
            scores.heads.save(tmp_path / name)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(HeadnbError, match="not a Parquet file of head scores"):
        open_scores(tmp_path / "a.parquet")
    with pytest.raises(HeadnbError, match="expected a path"):
        open_scores(7)
    path = scores.heads.save(tmp_path / "a.nc")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(HeadnbError, match="does not match its checksum"):
        open_scores(path)


def test_a_text_that_many_rows_of_a_parquet_file_repeat_is_read_once(tmp_path):
    import tracemalloc

    rows, text = 5_000, "x" * 100_000
    frame = pd.DataFrame({"sample": pd.Categorical([text] * rows), "layer": 0, "head": range(rows), "score": 1.0})
    frame.to_parquet(tmp_path / "a.parquet", index=False)
    tracemalloc.start()
    assert open_scores(tmp_path / "a.parquet").sizes["sample"] == 1
    assert tracemalloc.get_traced_memory()[1] < 50e6  # the texts together have 500 MB
    tracemalloc.stop()
    frame.assign(note=text).to_parquet(tmp_path / "b.parquet", index=False)
    with pytest.raises(HeadnbError, match="note is not a number"):
        open_scores(tmp_path / "b.parquet")


def test_a_parquet_file_that_would_fill_the_memory_is_refused(scores, tmp_path, monkeypatch):
    from headnb.storage import frames

    path = scores.heads.save(tmp_path / "a.parquet")
    monkeypatch.setattr(frames, "MAX_BYTES", 1000)
    monkeypatch.setattr(frames, "MAX_GROWTH", 1)
    with pytest.raises(HeadnbError, match="rows would take"):
        open_scores(path)
    assert json.loads(pd.read_parquet(path).attrs["versions"])


@pytest.mark.parametrize("way", ["netcdf", "parquet", "frame"])
def test_numbers_computed_from_scores_are_not_opened_as_scores(scores, way, tmp_path):
    computed = WAYS[way](scores * 2, tmp_path)
    assert not is_result(computed)
    assert HeadGrid.of(computed).payload == HeadGrid.of(scores * 2).payload
    assert is_result(WAYS[way](scores.isel(sample=slice(3)), tmp_path))


@pytest.mark.parametrize("way", ["netcdf", "parquet", "frame"])
def test_scores_of_one_sample_without_the_dimension_come_back(scores, way, tmp_path):
    one = scores.isel(sample=0)
    found = WAYS[way](one, tmp_path)
    np.testing.assert_array_equal(found["score"], one["score"])
    assert float(found["loss"]) == float(one["loss"])


def test_frames_refuse_other_dimensions_and_rows_without_a_place(scores):
    with pytest.raises(HeadnbError, match="a frame cannot hold the dimension step"):
        scores.assign(loss_of_step=("step", [1.0, 2.0])).heads.to_frame()
    frame = scores.heads.to_frame()
    frame["layer"] = frame["layer"].astype(float).where(frame.index != 5)
    with pytest.raises(HeadnbError, match="the frame has rows without a layer"):
        open_scores(frame)
