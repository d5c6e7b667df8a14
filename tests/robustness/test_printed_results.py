"""Results that a script prints to a stdout that is not UTF-8."""

from __future__ import annotations

import pytest

from bounded import run_bounded

PRINTED = """
import headnb
from headnb.display.charts.chart import Chart
from headnb.display.grid import HeadGrid
from headnb.explorer.ablation_card import AblationCard
from headnb.notebook.tables import task_table
from IPython.display import display

from combined_changes import BASICS, combined_change
from ipython_shells import PAIRS
from synthetic_results import comparison, random_pattern
from tiny import tiny_model, tiny_tokenizer

pattern = random_pattern(3, 4, units="näts ≤ ½", task="日本 →")
change = combined_change({"gsm8k": 0.7, "mbpp": -0.2}, noise=0)
fit = headnb.fit_combination(change, BASICS, permutations=20, resamples=5)
grid = HeadGrid.of({"é": pattern, "→": pattern})
pairs = {name: [(f"{name} {i}", "x") for i in range(9)] for name in BASICS}
print(grid, HeadGrid.of(comparison([[-0.4, 0.2]], [[1, 0]])))
print(Chart("R² ≥ 0 · é → 日本", ()), task_table("math"))
print(fit, headnb.mixture(fit, 8, pairs))
print(AblationCard(headnb.ablate(tiny_model(), tiny_tokenizer(), PAIRS, ["L0H1"], controls=2)))
display(HeadGrid.of(pattern), grid)
"""
STREAMS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
}


@pytest.mark.parametrize(
    "stream", ["ascii", *(pytest.param(one, marks=pytest.mark.slow) for one in ("cp1252", "C", "utf-8"))]
)
def test_results_print_on_every_stdout(stream):
    code = PRINTED.encode("ascii", "backslashreplace").decode()  # the C locale does not pass other letters
    ended = run_bounded(code, seconds=120, **STREAMS.get(stream, {"PYTHONIOENCODING": stream}))
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")[-2000:]
    shown = ended.stdout.decode("ascii" if stream == "C" else stream)
    assert shown.count("layers ") >= 4
    assert ("日本" in shown) == (stream == "utf-8")
