"""What an installation without extras can do, and what it says of the rest. Run by check_wheel.py.

Usage: python core_install.py SUPPORT DOCUMENT, with the folder tests/support and docs/install.md, whose lines are
held against what is really said.
"""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import headnb
from headnb import HeadnbError

NEED_AN_EXTRA = {"headnb.display.notebook_figure", "headnb.scoring.model_transfer"}  # cloudpickle comes with Dask
PAIRS = [("2 + 3 = ", "5"), ("4 + 4 = ", "8"), ("1 + 6 = ", "7")]
MAGIC = """
%load_ext headnb
import headnb
model, tokenizer = headnb.load_model("tiny")
scores = %headscore model gsm_symbolic -n 4
%headgrid scores
print("scored", scores.sizes["sample"])
"""


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    from tiny import tiny_model, tiny_tokenizer

    tiny_model().save_pretrained("tiny")
    tiny_tokenizer().save_pretrained("tiny")
    check_modules()
    check_works()
    document = Path(sys.argv[2]).read_text(encoding="utf-8")
    for said in [*lines_of_calls(), *lines_of_commands()]:
        print(f"  {said}")
        line, _, _ = said.partition(";")  # what comes after it depends on what was asked
        assert line in document, f"{sys.argv[2]} does not have: {line}"


def check_modules() -> None:
    """Every module imports, except those that need an extra."""
    broken = {}
    for module in pkgutil.walk_packages(headnb.__path__, "headnb."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            broken[module.name] = error
    assert broken.keys() == NEED_AN_EXTRA, broken


def check_works() -> None:
    """Scoring, grids, losses, the magics and the command line."""
    model, tokenizer = headnb.load_model("tiny")
    scores = headnb.score_heads(model, tokenizer, PAIRS, out="scores.zarr")
    scores.to_netcdf("scores.nc")
    assert headnb.open_scores("scores.nc").equals(headnb.open_scores("scores.zarr"))
    scores.heads.grid().save("grid.svg")
    headnb.ablate(model, tokenizer, PAIRS, "L0H1")
    headnb.evaluate(model, tokenizer, PAIRS)
    headnb.explore(model, tokenizer, {"pairs": PAIRS})
    Path("magic.ipy").write_text(MAGIC, encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "IPython", "magic.ipy"], capture_output=True, text=True, check=True)
    assert "scored 4" in done.stdout, done.stdout + done.stderr
    for words in (
        ["score", "tiny", "gsm_symbolic", "-n", "4", "--out", "run.zarr", "--save", "run.html"],
        ["show", "run.zarr"],
        ["tasks", "gcd"],
        ["models"],
        ["methods"],
        ["doctor"],
    ):
        subprocess.run([command(), *words], capture_output=True, check=True)


def lines_of_calls() -> list[str]:
    """What functions say that need an extra."""
    model, tokenizer = headnb.load_model("tiny")
    chart = importlib.import_module("headnb.display.charts.plots").distribution(
        {"pairs": headnb.score_heads(model, tokenizer, PAIRS).heads.pattern()}
    )
    adapter = Path("adapter")
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "tiny"}', encoding="utf-8")
    calls = (
        lambda: headnb.finetune(model, tokenizer, PAIRS, steps=1),
        lambda: headnb.grid([[1.0, 2.0]]).save("grid.pdf"),
        lambda: headnb.load_model(adapter),
        lambda: headnb.load_task("gcd", n=4),
        lambda: headnb.load_task("lm_eval:arc_easy", n=4),
        lambda: headnb.score_heads(model, tokenizer, PAIRS, client=object()),
        chart.bokeh,
        lambda: headnb.load_model("smollm2-135m"),
    )
    said = []
    for call in calls:
        try:
            call()
        except HeadnbError as error:
            said.append(str(error))
    assert len(said) == len(calls), said
    return said


def lines_of_commands() -> list[str]:
    """What commands say that need an extra."""
    said = []
    for words in (["demo"], ["suite", "plan"], ["suite", "run"]):
        done = subprocess.run([command(), *words], capture_output=True, text=True, check=False)
        assert done.returncode == 1, words
        assert "Traceback" not in done.stderr, done.stderr
        said.append(done.stderr.strip().splitlines()[-1].removeprefix("headnb: "))
    return said


def command() -> str:
    """The command line of this environment."""
    return str(Path(sys.executable).with_name("headnb"))


if __name__ == "__main__":
    main()
