# ruff: noqa: F811  a test's argument is the fixture of that name
"""`%headroles` in a real IPython shell, and roles in `%headgrid` and `headnb roles`."""

from __future__ import annotations

import pytest
import xarray as xr
from headnb import head_roles, open_scores
from headnb.cli import main
from headnb.scoring import roles
from typer.testing import CliRunner

from ipython_shells import completions, error_of, run, shell  # noqa: F401  a fixture
from tiny import tiny_model, tiny_tokenizer

COPIED = [("Say 3 apples. ", "3 apples"), ("There are 42: ", "42")]


def test_returns_the_roles_of_the_same_call_in_python_and_draws_once(shell):
    result, captured = run(shell, "%headroles model --seed 3 --into kept")
    expected = head_roles(tiny_model(), tiny_tokenizer(), seed=3)
    xr.testing.assert_equal(result.result, expected)
    xr.testing.assert_equal(shell.user_ns["kept"], expected)
    drawn = [output.data for output in captured.outputs if "[induction]" in output.data.get("text/plain", "")]
    assert len(drawn) == 1


def test_with_a_task_there_is_a_copy_score(shell):
    shell.push({"copied": COPIED})
    result, _ = run(shell, "%headroles model copied")
    xr.testing.assert_equal(result.result, head_roles(tiny_model(), tiny_tokenizer(), COPIED))
    assert "copy" in result.result.role


def test_the_grid_of_scores_is_marked(shell, tmp_path):
    run(shell, "%headscore model pairs --into scores")
    run(shell, "%headroles model --into roles")
    result, _ = run(shell, "%headgrid scores --roles roles")
    assert result.result.payload["roles"][0]["name"] == "induction"
    shell.user_ns["roles"].to_netcdf(tmp_path / "roles.nc")
    xr.testing.assert_equal(open_scores(tmp_path / "roles.nc"), shell.user_ns["roles"])
    from_file, _ = run(shell, f"%headgrid scores --roles {tmp_path / 'roles.nc'}")
    assert from_file.result.payload["roles"] == result.result.payload["roles"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%headroles", "MODEL"),
        ("%headroles nonexistent-model-x", "nonexistent-model-x"),
        ("%headroles model pairs --copy retreival", "did you mean 'retrieval'"),
        ("%headgrid model --roles pairs", "model"),
    ],
)
def test_an_error_is_one_line(shell, line, message):
    assert message in error_of(shell, line)


def test_tab_completes_models_tasks_copy_scores_and_roles(shell):
    assert "model" in completions(shell, "%headroles ")
    assert "pairs" in completions(shell, "%headroles model ")
    assert completions(shell, "%headroles model pairs --copy ") == ["forced", "retrieval"]
    run(shell, "%headroles model --into my_roles")
    assert completions(shell, "%headgrid x --roles ") == ["my_roles"]


def test_the_command_prints_and_saves_the_roles(folder, tmp_path):
    saved = tmp_path / "roles.heads.json"
    result = CliRunner().invoke(main.app, ["roles", str(folder), "--save", str(saved)])
    assert result.exit_code == 0, result.output
    assert "[duplicate-token]" in result.output
    assert f"wrote {saved}" in result.output.replace("\n", "")
    assert saved.exists()


def test_copy_chooses_the_copy_score_in_the_magic_and_the_command(shell, folder, monkeypatch):
    chosen, measure = [], roles.head_roles

    def record(*arguments, copy, **options):
        chosen.append(copy)
        return measure(*arguments, **options)

    monkeypatch.setattr(roles, "head_roles", record)
    run(shell, "%headroles model")
    run(shell, "%headroles model --copy retrieval")
    for words in ([], ["--copy", "retrieval"]):
        result = CliRunner().invoke(main.app, ["roles", str(folder), *words])
        assert result.exit_code == 0, result.output
    assert chosen == ["forced", "retrieval"] * 2
