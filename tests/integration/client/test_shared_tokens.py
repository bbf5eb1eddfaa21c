"""Real processes that share tokens by the disk, as the tasks of a worker do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from airflow_provider_m2p.client import ClientSettings, M2PClient, token_cache

SETTINGS = """
import json, multiprocessing, os, sys, threading, time
from airflow_provider_m2p.client import ClientSettings, M2PClient, token_cache

settings = ClientSettings.from_connection(
    conn_id="m2p_test", host=sys.argv[1], login="acme-admin", password="a very secret secret",
    extra={"tenant_id": "ACME_CORP", "token_cache": sys.argv[2]},
)
"""

FIFTY_AT_ONCE = (
    SETTINGS
    + """
def task(start, results):
    start.wait()
    with M2PClient(settings) as client:
        results.put(client.get_token())

context = multiprocessing.get_context("fork")
start, results = context.Event(), context.SimpleQueue()
# What all of them import is imported once, so that they arrive together.
import airflow_provider_m2p.client.client, cryptography.hazmat.primitives.ciphers.aead, filelock
tasks = [context.Process(target=task, args=(start, results)) for _ in range(50)]
for process in tasks:
    process.start()
start.set()
print(json.dumps([results.get() for _ in tasks]))
for process in tasks:
    process.join()
"""
)

FORK_WHILE_BUSY = (
    SETTINGS
    + """
client = M2PClient(settings)
client.get_token()
thread = threading.Thread(target=lambda: (token_cache._slots_lock.acquire(), time.sleep(60)), daemon=True)
thread.start()
while not token_cache._slots_lock.locked():
    time.sleep(0.01)
if os.fork() == 0:
    with M2PClient(settings) as other:
        print(json.dumps([other.get_token()]), flush=True)
    os._exit(0)
os.wait()
"""
)

DIE_WHILE_FETCHING = (
    SETTINGS
    + """
M2PClient(settings).get_token()
"""
)


class TokenServer:
    """Counts token calls, and holds them back while ``wait`` is set."""

    def __init__(self) -> None:
        self.calls = 0
        self.arrived, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                server.calls += 1
                number = server.calls
                server.arrived.set()
                server.go_on.wait(30)
                # As slow as a platform far away: all fifty are here before the first has its answer.
                time.sleep(0.2)
                body = json.dumps({"access_token": f"token-{number}", "expires_in": 3600}).encode()
                try:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[TokenServer]:
    server = TokenServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("M2P_CACHE_DIR", str(tmp_path))
    token_cache.clear()
    return tmp_path / "airflow-provider-m2p"


def run(code: str, server: TokenServer, cache: str = "disk") -> list[str]:
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code, server.url, cache]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    assert done.returncode == 0
    tokens: list[str] = json.loads(done.stdout)
    return tokens


def test_fifty_processes_make_one_call(server: TokenServer, own_cache: Path) -> None:
    assert run(FIFTY_AT_ONCE, server) == ["token-1"] * 50
    assert server.calls == 1
    assert len(list(own_cache.glob("*.token"))) == 1
    assert list(own_cache.glob("*.new")) == []
    # Those that start later find it, too.
    assert run(FIFTY_AT_ONCE.replace("range(50)", "range(3)"), server) == ["token-1"] * 3
    assert server.calls == 1


def test_without_the_disk_each_makes_its_own(server: TokenServer) -> None:
    assert len(set(run(FIFTY_AT_ONCE.replace("range(50)", "range(5)"), server, "process"))) == 5
    assert server.calls == 5


@pytest.mark.parametrize(("cache", "token"), [("process", "token-2"), ("disk", "token-1")])
def test_a_fork_is_a_process_of_its_own(server: TokenServer, cache: str, token: str) -> None:
    assert run(FORK_WHILE_BUSY, server, cache) == [token]


def test_a_process_killed_while_it_fetches_holds_nobody_up(server: TokenServer) -> None:
    server.go_on.clear()
    dying = subprocess.Popen([sys.executable, "-c", DIE_WHILE_FETCHING, server.url, "disk"])
    assert server.arrived.wait(60)
    dying.send_signal(signal.SIGKILL)
    dying.wait(10)
    server.go_on.set()
    settings = ClientSettings.from_connection(
        conn_id="m2p_test",
        host=server.url,
        login="acme-admin",
        password="a very secret secret",
        extra={"tenant_id": "ACME_CORP", "token_cache": "disk"},
    )
    started = time.monotonic()
    with M2PClient(settings) as client:
        assert client.get_token() == "token-2"
    assert time.monotonic() - started < 10
