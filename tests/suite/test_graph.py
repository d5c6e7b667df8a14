"""A suite before it runs: errors are reported at once, and a node's key changes with everything it depends on."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
import yaml
from headnb.errors import HeadnbError
from headnb.suite import records
from headnb.suite.checks import check_suite
from headnb.suite.definition import read_suite
from headnb.suite.tables import plan_table, status_table
from headnb.suite.timings import Timing, peak_memory_mb, timings, total_seconds

from suites import NOTEBOOKS, graph, write_notebook, write_suite
from tiny import tiny_model

if TYPE_CHECKING:
    from pathlib import Path

    from headnb.suite.graph import Node


def changed(name: str, **parts: Any) -> dict[str, Any]:
    """Notebooks of the test suite, with changed keys in one entry."""
    notebooks = copy.deepcopy(NOTEBOOKS)
    notebooks[name] |= parts
    return notebooks


def keys(nodes: list[Node]) -> dict[str, str]:
    return {node.name: node.key for node in nodes}


def test_the_graph_has_a_node_for_each_task_and_seed_after_its_dependencies(tmp_path: Path) -> None:
    notebooks = changed("end", after=["train", "more"])
    notebooks["more"] = {"file": "train.ipynb", "for": ["task", "seed"], "after": ["train"]}
    nodes = graph(write_suite(tmp_path, notebooks=notebooks), tmp_path / "out")
    after = {node.name: [needed.name for needed in node.after] for node in nodes}
    assert after["start"] == []
    assert after["train lcm seed 1"] == ["start"]
    assert after["more lcm seed 1"] == ["train lcm seed 1"]
    assert len(after["end"]) == 8
    assert list(after).index("end") == len(after) - 1
    assert len(set(keys(nodes).values())) == 10


def test_a_notebook_gets_the_values_of_its_parameters(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, compositions={"lcm": ["gcd"]})
    nodes = {node.name: node for node in graph(suite, tmp_path / "out", steps=5, seeds=[4])}
    run = str(tmp_path / "out" / "smollm2-135m")
    assert nodes["start"].parameters == {"run_folder": run, "model": "smollm2-135m", "tasks": ["gcd", "lcm"]}
    assert nodes["train gcd seed 4"].parameters == {"run_folder": run, "task": "gcd", "seed": 4, "steps": 5}
    assert nodes["end"].parameters["compositions"] == {"lcm": ["gcd"]}
    assert nodes["train gcd seed 4"].stem == "train.gcd.seed4"


def test_a_notebook_for_each_target_runs_for_the_complex_tasks_alone(tmp_path: Path) -> None:
    notebooks = changed("end", after=["train", "null"])
    notebooks["null"] = {"file": "null.ipynb", "for": ["target", "seed"], "writes": ["null/{target}/seed{seed}"]}
    suite = write_suite(tmp_path, notebooks=notebooks, compositions={"lcm": ["gcd"]})
    write_notebook(tmp_path / "null.ipynb", 'target: str = ""\nseed: int = 0', "1")
    nodes = {node.name: node for node in graph(suite, tmp_path / "out")}
    assert [name for name in nodes if name.startswith("null")] == ["null lcm seed 0", "null lcm seed 1"]
    null = nodes["null lcm seed 1"]
    assert null.parameters == {"target": "lcm", "seed": 1}
    assert null.writes == (null.run / "null" / "lcm" / "seed1",)
    assert len(nodes["end"].after) == 6
    assert not [node for node in graph(suite, tmp_path / "out", compositions={}) if node.notebook == "null"]


def test_an_excluded_notebook_has_no_node_and_its_users_do_not_wait(tmp_path: Path) -> None:
    notebooks = changed("end", uses=["null"])
    notebooks["null"] = {"file": "null.ipynb", "after": ["train"], "writes": ["null.txt"]}
    suite = write_suite(tmp_path / "suite", notebooks=notebooks, parameters={"steps": 3, "strength": 2})
    write_notebook(tmp_path / "suite" / "null.ipynb", 'run_folder: str = "run"\nstrength: int = 1', "1")
    whole = {node.name: node for node in graph(suite, tmp_path / "out")}
    assert "null" in [needed.name for needed in whole["end"].after]
    nodes = graph(suite, tmp_path / "out", without=["null"])
    left = {node.name: node for node in nodes}
    assert left.keys() == whole.keys() - {"null"}
    assert {needed.notebook for needed in left["end"].after} == {"train"}
    assert {name for name in left if left[name].key != whole[name].key} == {"end"}
    node_records = records.records(nodes, running=False)
    assert "null" not in plan_table(nodes, node_records, timings(nodes), 1)
    assert "null" not in status_table(nodes, node_records)
    for node in nodes[:-1]:
        done(node)
    assert list(records.records(nodes, running=False).values())[-1].state == "ready"


def test_without_can_be_set_in_a_profile_or_by_the_user(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, without=["end"])
    assert {node.notebook for node in graph(suite, tmp_path / "out")} == {"start", "train"}
    assert {node.notebook for node in graph(suite, tmp_path / "out", without=[])} == {"start", "train", "end"}
    assert {node.notebook for node in graph(suite, tmp_path / "out", without="end")} == {"start", "train"}


@pytest.mark.parametrize(
    ("notebooks", "profile", "message"),
    [
        (changed("end", after=["tran"]), {}, "did you mean 'train'"),
        (changed("start", after=["end"]), {}, "cycle: start after end after train after start"),
        (changed("start", after=["start"]), {}, "cycle: start after start"),
        (changed("train", file="trian.ipynb"), {}, "unknown file 'trian.ipynb'; did you mean 'train.ipynb'"),
        (
            changed("start", **{"for": ["seed"]}),
            {},
            "notebook start runs for each seed, but start.ipynb has no parameter seed",
        ),
        (changed("start", **{"for": ["tsk"]}), {}, "did you mean 'task'"),
        (changed("train", writes=["../x"]), {}, "not inside the run folder"),
        (changed("train", writes=["sft/{tsk}"]), {}, "did you mean 'task'"),
        (changed("train", work={"train": [["steps"]]}), {}, "unknown key of notebook train 'work'"),
        (changed("train", aftr=[]), {}, "did you mean 'after'"),
        (changed("end", uses=["tran"]), {}, "did you mean 'train'"),
        (changed("start", uses=["end"]), {}, "cycle: start after end after train after start"),
        (None, {"without": ["ned"]}, "without: unknown notebook 'ned'; did you mean 'end'"),
        (None, {"without": "end"}, "without must be a list of names, not 'end'"),
        (None, {"without": ["start"]}, "train requires start; exclude both or neither"),
        (None, {"without": ["start", "train", "end"]}, "excludes every notebook"),
        (None, {"parameters": {"stpes": 1}}, "unknown parameter 'stpes'; did you mean 'steps'"),
        (None, {"parameters": {"steps": "many"}}, "parameter steps of train must be int, not 'many'"),
        (None, {"parameters": {"steps": True}}, "parameter steps of train must be int, not True"),
        (None, {"parameters": {"scale": "2e-5"}}, "YAML reads 2e-5 as text; write 2.0e-5"),
        (None, {"parameters": {"tasks": ["gcd"]}}, "is set by the profile itself"),
        (None, {"parameters": {"seed": 3}}, "is set by the profile itself"),
        (None, {"tasks": ["gcd", "lmc"]}, "unknown task 'lmc'; did you mean 'lcm'"),
        (None, {"tasks": []}, "has no tasks"),
        (None, {"tasks": ["gcd", "gcd"]}, "'gcd' twice"),
        (None, {"models": ["smolm2-135m"]}, "did you mean 'smollm2-135m'"),
        (None, {"models": ["./nowhere"]}, "unknown model './nowhere'"),
        (None, {"tasks": ["./nowhere.jsonl"]}, "cannot read nowhere.jsonl"),
        (None, {"seeds": ["a"]}, "each of seeds must be a whole number, not 'a'"),
        (None, {"seeds": [-1]}, "each of seeds must be from 0 to 4294967295, not -1"),
        (None, {"seeds": []}, "list of whole numbers"),
        (None, {"compositions": {"lcm": ["gdc"]}}, "did you mean 'gcd'"),
        (None, {"compositions": {"lcm": ["lcm"]}}, "cannot be its own basic task"),
        (None, {"model": "x"}, "did you mean 'models'"),
    ],
)
def test_an_invalid_suite_is_reported_before_anything_runs(
    tmp_path: Path, notebooks: dict[str, Any] | None, profile: dict[str, Any], message: str
) -> None:
    suite = write_suite(tmp_path, notebooks=notebooks, **profile)
    with pytest.raises(HeadnbError) as error:
        graph(suite, tmp_path / "out")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_unknown_profile_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(HeadnbError, match="did you mean 'tiny'"):
        read_suite(write_suite(tmp_path), "tinny")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "line 2 is not YAML"),
        ("notebooks: {}\nprofiles: {}\nnotebooks: {}", "the key 'notebooks' is given twice"),
        ("notebooks: {a: {file: x.ipynb, file: y.ipynb}}", "the key 'file' is given twice"),
        ("- x", "must be a mapping of names to values"),
        ("notebook: {}", "did you mean 'notebooks'"),
    ],
)
def test_a_file_that_is_not_a_suite_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(text + "\n")
    with pytest.raises(HeadnbError, match=message):
        read_suite(path, "tiny")


def test_yaml_creates_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(f"notebooks: !!python/object/apply:pathlib.Path.touch [{tmp_path / 'made'}]\nprofiles: {{}}\n")
    with pytest.raises(HeadnbError, match="not YAML"):
        read_suite(path, "tiny")


def test_a_missing_split_of_a_local_task_is_reported_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADNB_DATA", str(tmp_path))
    (tmp_path / "mine.train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(HeadnbError, match=r"has no test split: .* no mine\.test\.jsonl"):
        graph(write_suite(tmp_path / "suite", tasks=["mine"]), tmp_path / "out")


def test_an_untyped_parameter_is_refused(tmp_path: Path) -> None:
    suite = write_suite(tmp_path)
    for cell, message in (
        ("steps = 3", "needs a type"),
        ("steps: Path = 3", "has the type Path"),
        ("steps: list[Path] = []", r"has the type list\[Path\]; supported: str"),
        ("", "no parameter"),
    ):
        write_notebook(tmp_path / "start.ipynb", cell)
        with pytest.raises(HeadnbError, match=message):
            check_suite(read_suite(suite, "tiny"))


def test_keys_change_with_every_dependency_and_with_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite(tmp_path / "suite")
    before = keys(graph(suite, tmp_path / "out"))
    assert keys(graph(suite, tmp_path / "elsewhere")) == before

    def now_different(**settings: Any) -> set[str]:
        after = keys(graph(suite, tmp_path / "out", **settings))
        return {name for name in before if after[name] != before[name]}

    everything = set(before)
    assert now_different(steps=4) == everything - {"start"}
    assert now_different(scale=2.0) == everything
    assert now_different(compositions={"lcm": ["gcd"]}) == {"end"}
    path = tmp_path / "suite" / "end.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="ran")]
    notebook.metadata["opened"] = "yes"
    nbformat.write(notebook, path)
    notebook.cells.append(nbformat.v4.new_markdown_cell("Some results."))
    nbformat.write(notebook, path)
    assert now_different() == set()
    notebook.cells[2].source += "\n# more"
    nbformat.write(notebook, path)
    assert now_different() == {"end"}
    monkeypatch.setattr("headnb.suite.graph.__version__", "99")
    assert now_different() == everything


def test_keys_change_with_samples_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADNB_DATA", str(tmp_path))
    files = [tmp_path / f"gcd.{split}.jsonl" for split in ("train", "test")]
    for file in files:
        file.write_text('{"prompt": "a", "completion": "b"}\n')
    model = tmp_path / "tiny"
    tiny_model().save_pretrained(model)
    suite = write_suite(tmp_path / "suite", models=[str(model)])
    before = keys(graph(suite, tmp_path / "out"))
    for file in files:
        file.write_text('{"prompt": "a", "completion": "c"}\n')
        after = keys(graph(suite, tmp_path / "out"))
        assert after["train gcd seed 0"] != before["train gcd seed 0"]
        before = after
    tiny_model(seed=1, layers=3).save_pretrained(model)
    assert keys(graph(suite, tmp_path / "out"))["start"] != before["start"]


def done(node: Node, **facts: Any) -> None:
    """Write the results and the manifest of a node that has run."""
    for path in (*node.writes, records.executed_path(node)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("made")
    records.write_manifest(node, "done", **facts)


def test_states_follow_the_graph(tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite")
    nodes = graph(suite, tmp_path / "out")
    by_name = {node.name: node for node in nodes}

    def states(*, running: bool = False, of: list[Node] = nodes) -> list[str]:
        return [record.state for record in records.records(of, running=running).values()]

    assert states() == ["ready", "waiting", "waiting", "waiting", "waiting", "waiting"]
    done(by_name["start"], seconds=1.0)
    records.begin(by_name["train gcd seed 0"], {"began": "now"})
    records.write_manifest(by_name["train gcd seed 1"], "failed", error="ValueError: no")
    assert states() == ["done", "stopped", "failed", "ready", "ready", "blocked"]
    assert states(running=True)[1] == "running"
    assert states(of=graph(suite, tmp_path / "out", steps=9))[1:] == ["ready", "outdated", "ready", "ready", "waiting"]
    text = status_table(nodes, records.records(nodes, running=False))
    assert "1 done, 1 failed, 1 stopped, 1 blocked, 2 ready" in text
    assert "ValueError: no" in text
    assert "blocked by train gcd seed 1" in text
    indents = [len(line[2:]) - len(line[2:].lstrip()) for line in text.splitlines() if line[:1] in "✓✗‖○⊘" and line]
    assert indents == [0, 2, 2, 2, 2, 4]  # by the dependencies


def test_results_of_other_settings_are_removed_and_others_kept(tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite")
    (first, *_) = graph(suite, tmp_path / "out")
    (other, *_) = graph(suite, tmp_path / "out", scale=3.0)
    first.writes[0].parent.mkdir(parents=True)
    first.writes[0].write_text("begun by hand")
    records.begin(first, {})
    assert first.writes[0].read_text() == "begun by hand"
    records.begin(first, {})
    assert first.writes[0].exists()
    records.begin(other, {})
    assert not first.writes[0].exists()


def test_a_node_with_a_missing_result_is_not_done(tmp_path: Path) -> None:
    (first, *_) = graph(write_suite(tmp_path / "suite"), tmp_path / "out")
    done(first)
    assert records.is_done(first)
    first.writes[0].unlink()
    assert not records.is_done(first)


def planned(nodes: list[Node]) -> str:
    return plan_table(nodes, records.records(nodes, running=False), timings(nodes), 2)


def test_before_a_first_run_the_plan_says_that_there_are_no_timings(tmp_path: Path) -> None:
    nodes = graph(write_suite(tmp_path / "suite"), tmp_path / "out")
    assert timings(nodes) == {}
    assert "6 of 6 notebooks to run, 2 at a time: no timings yet for 6" in planned(nodes)
    assert "4 train" in planned(nodes)


def test_timings_are_of_the_last_run_or_of_other_tasks_and_seeds(tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite")
    start, *trainings, _ = nodes = graph(suite, tmp_path / "out")
    done(start, seconds=5.0, memory_mb=300)
    done(trainings[0], seconds=50.0, memory_mb=700)
    done(trainings[1], seconds=70.0, memory_mb=600)
    found = timings(nodes)
    assert found[trainings[0].key] == Timing(50.0, 700.0)
    assert found[trainings[2].key] == found[trainings[3].key] == Timing(60.0, 700.0)
    assert "3 of 6 notebooks to run, 2 at a time: about 1 min 00 s and 1.4 GB, from earlier runs; no" in planned(nodes)
    longer = graph(suite, tmp_path / "out", steps=2000)
    assert set(timings(longer)) == {longer[0].key}  # the first notebook has no parameter steps


def test_time_and_memory_are_those_of_notebooks_side_by_side(tmp_path: Path) -> None:
    nodes = graph(write_suite(tmp_path / "suite"), tmp_path / "out")
    known = {node.key: Timing(10.0 + index, 100.0 * index) for index, node in enumerate(nodes)}
    assert total_seconds(nodes, known, 1) == sum(range(10, 16))
    assert total_seconds(nodes, known, 2) == 10 + max(11 + 13, 12 + 14) + 15
    assert peak_memory_mb(nodes, known, 2) == 300 + 400


def test_a_manifest_says_what_was_run(tmp_path: Path) -> None:
    (first, *_) = graph(write_suite(tmp_path / "suite"), tmp_path / "out")
    done(first, seconds=2.5)
    manifest = json.loads(records.manifest_path(first).read_text())
    assert manifest["parameters"]["tasks"] == ["gcd", "lcm"]
    assert manifest["key"] == first.key
    assert (manifest["notebook"], manifest["state"], manifest["seconds"]) == ("start.ipynb", "done", 2.5)


def test_the_suite_of_the_package_is_sound_in_every_profile() -> None:
    from headnb.suite.notebooks import notebooks_folder

    path = notebooks_folder() / "suite.yaml"
    for profile in yaml.safe_load(path.read_text())["profiles"]:
        suite, checked = check_suite(read_suite(path, profile))
        assert checked.parameters.keys() == suite.notebooks.keys() | set(suite.profile.without)
