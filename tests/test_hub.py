"""Reachability of the hub, and offline mode that ends with its block."""

from __future__ import annotations

import http.server
import socket
import threading

import pytest
from headnb import HeadnbError, hub


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(502 if self.path == "/gateway" else 404)
        self.end_headers()

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"half")

    def log_message(self, *_):
        pass


def test_a_hub_that_answers_is_reachable_and_one_that_is_silent_is_not(monkeypatch):
    server = http.server.HTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert hub.reachable(f"http://127.0.0.1:{server.server_port}")
    assert not hub.reachable(f"http://127.0.0.1:{server.server_port}/gateway")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not hub.reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.2)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert not hub.reachable(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("no_network")
def test_offline_mode_ends_with_its_block():
    from huggingface_hub import constants

    def use():
        with hub.offline_unless_reachable() as online:
            assert not online
            assert constants.HF_HUB_OFFLINE

    before = constants.HF_HUB_OFFLINE
    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(ValueError, match="inside"), hub.offline_unless_reachable():
        raise ValueError("inside")
    assert before == constants.HF_HUB_OFFLINE


def test_a_download_that_ends_early_is_refused_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(hub, "reachable", lambda _: True)
    server = http.server.HTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(HeadnbError, match="cannot fetch"):
        hub.download(f"http://127.0.0.1:{server.server_port}/rows.jsonl")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    server.shutdown()
    server.server_close()
