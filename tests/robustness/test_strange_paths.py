"""Every public call with a path argument refuses invalid paths, pipes and devices in one line.

The calls run in a process with memory and time limits: see tests/support/paths_tried.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import paths_tried
from forks import forked

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no pipes among files, and no limits of the system")


@pytest.mark.parametrize(
    "cases",
    [
        20,
        pytest.param(-1, marks=pytest.mark.long, id="with a model"),
        pytest.param(5000, marks=pytest.mark.slow),
    ],
)
def test_paths_that_cannot_be_looked_up_are_refused_in_a_line(cases, tmp_path):
    found = forked(paths_tried.try_paths, tmp_path, cases, seconds=3600)
    print(f"strange paths: {found['tried']} tried, {found['refused']} refused in one line")
    assert found["wrong"] == []
    assert found["refused"] > len(paths_tried.readers()) * 10


NOBODY = """
import os, sys
sys.path[:0] = {paths!r}
import numpy, xarray, zarr, netCDF4  # while their files can be read
import headnb, headnb.storage.reading, headnb.tasks.loading, headnb.models.default_model
os.environ.pop("HOME", None)
os.chdir({folder!r})
os.setgid(54321)
os.setuid(54321)
for call in (headnb.load_task, headnb.open_scores):
    for path in ("~", "~/a.zarr", "~nosuchuser", "a.jsonl"):
        try:
            call(path)
        except headnb.HeadnbError as error:
            assert "\\n" not in str(error), error
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can change the user id")
def test_a_user_without_home_and_passwd_entry_gets_a_line(tmp_path):
    tmp_path.chmod(0o777)
    script = NOBODY.format(paths=[entry for entry in sys.path if entry], folder=str(Path("/")))
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.endswith("done\n")
