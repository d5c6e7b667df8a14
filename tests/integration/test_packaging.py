"""Content of the wheel and the sdist, and registration of the front end with JupyterLab.

.ci/check_wheel.py tests the wheel in a fresh environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from paths import ROOT


def listed(environment: dict[str, str], tmp_path: Path) -> dict[Path, str]:
    """Lines about headnb in the output of `jupyter labextension list`, by extension folder."""
    own = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("DATA", "CONFIG", "RUNTIME")}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    command = [sys.executable, "-m", "jupyter", "labextension", "list"]
    result = subprocess.run(command, env=inherited | own | environment, capture_output=True, text=True, check=True)
    folder, lines = Path(), {}
    for line in (result.stdout + result.stderr).splitlines():
        if line.startswith("/"):
            folder = Path(line.strip())
        elif line.split()[:1] == ["headnb"]:
            lines[folder] = line
    return lines


def test_pip_registers_the_renderer_of_this_installation(tmp_path: Path) -> None:
    lines = listed({}, tmp_path)
    line = lines[Path(sys.prefix) / "share" / "jupyter" / "labextensions"]
    assert "enabled" in line
    assert "OK" in line


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build the wheel and the sdist with the built front end."""
    home = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", home], cwd=ROOT, capture_output=True, check=True)
    (wheel,), (sdist,) = home.glob("headnb-*.whl"), home.glob("headnb-*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files that git tracks."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_wheel_holds_every_tracked_module_data_file_and_notebook(
    built: tuple[Path, Path], tracked: list[str]
) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        held = set(wheel.namelist())
    package = [name for name in tracked if name.startswith("headnb/")]
    notebooks = [f"headnb/{name}" for name in tracked if name.startswith("notebooks/")]
    assert {"headnb/py.typed", "headnb/experiments/folder.py", "headnb/tasks/data/procedural_samples.jsonl"} <= set(
        package
    )
    assert [name for name in package + notebooks if name not in held] == []


def test_the_sdist_holds_every_tracked_file(built: tuple[Path, Path], tracked: list[str]) -> None:
    with tarfile.open(built[1]) as sdist:
        held = {name.partition("/")[2] for name in sdist.getnames()}
    assert [name for name in tracked if name not in held] == []


@pytest.fixture(scope="module")
def installed_wheel(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that contains only headnb's wheel."""
    home = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    venv.create(home / "env")
    python = home / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", built[0]], check=True)
    return home / "env"


def test_a_wheel_registers_the_renderer(installed_wheel: Path, tmp_path: Path) -> None:
    share = installed_wheel / "share" / "jupyter"
    line = listed({"JUPYTER_PATH": str(share)}, tmp_path)[share / "labextensions"]
    assert "enabled" in line
    assert "OK" in line


def test_a_wheel_carries_every_script_that_python_opens(installed_wheel: Path) -> None:
    (package,) = installed_wheel.glob("lib/python*/site-packages/headnb")
    scripts = [f"{name}.js" for name in ("widget", "explorer", "page")]
    code = f"from headnb.display.frontend import bundle; print(*map(bundle, {scripts}))"
    found = subprocess.run([sys.executable, "-c", code], cwd=package.parent, capture_output=True, text=True, check=True)
    assert {Path(path).parent for path in found.stdout.split()} == {package / "static"}
