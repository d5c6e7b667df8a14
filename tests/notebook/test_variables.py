# ruff: noqa: F811  a test's argument is the fixture of that name
"""Variables that a magic's arguments name: the calling function's, then the notebook's, as Python resolves them."""

from __future__ import annotations

import sys
import textwrap

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb.display.grid import HeadGrid
from headnb.notebook.variables import Variables

from ipython_shells import PAIRS, error_of, other_tokenizer, run, scores_of, shell  # noqa: F401  a fixture

MAGIC = "get_ipython().run_line_magic('headgrid', 'picture')"


@pytest.fixture
def grids(shell):
    """The function's own grid, and another grid in the notebook's variable of the same name."""
    scores = scores_of(shell)
    shell.user_ns.update(mine=HeadGrid.of(scores), picture=HeadGrid.of(scores.isel(sample=[0, 1])))
    return shell.user_ns["mine"], shell.user_ns["picture"]


FUNCTION = "def f(picture):\n    {}\n    return found\nfound = f(mine)"
METHOD = (
    "class C:\n    def f(self, picture):\n        found = %headgrid picture\n        return found\nfound = C().f(mine)"
)
USED = """def outer(picture):
    def f():
        picture
        found = %headgrid picture
        return found
    return f()
found = outer(mine)"""
TIMEIT = f"""def f(picture):
    found = []
    %timeit -n1 -r1 found.append({MAGIC})
    return found[0]
found = f(mine)"""


@pytest.mark.parametrize(
    "code",
    [
        FUNCTION.format("found = %headgrid picture"),
        "async " + FUNCTION.format("found = %headgrid picture").replace("= f(", "= await f("),
        "def f(picture):\n    found = %headgrid picture\n    yield found\nfound = next(f(mine))",
        f"found = (lambda picture: {MAGIC})(mine)",
        f"found = [{MAGIC} for picture in [mine]][0]",
        "class C:\n    picture = mine\n    found = %headgrid picture\nfound = C.found",
        METHOD,
        f"names = {{'picture': mine}}\nexec(\"found = {MAGIC}\", globals(), names)\nfound = names['found']",
        f'names = dict(globals(), picture=mine)\nfound = eval("{MAGIC}", names)',
        "def f():\n    for picture in [mine]:\n        found = %headgrid picture\n    return found\nfound = f()",
        FUNCTION.format(f"found = %time {MAGIC}"),
        TIMEIT,
        "%alias_magic --line drawn headgrid\n" + FUNCTION.format("found = %drawn picture"),
        USED,
    ],
)
def test_a_functions_own_variable_comes_first(shell, grids, code):
    result, captured = run(shell, code)
    assert result.success, captured.stderr
    assert shell.user_ns["found"] is grids[0]


@pytest.mark.parametrize(
    "code",
    [
        "found = %headgrid picture",
        "%time found = %headgrid picture",
        f"%%time\nfound = {MAGIC}",
        "for _ in range(2):\n    found = %headgrid picture",
        "def f():\n    found = %headgrid picture\n    return found\nfound = f()",
        "def f():\n    found = %headgrid picture\n    return found\ndef g(picture):\n    return f()\nfound = g(mine)",
    ],
)
def test_the_notebooks_variable_is_read_where_python_reads_it(shell, grids, code):
    result, captured = run(shell, code)
    assert result.success, captured.stderr
    assert shell.user_ns["found"] is grids[1]


@pytest.mark.parametrize(
    "inner",
    [
        "def f():\n    %headgrid picture\nf()",
        "async def f():\n    %headgrid picture\nimport asyncio\nf().send(None)",
        f"list({MAGIC} for _ in range(1))",
        f"(lambda: {MAGIC})()",
        "class C:\n    %headgrid picture",
        "def f():\n    %time %headgrid picture\nf()",
        f"def f():\n    %timeit -n1 -r1 {MAGIC}\nf()",
    ],
)
def test_a_nested_function_does_not_take_the_notebooks_variable(shell, grids, inner):
    code = "def outer(picture):\n" + textwrap.indent(inner, "    ") + "\nouter(mine)"
    assert "'picture' is not a variable of this function, which is nested in another one" in error_of(shell, code)


def test_a_comprehension_in_a_function_never_takes_the_notebooks_variable(shell, grids):
    code = f"def outer(picture):\n    return [{MAGIC} for _ in range(1)][0]\nfound = outer(mine)"
    if sys.version_info >= (3, 12):  # comprehensions are part of the function
        run(shell, code)
        assert shell.user_ns["found"] is grids[0]
    else:
        assert "'picture' is not a variable of this function" in error_of(shell, code)


def test_a_modules_function_reads_its_own_variables(shell, grids, tmp_path, monkeypatch):
    code = f"from IPython import get_ipython\npicture = None\ndef f():\n    return {MAGIC}\n"
    (tmp_path / "drawing_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    run(shell, "import drawing_module\ndrawing_module.picture = mine\nfound = drawing_module.f()")
    assert shell.user_ns["found"] is grids[0]


def test_a_script_that_is_run_reads_its_own_variables(shell, grids, tmp_path):
    script = tmp_path / "script.py"
    saved = grids[0].save(tmp_path / "mine.heads.json")
    script.write_text(f"import headnb.display.grid as g\npicture = g.HeadGrid.open({str(saved)!r})\nfound = {MAGIC}\n")
    result, captured = run(shell, f"%run {script}")
    assert result.success, captured.stderr
    assert shell.user_ns["found"] == HeadGrid.open(saved) != grids[1]


@pytest.mark.parametrize(
    "line",
    [
        "%headscore m t",
        "%headscore m t -n 2",
        "%headablate m t --heads L0H1 --tokens 0",
        "%headsft m t --steps 1 --batch-size 2",
        "%headsft m t --steps 1 --batch-size 2 --track t",
        "%headdiff s s",
        "%headgrid s",
    ],
)
def test_every_magic_reads_a_functions_variables(shell, line):
    shell.user_ns["names"] = (shell.user_ns["model"], PAIRS, scores_of(shell))
    result, captured = run(shell, f"def f(m, t, s):\n    found = {line}\n    return found\nfound = f(*names)")
    assert result.success, captured.stderr
    assert shell.user_ns["found"] is not None


def test_scores_in_a_function_are_those_of_its_model_and_task(shell):
    shell.user_ns.update(pairs=PAIRS[:2], other=PAIRS[2:])
    run(shell, "def f(pairs):\n    found = %headscore model pairs\n    return found\nfound = f(other)")
    expected = headnb.score_heads(shell.user_ns["model"], shell.user_ns["tokenizer"], PAIRS[2:])
    xr.testing.assert_equal(shell.user_ns["found"], expected)


def test_a_functions_own_tokenizer_comes_before_the_notebooks(shell):
    shell.user_ns["mine"] = shell.user_ns["tokenizer"]
    shell.user_ns["tokenizer"] = other_tokenizer()
    run(shell, "def f(own):\n    found = %headscore model pairs\n    return found\nfound = f(mine)")
    expected = headnb.score_heads(shell.user_ns["model"], shell.user_ns["mine"], PAIRS)
    np.testing.assert_array_equal(shell.user_ns["found"].score, expected.score)


def test_into_sets_the_notebooks_variable_and_says_so(shell):
    shell.user_ns["scores"] = scores_of(shell)
    _, captured = run(shell, "def f():\n    %headdiff scores scores --into change\n    return change\nfound = f()")
    assert "change is set in the notebook, not in the function f" in captured.stdout
    assert shell.user_ns["found"] is shell.user_ns["change"]
    _, captured = run(shell, "%headdiff scores scores --into change")
    assert "is set in the notebook" not in captured.stdout


def test_into_a_functions_own_variable_is_refused(shell):
    shell.user_ns["scores"] = scores_of(shell)
    code = "def f():\n    change = 1\n    %headdiff scores scores --into change\n    return change\nf()"
    assert "a magic cannot set change, a variable of the function f" in error_of(shell, code)


def test_variables_keep_no_frame():
    def caller():
        local = 1
        return Variables({"other": 2}, sys._getframe()), local

    variables, _ = caller()
    assert (variables["local"], variables["other"]) == (1, 2)
    assert "local" in set(variables)
    assert not any(type(value).__name__ == "frame" for value in vars(variables).values())
