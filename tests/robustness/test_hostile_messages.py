"""Untrusted names, templates and files in messages: each message is one printable line of limited length.

The larger numbers of cases are slow: `make robustness`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections import Counter

import pytest
import yaml
from headnb import HeadnbError, load_task, open_scores
from headnb.cli.output import echo
from headnb.display.encodings import encodable
from headnb.display.grid_text import _LEVEL_SHADES, _SIGNED_SHADES
from headnb.display.live import LiveGrid
from headnb.engine.tokenization import encode_task
from headnb.errors import LONGEST_MESSAGE, first_line, one_line
from headnb.experiments.folder import Run, Settings
from headnb.stats.scoring_revision import REVISION, warn_of_revision
from headnb.storage.files import read_json
from headnb.suite import records, tables
from headnb.suite.definition import read_suite
from headnb.suite.job import Outcome
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bounded import run_bounded
from hostile_names import NAMES
from paths import FIXTURES
from suites import graph, write_suite
from tiny import tiny_tokenizer

MORE = [
    "\0",
    "a\0b",
    "\ud800",
    "x" * 100_000,
    "\x1b]8;;http://x\x1b\\click\x1b]8;;\x1b\\",
    "a\n[1/1] ✓ all done",
    " \n ",
]
HOSTILE = [*NAMES, *MORE]
CHAT = {"messages": [{"role": "user", "content": "2 + 2"}, {"role": "assistant", "content": "4"}]}


def said(call):
    """Message of the error that `call` must raise."""
    with pytest.raises(HeadnbError) as refused:
        call()
    return [str(refused.value)]


def template(name, folder):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = f"{{{{ raise_exception({json.dumps(name)}) }}}}"
    return said(lambda: encode_task(load_task([CHAT]), tokenizer))


def role(name, folder):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ nothing.at.all }}"
    row = {"messages": [{"role": name or "x", "content": "2 + 2"}, CHAT["messages"][1]]}
    return said(lambda: encode_task(load_task([row]), tokenizer))


def suite(name, folder, **profile):
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump({"notebooks": {}, "profiles": {name: profile}}), encoding="utf-8")
    return path


def profile(name, folder):
    name = name.encode(errors="replace").decode()
    return said(lambda: read_suite(suite(name, folder), name)) + said(lambda: read_suite(suite(name, folder), "demo"))


def task(name, folder):
    return said(lambda: load_task(name or "x"))


def columns(name, folder):
    return said(lambda: load_task([{name: 1, "question": "x"}]))


def run_settings(name, folder):
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    Run.create(run, Settings(name.encode(errors="replace").decode(), ("gcd",)))
    return said(lambda: Run.create(run, Settings("tiny", ("gcd",)))) + said(lambda: Run(run).samples.scored(name))


def path(name, folder):
    name = name.translate({0: None, ord("/"): None}).encode(errors="replace")
    file = folder / os.fsdecode(name[:60] + b"\xff")
    file.write_text("no JSON")
    return said(lambda: read_json(file, "01")) + said(lambda: open_scores(file))


def status(name, folder):
    """Status lines of an untrusted run folder with failed notebooks."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    nodes = graph(write_suite(folder), out)
    stored = name.encode(errors="replace").decode()
    for node in nodes:
        records.write_manifest(node, "failed", error=stored, seconds=1.0)
    found = records.records(nodes, running=False)
    text = tables.status_table(nodes, found)
    assert len(text.splitlines()) == 2 + len(nodes) + sum(one.state == "failed" for one in found.values()) + 1
    return [*text.splitlines(), tables.outcome_line(nodes[0], Outcome("failed", 1.0, name), 1, 1)]


def progress(name, folder, capsys):
    live = LiveGrid(name)
    live.message(name)
    live.discard()
    live = LiveGrid(name)
    live._close(name)
    return re.split(r"\r|\n|\x1b\[A", capsys.readouterr().err)  # control characters of tqdm


def warning(name, folder):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_revision(name, {REVISION: 0})
    return [str(one.message) for one in caught]


def command(name, folder, capsys):
    echo(f"wrote {one_line(name)}", fg="red")
    return capsys.readouterr().out.splitlines()


SOURCES = [template, role, profile, task, columns, run_settings, path, status, progress, warning, command]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
def test_a_name_of_a_stranger_is_printable_wherever_it_is_said(source, tmp_path, capsys):
    more = (capsys,) if source in {progress, command} else ()
    lines = [line for name in HOSTILE for line in source(name, tmp_path, *more)]
    assert len(lines) >= len(HOSTILE)
    for line in lines:
        assert line.isprintable(), repr(line[:200])
        assert len(line) <= LONGEST_MESSAGE + 100
    print(f"{source.__name__}: {len(HOSTILE)} names tried, {len(lines)} lines, each printable and bounded")


@pytest.mark.parametrize("examples", [100, pytest.param(20_000, marks=pytest.mark.slow)])
def test_any_text_becomes_one_line_and_plain_text_stays_what_it_is(examples):
    found = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.text(st.characters(codec=None), max_size=3000), st.integers(20, 400))
    def one(text, most):
        line = one_line(text, most)
        assert line.isprintable()
        assert len(line) <= most
        assert one_line(line, most) == line
        whole = str(HeadnbError(text))
        assert whole.isprintable()
        assert len(whole) <= LONGEST_MESSAGE
        assert first_line(ValueError(text)).isprintable()
        assert encodable(text.encode(errors="replace").decode(), open_as("ascii")).isascii()
        plain = text.isprintable() and text == text.strip() and len(text) <= most
        assert not plain or line == text
        found["plain" if plain else "cleaned"] += 1

    one()
    print(f"texts in a line: {found.total()} tried, {dict(found)}")
    assert min(found.values()) > 0


def test_shades_and_signs_stay_apart_in_ascii():
    for letters in (_LEVEL_SHADES, _SIGNED_SHADES, "".join(tables.SIGNS.values())):
        assert len(set(encodable(letters, open_as("ascii")))) == len(letters)


def open_as(encoding):
    return type("Stream", (), {"encoding": encoding})()


def test_a_class_whose_text_fails_is_named():
    class Broken:
        def __str__(self):
            raise RuntimeError("no text")

    assert one_line(Broken()) == "Broken"
    assert first_line(ValueError()) == "ValueError"


def test_what_to_do_stays_at_the_end_of_a_long_message():
    message = str(HeadnbError(f"{'x' * 10**6} is damaged; remove the folder, and the next call makes it again"))
    assert message.startswith("xxx")
    assert message.endswith("remove the folder, and the next call makes it again")


MANY_KEYS = """
import json, sys
from pathlib import Path
from headnb import HeadnbError, load_task
from headnb.errors import unknown_name
from headnb.suite.definition import read_suite
def say(call):
    try:
        call()
    except HeadnbError as error:
        print(len(str(error)), str(error).isprintable())
row = {f"column {number}": number for number in range(200_000)}
say(lambda: load_task([row]))
say(lambda: load_task([row], columns={"prompt": "{nothing}", "completion": "{column 1}"}))
print(len(str(unknown_name("name", "b" * 100_000, ["ab" * 50_000] * 50))), True)
print(len(str(unknown_name("column", "column", row))), True)
"""


def test_large_rows_and_long_names_are_refused_in_bounded_time_and_a_bounded_line():
    ended = run_bounded(MANY_KEYS, seconds=40)
    assert ended.returncode == 0, ended.stderr[-2000:]
    lines = [line.split() for line in ended.stdout.decode().splitlines()]
    assert len(lines) == 4
    assert all(int(length) <= LONGEST_MESSAGE and printable == "True" for length, printable in lines)


COMMANDS = """
import sys
from headnb.cli.main import main
for words in {commands!r}:
    sys.argv = ["headnb", *words]
    try:
        main()
    except SystemExit as ended:
        print(f"[{{ended.code or 0}}]", flush=True)
"""
GRID = str(FIXTURES / "payloads" / "valid" / "difference.heads.json")


QUICK = [["tasks"], ["models"], ["show", GRID], ["show", "é\x1b[2J→✓.heads.json"], ["suite", "plan", "--profile", "✓"]]
HEAVY = [["methods"], ["doctor"], ["suite", "plan"], ["suite", "status"], ["score", "smollm2-135m", "日本"]]


@pytest.mark.parametrize("commands", [QUICK, pytest.param(QUICK + HEAVY, marks=pytest.mark.slow)], ids=["few", "all"])
@pytest.mark.parametrize(
    "encoding", ["latin-1", *(pytest.param(other, marks=pytest.mark.slow) for other in ("ascii", "cp1252", "koi8-r"))]
)
def test_every_command_writes_what_the_stream_can_show(encoding, commands):
    ended = run_bounded(
        COMMANDS.format(commands=commands), seconds=300, PYTHONIOENCODING=encoding, HF_HUB_OFFLINE="1", COLUMNS="200"
    )
    assert ended.returncode == 0, ended.stderr.decode(encoding)[-2000:]
    shown, errors = ended.stdout.decode(encoding), ended.stderr.decode(encoding)
    codes = re.findall(r"^\[(\d)\]$", shown, re.MULTILINE)
    assert "".join(codes) == "00011" + ("00001" if len(commands) > len(QUICK) else "")
    assert "Traceback" not in errors
    assert all(line.isprintable() for line in (shown + errors).splitlines())
