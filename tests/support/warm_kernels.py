"""Jupyter kernels forked from one warm process, so that a test does not wait for the import of torch.

`kernelspec(folder)` starts the warm process and writes a kernelspec `python3` that uses it. Jupyter starts a small
client, which requests a fork over a socket, passes its standard streams to the fork, forwards signals, and ends with
the exit code or signal of the kernel. If the client is killed, its kernel is killed too. The warm process ends with the
process that started it, also if that is killed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRELOADED = (
    "bokeh.plotting",
    "datasets",
    "ipykernel.kernelapp",
    "peft",
    "torch",
    "transformers.models.llama.modeling_llama",
    "trl",
    "headnb",
    "headnb.experiments.folder",
    "headnb.scoring.run",
    "headnb.tuning.finetuning",
)
FORWARDED = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def kernelspec(folder: Path) -> Iterator[None]:
    """Run the warm process and write its kernelspec in `folder`, which must be on JUPYTER_PATH."""
    address = folder / "socket"
    spec = folder / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    command = [sys.executable, "-S", __file__, "start", str(address), "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    ready, writer = os.pipe()
    command = [sys.executable, __file__, "serve", str(address), str(writer)]
    with subprocess.Popen(command, pass_fds=[writer], stdin=subprocess.PIPE) as server:
        os.close(writer)
        with os.fdopen(ready) as pipe:
            assert pipe.read() == "ready", "a preloaded module cannot be imported"
        try:
            yield
        finally:
            server.kill()


def serve(address: str, ready: int) -> None:
    """The warm process: import the modules that kernels need, and fork a supervisor for each connection."""
    for name in PRELOADED:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    gc.freeze()  # kernels that look for garbage would copy these modules' memory
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are not waited for
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    os.write(ready, b"ready")
    os.close(ready)
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:  # it ends with the starting process
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            supervise(connection)
        connection.close()


def supervise(connection: socket.socket) -> None:
    """Fork one kernel, forward the signals of its client, and send the client the exit code."""
    message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    request = json.loads(message)
    supervisor = os.getpid()
    kernel = os.fork()
    if kernel == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        run_kernel(request, supervisor)
    with selectors.DefaultSelector() as waiting:
        ended = os.pidfd_open(kernel)
        waiting.register(ended, selectors.EVENT_READ)
        waiting.register(connection, selectors.EVENT_READ)
        while not any(key.fd == ended for key, _ in waiting.select()):
            sent = connection.recv(1)
            with contextlib.suppress(ProcessLookupError):
                os.kill(kernel, sent[0] if sent else signal.SIGKILL)
            if not sent:
                break
    _, status = os.waitpid(kernel, 0)
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def run_kernel(request: dict[str, Any], supervisor: int) -> None:
    """Run a kernel with the environment, arguments and folder of the client."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[0] = ""  # was the folder of this script
    sys.argv = ["ipykernel_launcher.py", f"--IPKernelApp.parent_handle={supervisor}", *request["arguments"]]
    for number in FORWARDED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin, sys.stdout, sys.stderr = (open(number, mode) for number, mode in ((0, "r"), (1, "w"), (2, "w")))  # noqa: SIM115, PTH123
    from ipykernel.kernelapp import IPKernelApp

    try:
        IPKernelApp.launch_instance()
    finally:
        os._exit(0)


def start(address: str, *arguments: str) -> None:
    """The client, which Jupyter treats as the kernel."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    request = {"folder": os.getcwd(), "environment": dict(os.environ), "arguments": arguments}  # noqa: PTH109
    for number in FORWARDED:
        signal.signal(number, lambda sent, _: connection.sendall(bytes([sent])))
    socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
    code = json.loads(connection.recv(100) or b"1")
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    action, *arguments = sys.argv[1:]
    if action == "serve":
        serve(arguments[0], int(arguments[1]))
    else:
        start(*arguments)
