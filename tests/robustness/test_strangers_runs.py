"""Untrusted run folders, reports and browser messages; shared files contain no private names.

A forged value is read or refused in one line, markup stays text, and shared files have no path, user or host name.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from html.parser import HTMLParser

import pytest
from headnb import HeadnbError, finetune, load_model, load_task, score_heads
from headnb.display.grid import HeadGrid
from headnb.display.report import Finding, Number, ReportContents, Section, Table, page
from headnb.experiments.folder import Run, Settings
from headnb.experiments.report import _names_of_paths, contents_of
from headnb.explorer.commands import MOST_CONTROLS
from headnb.explorer.explorer import explore
from headnb.storage.files import MAX_NAME_LENGTH, safe_file_name
from headnb.storage.locks import write_lock
from hypothesis import given
from hypothesis import strategies as st

from drawn import FEW, MANY, outcome, plain, tried
from hostile_names import NAMES
from paths import FIXTURES
from suites import write_suite

WHOLE = FIXTURES / "format-1" / "run"
FORGED = {
    "run.json": {},
    "sft/gcd/seed0/result.json": {"kind_of_tuning": "lora", "steps": 1, "movement": 0.1},
    "findings/selectivity.json": {},
    "notebooks/01_patterns.json": {"node": "01_patterns", "seconds": 1.0, "memory_mb": 10, "versions": {"headnb": "0"}},
}


def forged(draw, name, values):
    """The values with a random one replaced, or with an additional one."""
    at = whole = json.loads(json.dumps(values))
    while True:
        key = draw(st.sampled_from([*at, "versions", "tasks"]) if isinstance(at, dict) else st.integers(0, len(at) - 1))
        value = at[key] if isinstance(at, list) else at.get(key)
        if isinstance(value, (dict, list)) and value and draw(st.booleans()):
            at = value
            continue
        long = st.sampled_from(["x" * 300, ["x" * 300], ["../../etc"], [f"{'y' * 5000}"], 10**300, {"a": 1}, [None]])
        at[key] = draw(plain | long)
        return draw(st.sampled_from([whole, whole, whole, draw(plain)]))


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY // 5, marks=pytest.mark.slow)])
def test_a_forged_value_in_a_run_folder_is_read_or_named_in_a_line(examples, tmp_path):
    found = Counter()
    warnings.simplefilter("ignore")
    shutil.copytree(WHOLE, tmp_path / "run")
    values = {}
    for name, more in FORGED.items():
        path = tmp_path / "run" / name
        stored = json.loads(path.read_text()) if path.exists() else {}
        stored.pop("checksum", None)
        values[name] = stored | more
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(values[name]))
    run = Run(tmp_path / "run")

    @tried(examples)
    @given(data=st.data())
    def check(data):
        name = data.draw(st.sampled_from(list(FORGED)))
        path = run.folder / name
        path.write_text(json.dumps(forged(data.draw, name, values[name])))
        for call in (
            lambda: run.settings,
            lambda: run.versions,
            lambda: run.trained,
            lambda: run.result("gcd", 0),
            lambda: run.findings.numbers("selectivity"),
            lambda: contents_of(run, {}),
        ):
            outcome(found, call)
        path.write_text(json.dumps(values[name]))

    check()
    print(f"forged values in run folders: {found.total()} calls, {dict(found)}")
    assert found["refused"]


class Elements(HTMLParser):
    """Elements and attributes of a page, as a browser would parse it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, sorted(name for name, _ in attrs)))


def test_a_run_of_endless_samples_is_refused(tmp_path):
    stored = json.loads((WHOLE / "run.json").read_text())
    stored.pop("checksum", None)
    (tmp_path / "run.json").write_text(json.dumps(stored | {"n": 10**12}))
    with pytest.raises(HeadnbError, match="n must be from 1 to 100000"):
        Run(tmp_path).samples.scored("gcd")


def elements(name):
    table = Table((name, name), ((name, 1.0),), name)
    section = Section(
        name, name, Finding("undecided", name, name, (Number(name, name, name),)), (name,), tables=(table,)
    )
    parser = Elements()
    parser.feed(page(ReportContents(name, (section,), (name,), {name: {name: name}})))
    parser.close()
    return parser.found


def test_markup_in_a_report_stays_text():
    wanted = elements("x")
    assert all(elements(name) == wanted for name in NAMES)
    print(f"names with markup, in a report: {len(NAMES)} tried, all stay text")


def test_a_report_shows_no_path_of_its_writer():
    paths = {"/home/alice & co/models/tiny": "tiny", "/home/alice & co/ä.jsonl": "ä.jsonl"}
    section = Section("x", sentences=tuple(paths), tables=(Table(("task",), tuple((path,) for path in paths)),))
    written = page(ReportContents(next(iter(paths)), (section,), shown_as=paths))
    assert "alice" not in written
    assert ">ä.jsonl</th>" in written


def test_the_paths_of_a_run_are_shown_by_their_names(tmp_path):
    shutil.copy(WHOLE / "run.json", tmp_path)
    stored = json.loads((tmp_path / "run.json").read_text())
    stored.pop("checksum", None)
    forged_run = stored | {"model": "/home/alice/m", "tasks": ["gcd", "/home/alice/t"]}
    (tmp_path / "run.json").write_text(json.dumps(forged_run))
    assert _names_of_paths(Run(tmp_path)) == {"/home/alice/m": "m", "/home/alice/t": "t"}


# Files that peft and transformers write with the path of a local base model or of the output folder: see SECURITY.md.
WITH_PATHS = {"README.md", "adapter_config.json", "training_args.bin"}
SECRETS = {name: f"{name}-planted" for name in ("HF_TOKEN", "WANDB_API_KEY", "USER", "LOGNAME")}


def test_written_files_name_no_folder_user_host_or_token(folder, tmp_path, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    for host in ("platform.node", "socket.gethostname"):
        monkeypatch.setattr(host, lambda: "host-planted")
    home, out = tmp_path / "home-planted", tmp_path / "home-planted" / "out"
    out.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    model, tokenizer = load_model(shutil.copytree(folder, home / "model"))
    rows = ({"prompt": f"2 + {number} =", "completion": f" {2 + number}"} for number in range(2))
    (home / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = load_task(home / "own.jsonl")
    scores = score_heads(model, tokenizer, task, out=out / "a.zarr")
    scores.to_netcdf(out / "a.nc")
    grid = HeadGrid.of(scores)
    for suffix in (".heads.json", ".svg", ".html"):
        grid.save(out / f"grid{suffix}")
    grid.save_page(out / "page.html")
    finetune(model, tokenizer, task, steps=1, track={"own": task}, output_dir=out / "tuned")
    Run.create(out / "run", Settings("smollm2-135m", ("gcd",), 4, 64, 0))
    written = [path for path in out.rglob("*") if path.is_file()]
    contents = {path: path.read_bytes() for path in written}
    naming = {path.name for path, content in contents.items() if b"planted" in content}
    assert naming <= WITH_PATHS
    secret = [word.encode() for word in (*SECRETS.values(), "host-planted")]
    assert not [path for path, content in contents.items() if any(word in content for word in secret)]
    print(f"files scanned for private names: {len(written)}; with paths: {sorted(naming)}")


@pytest.mark.long
def test_executed_notebooks_and_manifests_of_a_suite_name_no_installation_user_or_token(tmp_path, monkeypatch):
    """The folder that the user names for the results is in them: see SECURITY.md."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "home-planted").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home-planted"))
    suite = write_suite(tmp_path / "installed-planted", tasks=["gcd"], seeds=[0])
    monkeypatch.chdir(tmp_path)
    words = ["suite", "run", str(suite), "--profile", "tiny", "--out", "out", "--workers", "1"]
    program = "from headnb.cli.main import main; main()"
    subprocess.run([sys.executable, "-c", program, *words], check=True, capture_output=True, timeout=600)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.suffix for path in written} >= {".ipynb", ".json"}
    assert not [path for path in written if b"planted" in path.read_bytes()]
    print(f"executed notebooks and manifests of a suite scanned for private names: {len(written)}")


def test_two_fine_tunings_in_one_folder_are_refused(model, tokenizer, tmp_path):
    task = load_task([("2 + 2 =", " 4"), ("2 + 3 =", " 5")])
    with write_lock(tmp_path / "out", "a fine-tuning"), pytest.raises(HeadnbError) as refused:
        finetune(model, tokenizer, task, steps=1, output_dir=tmp_path / "out")
    assert "another run is writing a fine-tuning to" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_long_names_become_files_of_their_own():
    names = ["x" * 300, "x" * 299 + "y", "ä" * 200, "x" * MAX_NAME_LENGTH]
    files = [safe_file_name(name) for name in names]
    assert len({*files}) == len(names)
    assert all(len(file.encode()) <= MAX_NAME_LENGTH for file in files)
    assert files[-1] == names[-1]


@pytest.mark.parametrize("examples", [5 * FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_whatever_a_page_sends_it_is_words_in_the_widget(examples, model, tokenizer):
    task = load_task([("2 + 2 =", " 4"), ("2 + 3 =", " 5")])
    widget = explore(model, tokenizer, {"sums": task})
    names = st.sampled_from(
        ["do", "head", "place", "factor", "heads", "tasks", "controls", "task", "method", "selected"]
    )
    value = plain | st.sampled_from(
        ["attend", "ablate", "stop", "L9H9", 10**30, float("nan"), MOST_CONTROLS + 1, ["L0H0"]]
    )
    found = Counter()

    @tried(examples)
    @given(content=plain | st.dictionaries(names, value, max_size=6), state=st.dictionaries(names, value, max_size=3))
    def check(content, state):
        widget._handle_custom_msg(content, [])
        widget._handle_custom_msg({"changes": state}, [])
        widget.set_state(state)
        assert widget.wait(300)
        json.dumps(widget.status)
        found["refused" if widget.status["error"] else "read"] += 1

    check()
    widget.close()
    print(f"messages of a hostile page: {found.total()} tried, {dict(found)}")
    assert found["refused"]


def test_a_page_cannot_ask_for_endless_controls(model, tokenizer):
    widget = explore(model, tokenizer, {"sums": load_task([("2 + 2 =", " 4"), ("2 + 3 =", " 5")])})
    asked = {"do": "ablate", "factor": 0, "heads": ["L0H0"], "tasks": ["sums"], "controls": 10**9}
    widget._handle_custom_msg(asked, [])
    assert "at most 1000 random controls" in widget.status["error"]
    widget.close()
