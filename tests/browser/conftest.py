"""One Jupyter server and one browser for all browser tests.

The server runs JupyterLab and Notebook 7 in temporary folders, with the front end of the imported headnb. The browser
is the Chromium that HEADNB_CHROMIUM names, else Debian's, else Playwright's. Without a browser the tests fail; they are
not skipped.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import headnb
import pytest
from nbformat.sign import NotebookNotary
from playwright.sync_api import expect, sync_playwright

from jupyter_pages import Jupyter, quiet_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Page

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=120_000)  # milliseconds, for a busy machine
STARTED_WITHIN = 600  # seconds; a quiet machine needs five


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")  # with a longer scope its event loop would break later tests that need their own
def browser() -> Iterator[Browser]:
    debian = Path("/usr/bin/chromium")
    path = os.environ.get("HEADNB_CHROMIUM") or (str(debian) if debian.exists() else None)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


def new_context(browser: Browser) -> BrowserContext:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(120_000)
    return context


@pytest.fixture(scope="package")
def jupyter_context(browser: Browser) -> Iterator[BrowserContext]:
    """The context of all pages of the server, which therefore load its scripts from a cache."""
    with new_context(browser) as context:
        yield context


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A new page; an error in headnb's scripts fails the test, but an error in Jupyter's scripts does not."""
    with_server = "jupyter" in request.fixturenames
    context = request.getfixturevalue("jupyter_context") if with_server else new_context(browser)
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error.stack)))
    yield opened
    (opened if with_server else context).close()
    assert not [error for error in errors if "/static/lab/" not in error and "/static/notebook/" not in error]


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory, kernel_folder: Path) -> Iterator[Jupyter]:
    """The server, with methods to save and open notebooks; its kernels are forks of one process."""
    home = tmp_path_factory.mktemp("jupyter")
    token, port = secrets.token_hex(16), _free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))},
        **{f"JUPYTER_{name.upper()}_DIR": str(home / name) for name in ("data", "config", "runtime")},
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_PATH": os.pathsep.join(map(str, (_share(home), kernel_folder))),
        "JUPYTER_TOKEN": token,
    }
    for folder in (home / "data", home / "files"):
        folder.mkdir()
    quiet_settings(home / "settings")
    notary = NotebookNotary(data_dir=str(home / "data"))
    server = Jupyter(f"http://127.0.0.1:{port}", token, home / "files", notary, environment)
    options = [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={server.files}"]
    options += [
        "--allow-root",
        "--no-browser",
        "--expose-app-in-browser",
        "--JupyterNotebookApp.expose_app_in_browser=True",
    ]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=log
        )
        try:
            _wait(process, f"{server.address}/api?token={token}", home / "log")
            yield server
        finally:
            process.terminate()
            process.wait(120)


def _share(home: Path) -> Path:
    """A Jupyter path with the front end built in a source checkout; an installed headnb has its own."""
    built = Path(headnb.__file__).parent / "labextension"
    if built.is_dir():
        extensions = home / "share" / "labextensions"
        extensions.mkdir(parents=True)
        (extensions / "headnb").symlink_to(built)
    return home / "share"


def _free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + STARTED_WITHIN
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=20).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")
