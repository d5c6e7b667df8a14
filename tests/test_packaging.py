"""The front end as pip installs it: registered with JupyterLab from this checkout and from a wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def listed(environment: dict[str, str], tmp_path: Path) -> dict[Path, str]:
    """What `jupyter labextension list` says about headnb, by the folder that it found it in."""
    own = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("DATA", "CONFIG", "RUNTIME")}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    command = [sys.executable, "-m", "jupyter", "labextension", "list"]
    found = subprocess.run(command, env=inherited | own | environment, capture_output=True, text=True, check=True)
    folder, lines = Path(), {}
    for line in (found.stdout + found.stderr).splitlines():
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
def installed_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that has headnb's wheel, made of the built front end, and nothing else."""
    home = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-index"]
    subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", home, ROOT], check=True)
    (wheel,) = home.glob("headnb-*.whl")
    venv.create(home / "env")
    python = home / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", *offline, wheel], check=True)
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
