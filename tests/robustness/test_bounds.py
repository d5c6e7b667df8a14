"""Small untrusted files that would take much memory or time are refused early, with a one-line error.

Each file is read in a process with memory and time limits, so that a missing refusal only fails the test.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from headnb import HeadnbError
from headnb.models.adapter_configs import _check_pattern
from headnb.storage.zarr_columns import plain_values

import attacks
from forks import forked

QUICK = {"netcdf", "zarr_chunk", "yaml_merges", "gguf_entries", "long_id"}  # one of each kind; the others are long
MOST = 2**30  # bytes: memory limit of a process that imports torch and refuses a file


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of the system")
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in attacks.ATTACKS]
)
def test_a_small_file_that_would_take_much_is_refused_before_it_does(name, tmp_path):
    refused, peak = forked(attacks.attack, name, tmp_path)
    assert refused is not None
    assert re.search(attacks.ATTACKS[name], refused)
    assert refused.isprintable()
    assert len(refused) < 1000
    assert peak < MOST


def test_every_attack_has_a_refusal():
    print(f"small files that would take much memory or time: {len(attacks.ATTACKS)} tried, each refused in one line")
    assert all(callable(getattr(attacks, name)) for name in attacks.ATTACKS)


PATTERNS = ["q_proj", "all-linear", r".*\.(q_proj|v_proj)", r"model\.layers\.\d+\.self_attn\.(?:q|k)_proj", ".*attn.*"]
ENDLESS = [
    "(a+)+b",
    "(a|a)(a|a)b",
    "(.|x)q",
    ".*.*.*q",
    r"(\w+\.?)*q",
    "a{1,99}",
    "(a|b)" * 4,
    "((a|b)|c)",
    r"(.)\1",
    3,
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_of_names_alternatives_and_wildcards_are_handed_on(pattern):
    _check_pattern(pattern, "x")
    assert re.compile(pattern)


@pytest.mark.parametrize("pattern", [*ENDLESS, "q" * 3000, 3])
def test_other_patterns_are_not(pattern):
    with pytest.raises(HeadnbError, match="does not pass to peft"):
        _check_pattern(pattern, "x")


def test_one_long_text_among_many_does_not_make_all_of_them_long():
    with pytest.raises(ValueError, match="would take more than 256 MB"):
        plain_values(["x" * 10**6, *["y"] * 100])
    assert plain_values(["x", "yy"]).tolist() == ["x", "yy"]


def test_the_text_of_a_netcdf_file_is_counted(tmp_path):
    import netCDF4
    from headnb.storage import netcdf_sizes

    path = Path(tmp_path) / "a.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("a", 7)
        file.createDimension("b", 3)
        text = file.createVariable("text", str, ("a", "b"))
        for row in range(7):
            for column in range(3):
                text[row, column] = "x" * (row + column)
    with netCDF4.Dataset(path) as file:
        written = sum(row + column for row in range(7) for column in range(3))
        assert netcdf_sizes._text_bytes(file["text"], 2, 10**6) == written
        assert 5 < netcdf_sizes._text_bytes(file["text"], 2, 5) < written
