"""Imports in the background: order, waiting, errors, Ctrl-C, forks and exit.

`tests/support/rival_imports.py` imports torch and transformers beside other imports in many processes.
"""

from __future__ import annotations

import builtins
import gc
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from headnb import _background_imports
from headnb._background_imports import BackgroundImports
from IPython.core.interactiveshell import InteractiveShell

from rival_imports import run_trials

FORK = """
import os, signal, sys, time
from headnb import _background_imports
_background_imports.start(["slow"])
while "slow" not in sys.modules:
    time.sleep(0.01)
if not os.fork():
    signal.alarm(30)  # a lock of the thread, which a child does not have, would never be released
    import slow
    os._exit(slow.whole)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
EXIT = """
import sys, time
from headnb import _background_imports
_background_imports.start(["slow", "later"])
while "slow" not in sys.modules:
    time.sleep(0.01)
"""
EXTENSION = """
import sys, time
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance().run_cell("%load_ext headnb")
while "torch" not in sys.modules:
    time.sleep(0.01)
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Function that writes a module; modules that wait for `events.go` find it in builtins."""
    monkeypatch.syspath_prepend(tmp_path)
    events = SimpleNamespace(go=threading.Event(), log=[])
    monkeypatch.setattr(builtins, "events", events, raising=False)
    names = []

    def write(name: str, code: str) -> str:
        (tmp_path / f"{name}.py").write_text(code)
        names.append(name)
        return name

    yield SimpleNamespace(write=write, events=events, folder=tmp_path)
    events.go.set()
    for name in names:
        sys.modules.pop(name, None)


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_modules_are_imported_in_order_and_later_ones_only_while_nobody_waits(modules):
    names = [modules.write(name, f"events.log.append({name!r}); events.go.wait()") for name in ("one", "two", "three")]
    imports = BackgroundImports(names[:2], names[2:])
    imports.start()
    until(lambda: "one" in modules.events.log)
    threading.Timer(0.1, modules.events.go.set).start()
    imports.wait()
    assert modules.events.log == ["one", "two"]
    assert "three" not in sys.modules


def test_without_a_wait_the_later_modules_are_imported_too(modules):
    modules.events.go.set()
    imports = BackgroundImports([modules.write("one", "")], [modules.write("two", "")])
    imports.start()
    until(imports._done.is_set)
    assert {"one", "two"} <= set(sys.modules)


def test_nothing_is_imported_while_modules_are_added(modules):
    imports = BackgroundImports([modules.write("one", "events.log.append('one')")])
    sys.modules.update({f"added{number}": sys for number in range(2)})
    imports.start()
    try:
        for number in range(20):
            sys.modules[f"added{number}"] = sys
            time.sleep(_background_imports.QUIET_SECONDS / 5)
            before = list(modules.events.log)
        assert before == [] or number == 19
    finally:
        for number in range(20):
            sys.modules.pop(f"added{number}", None)
    imports.wait()
    assert modules.events.log == ["one"]


def test_an_error_is_raised_by_the_import_in_the_foreground_alone(modules, capfd):
    name = modules.write("broken", "raise ValueError('no such library')")
    imports = BackgroundImports([name, modules.write("sound", "")])
    imports.start()
    imports.wait()
    assert "sound" in sys.modules
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ValueError, match="no such library"):
        importlib.import_module(name)


def test_the_garbage_collector_rests_during_an_import_and_runs_afterwards(modules):
    imports = BackgroundImports([modules.write("one", "import gc; events.log.append(gc.isenabled())")])
    imports.start()
    imports.wait()
    assert modules.events.log == [False]
    assert gc.isenabled()


def test_control_c_ends_the_wait(modules):
    name = modules.write("slow", "events.log.append('slow'); events.go.wait()")
    imports = BackgroundImports([name])
    imports.start()
    until(lambda: modules.events.log)
    ended = threading.Event()

    def interrupt():
        while not ended.wait(1):  # an interrupt inside a finalizer is lost
            os.kill(os.getpid(), signal.SIGINT)  # the system sends it to the main thread

    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            imports.wait(300)
    finally:
        ended.set()
    modules.events.go.set()
    imports.wait()
    assert importlib.import_module(name) is sys.modules[name]


def test_a_module_that_waits_for_its_own_thread_does_not_block(modules, monkeypatch):
    name = modules.write("own", "from headnb import _background_imports; _background_imports.wait()")
    imports = BackgroundImports([name])
    monkeypatch.setattr(_background_imports, "_started", [imports])
    imports.start()
    imports.wait(60)
    assert name in sys.modules


def test_the_setting_turns_the_thread_off(modules, monkeypatch):
    monkeypatch.setenv(_background_imports.SETTING, "0")
    monkeypatch.setattr(_background_imports, "_started", [])
    _background_imports.start([modules.write("one", "")])
    assert _background_imports._started == []


def run(code: str, folder) -> subprocess.CompletedProcess:
    quiet = ["-W", "ignore:This process:DeprecationWarning"]  # Python 3.12 warns of every fork beside a thread
    return subprocess.run([sys.executable, *quiet, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_a_forked_process_can_import_what_the_thread_was_importing(modules):
    modules.write("slow", "import time; time.sleep(0.5); whole = 7")
    done = run(FORK, modules.folder)
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_exit_waits_for_one_module_and_says_nothing(modules):
    modules.write("slow", "import time; time.sleep(0.3); open('slow.txt', 'w').close()")
    modules.write("later", "open('later.txt', 'w').close()")
    done = run(EXIT, modules.folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (modules.folder / "slow.txt").exists()
    assert not (modules.folder / "later.txt").exists()


def test_a_kernel_that_ends_while_torch_is_imported_says_nothing(tmp_path):
    done = run(EXTENSION, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def waits(monkeypatch):
    """The calls of `wait` by cells of an IPython shell with the extension."""
    calls = []
    monkeypatch.setattr(_background_imports, "start", lambda *_, **__: None)
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "headnb")
    monkeypatch.setattr(_background_imports, "wait", lambda: calls.append("wait"))
    yield SimpleNamespace(shell=shell, calls=calls)
    shell.run_line_magic("unload_ext", "headnb")
    InteractiveShell.clear_instance()


@pytest.mark.parametrize(
    ("cell", "count"),
    [
        ("import one", 1),
        ("x = 1\nif x:\n    from one import y", 1),
        ("import importlib\nimportlib.import_module('one')", 1),
        ("%load_ext autoreload", 1),
        ("import numpy as np, sys\nfrom json import dumps", 0),
        ("x = 1 + 1", 0),
    ],
)
def test_a_cell_that_imports_a_package_waits_once(waits, modules, cell, count):
    modules.write("one", "y = 2")
    assert waits.shell.run_cell(cell).success
    assert waits.calls == ["wait"] * count


def test_control_c_in_the_wait_of_a_cell_ends_the_cell(waits, modules, monkeypatch):
    modules.write("one", "")

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(_background_imports, "wait", interrupted)
    assert isinstance(waits.shell.run_cell("import one").error_in_exec, KeyboardInterrupt)
    assert "one" not in sys.modules


def test_no_cell_waits_after_the_extension_is_unloaded(waits, modules):
    modules.write("one", "")
    waits.shell.run_line_magic("unload_ext", "headnb")
    assert waits.shell.run_cell("import one").success
    assert waits.calls == []
    waits.shell.run_line_magic("load_ext", "headnb")


@pytest.mark.slow
def test_rival_imports_break_nothing():
    assert run_trials(200) == {}
