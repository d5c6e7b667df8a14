"""Untrusted files with any content are read or refused in one line, and never executed.

The larger numbers of cases are slow: `make robustness`.
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from headnb import HeadnbError, load_task, open_scores
from headnb.cli.suite import _values
from headnb.display.payload_parser import read_payload
from headnb.experiments.folder import Run
from headnb.notebook.cell_samples import parse_cell_task
from headnb.storage.checksums import CHECKSUM, array_metadata, checksum
from headnb.storage.files import safe_file_name
from headnb.storage.zarr_columns import DIMENSIONS, FIXED_COLUMNS
from headnb.suite.checks import _check_entry
from headnb.suite.definition import MAX_VALUES, parse_yaml, read_suite
from headnb.tasks.loading import Task
from headnb.tasks.samples import FIELDS
from hypothesis import given
from hypothesis import strategies as st

from drawn import FEW, MANY, outcome, plain, tried
from paths import FIXTURES
from stores import score_into

PAYLOADS = FIXTURES / "payloads" / "valid"


row = st.dictionaries(
    st.sampled_from([*FIELDS, "other", "pixel_values", "token_type_ids"]),
    plain | st.lists(st.integers(-200, 400), max_size=5) | st.lists(st.integers(0, 1), max_size=5),
    max_size=5,
)
words = st.text(max_size=6)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": words | st.lists(plain, max_size=2)},
    optional={"reasoning_content": words | plain, "tool_calls": st.lists(plain, max_size=2), "other": plain},
)
chat_row = st.fixed_dictionaries(
    {"messages": st.lists(message, min_size=1, max_size=3)},
    optional={"tools": plain, "documents": plain, "chat_template_kwargs": plain},
)
token_row = st.integers(2, 5).flatmap(
    lambda length: st.fixed_dictionaries(
        {"input_ids": st.lists(st.integers(0, 9), min_size=length, max_size=length)},
        optional={
            name: st.lists(st.integers(0, most), min_size=length, max_size=length)
            for name, most in (("labels", 9), ("attention_mask", 1), ("position_ids", 4), ("assistant_masks", 1))
        },
    )
)
sound_row = st.fixed_dictionaries({"prompt": st.text(), "completion": st.text(min_size=1)}, optional={"id": plain})
line = st.one_of(
    (row | sound_row | chat_row | token_row).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40),
    plain.map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b'{"prompt": NaN}', b"\xef\xbb\xbf{}", b"\xff"]),
)


def _lines_of_a_task(found, lines):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jsonl"
        path.write_bytes(b"\n".join(lines))
        task = outcome(found, lambda: load_task(path))
        assert task is None or isinstance(task, Task)


def _task_files(found, drawn):
    ending, content = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{ending}"
        path.write_bytes(content)
        task = outcome(found, lambda: load_task(path))
        assert task is None or isinstance(task, Task)


def _parquet():
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": ["u", "v"], "prompt": ["a", "b"], "completion": ["c", "d"]}), sink)
    return sink.getvalue().to_pybytes()


_CSV = b'id,prompt,completion\nu,a,c\nv,"b\n""",d\n'
_LINES = b'{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}'
SOUND_FILES = {
    ".csv": _CSV,
    ".tsv.gz": gzip.compress(_CSV.replace(b",", b"\t")),
    ".json": b"[" + _LINES.replace(b"\n", b",") + b"]",
    ".jsonl.gz": gzip.compress(_LINES),
    ".parquet": _parquet(),
}


def _damaged(draw):
    """A task file in which some bytes are replaced, removed or added; some have the ending of another format."""
    ending, content = draw(st.sampled_from(list(SOUND_FILES.items())))
    content = bytearray(content)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return draw(st.sampled_from([ending, ending, *SOUND_FILES])), bytes(content)


def _payloads(found, text):
    payload = outcome(found, lambda: read_payload(text))
    if payload is not None:
        json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()


def _mutated(draw):
    """A valid payload with a random value replaced."""
    payload = json.loads(draw(st.sampled_from(sorted(PAYLOADS.glob("*.heads.json")))).read_text(encoding="utf-8"))
    at = payload
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = draw(st.sampled_from(keys)) if keys else None
        if key is None:
            break
        if isinstance(at[key], (dict, list)) and draw(st.booleans()):
            at = at[key]
            continue
        at[key] = draw(plain)
        break
    return json.dumps(payload)


SUITE = {
    "notebooks": {"one": {"file": "one.ipynb", "for": ["task"], "writes": ["sft/{task}"], "work": {"train": [["n"]]}}},
    "profiles": {"demo": {"models": ["m"], "tasks": ["gcd"], "seeds": [0], "parameters": {"steps": 1}}},
}


def _suites(found, text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "suite.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        suite = outcome(found, lambda: read_suite(path, "demo"))
        for entry in () if suite is None else suite.notebooks.values():
            assert entry.file.resolve().is_relative_to(Path(folder).resolve())
            if outcome(found, lambda entry=entry: _check_entry(entry, {"task": "str"}, {}) or entry):
                for pattern in entry.writes:
                    run = Path(folder) / "run"
                    written = run / pattern.format(**{axis: safe_file_name("../x") for axis in entry.axes})
                    assert written.resolve().is_relative_to(run.resolve())
                    assert written.resolve() != run.resolve()


def _changed_suite(draw):
    suite = json.loads(json.dumps(SUITE))
    where = draw(st.sampled_from(["notebooks", "profiles"]))
    entry = suite[where][next(iter(suite[where]))]
    name = draw(st.sampled_from([*entry, "gpu", "after", "compositions"]))
    nasty = st.sampled_from(["../x", "/x", ".", "./", "{task:>99999999999}", "{task.x}", "{", "{0}", "a/../../x", ""])
    entry[name] = draw(plain | nasty | st.lists(nasty, max_size=2) | st.dictionaries(st.text(max_size=3), plain))
    return yaml.safe_dump(suite)


yaml_text = st.one_of(
    st.composite(_changed_suite)(),
    st.text(max_size=60),
    plain.map(yaml.safe_dump),
    st.sampled_from(
        [
            "[" * 5000,
            "2001-99-99",
            "!!python/object/apply:os.system [exit]",
            "a: &a [*a]",
            "!!float x",
            "!!int ''",
            "? [1]",
        ]
    ),
)


def _parameters(found, text):
    outcome(found, lambda: _values([text]))


def _typed(found, text):
    outcome(found, lambda: parse_cell_task(text))


SOURCES = {
    "lines of a task": (_lines_of_a_task, st.lists(line, max_size=3)),
    "task files": (_task_files, st.composite(_damaged)()),
    "head grids": (_payloads, st.composite(_mutated)() | plain.map(json.dumps) | st.text()),
    "suite files": (_suites, yaml_text),
    "parameters": (_parameters, st.text(max_size=9) | yaml_text.map("steps={}".format)),
    "typed samples": (_typed, line.map(lambda held: held.decode(errors="replace")) | st.text()),
}


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("source", SOURCES)
def test_whatever_it_holds_it_is_read_or_refused_in_one_line(source, examples):
    check, drawn = SOURCES[source]
    found = Counter()

    @tried(examples)
    @given(drawn)
    def one(value):
        check(found, value)

    one()
    print(f"{source}: {found.total()} tried, {dict(found)}")
    assert found["refused"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "a.zarr"
    score_into(path)
    return path


def reseal(path):
    """Update the checksum to the changed content, as an attacker would."""
    import zarr

    group = zarr.open_group(path, mode="r", zarr_format=3)
    if any(group[name].nbytes > 10**8 for name in FIXED_COLUMNS):
        return
    attrs = {name: value for name, value in dict(group.attrs).items() if name != CHECKSUM}
    fixed = {name: group[name][:] for name in FIXED_COLUMNS}
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"] = attrs | {CHECKSUM: checksum(attrs, fixed, array_metadata(path, DIMENSIONS))}
    (path / "zarr.json").write_text(json.dumps(root))


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY // 5, marks=pytest.mark.slow)])
def test_metadata_of_stores(examples, sound, tmp_path):
    """A random value of the metadata is replaced, and the checksum is updated where the store can still be read."""
    found = Counter()

    @tried(examples)
    @given(data=st.data())
    def check(data):
        out = tmp_path / "a.zarr"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(sound, out)
        path = out / data.draw(st.sampled_from(["score", "done", "order", "sample", "loss", "."])) / "zarr.json"
        whole = at = json.loads(path.read_text())
        while True:
            key = data.draw(st.sampled_from(list(at) if isinstance(at, dict) else list(range(len(at)))))
            if isinstance(at[key], (dict, list)) and at[key] and data.draw(st.booleans()):
                at = at[key]
                continue
            at[key] = data.draw(plain | st.sampled_from([10**15, [10**15], [10**15, 2, 4], 2**31, "pickle"]))
            break
        path.write_text(json.dumps(whole))
        with contextlib.suppress(Exception):
            reseal(out)
        outcome(found, lambda: open_scores(out))

    check()
    print(f"metadata of stores: {found.total()} tried, {dict(found)}")
    assert found["refused"]


def test_a_store_in_the_format_that_knows_pickles_is_not_opened(tmp_path, monkeypatch):
    from numcodecs.pickles import Pickle

    monkeypatch.setattr(Pickle, "decode", lambda *_: pytest.fail("a pickle was read"))
    path = tmp_path / "a.zarr"
    array = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "fill_value": "", "order": "C"}
    array |= {"filters": [{"id": "vlen-utf8"}], "compressor": {"id": "pickle", "protocol": 5}}
    for name in DIMENSIONS:
        (path / name).mkdir(parents=True)
        (path / name / ".zarray").write_text(json.dumps(array))
        (path / name / "0").write_bytes(b"cos\nsystem\n(S'exit'\ntR.")
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".zattrs").write_text('{"headnb_format": 1}')
    with pytest.raises(HeadnbError, match="is not a store of head scores"):
        open_scores(path)


def test_a_small_store_that_says_it_is_large_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "a.zarr"
    score_into(path)
    for name in DIMENSIONS:
        about = json.loads((path / name / "zarr.json").read_text())
        about["shape"] = [10**9, *about["shape"][1:]]
        (path / name / "zarr.json").write_text(json.dumps(about))
    with pytest.raises(HeadnbError, match=r"1000000000 × 2 × 4 scores are too many for its files"):
        open_scores(path)


def test_few_lines_of_yaml_do_not_become_billions_of_values():
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    with pytest.raises(HeadnbError, match=f"has more than {MAX_VALUES} values with its aliases expanded"):
        parse_yaml(laughs, "suite.yaml")
    with pytest.raises(HeadnbError, match="aliases expanded"):
        parse_yaml("a: &a [*a]", "suite.yaml")
    assert parse_yaml("a: &a [1]\nb: *a", "suite.yaml") == {"a": [1], "b": [1]}


@pytest.mark.parametrize("text", ["[]", '{"format": 1}', "[" * 100_000, '{"format": 1, "tasks": 3, "model": "m"}', ""])
def test_a_run_folder_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(HeadnbError) as refused:
        _ = Run(tmp_path).settings
    assert "\n" not in str(refused.value)


@tried(FEW)
@given(value=plain)
def test_notebook_parameters_stay_values(value):
    """papermill writes every parameter into a notebook as a literal without calls, for any string."""
    from papermill.translators import PythonTranslator

    written = PythonTranslator.codify({"x": value})
    found = [node.value for node in ast.parse(written).body if isinstance(node, ast.Assign)]
    assert len(found) == 1
    calls = [ast.unparse(node) for node in ast.walk(found[0]) if isinstance(node, ast.Call)]
    assert set(calls) <= {"float('nan')", "float('inf')", "float('-inf')"}
