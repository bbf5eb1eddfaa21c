"""The ``m2p-sandbox`` command as a process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest
import requests

from airflow_provider_m2p.sandbox import SandboxServer

COMMAND = (sys.executable, "-m", "airflow_provider_m2p.sandbox")


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_stops_cleanly(stop: signal.Signals) -> None:
    with subprocess.Popen(
        [*COMMAND, "--port", "0", "--products", "5", "--extra-tenants", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        body = {"clientId": "tenant-002-viewer", "clientSecret": "tenant-002-viewer-secret"}
        answer = requests.post(f"{url}/auth/token", json={**body, "grantType": "client_credentials"}, timeout=30)
        assert answer.status_code == 200
        process.send_signal(stop)
        rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest, errors) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate-limit", "many"], "a rate limit looks like 600/min or 5/s, not 'many'"),
        (["--products", "-1"], "products must be at least 0, not -1"),
        (["--allow-ip", "10.0.0.0/99"], "10.0.0.0/99"),
    ],
)
def test_bad_options_are_refused(arguments: list[str], message: str) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_port_in_use() -> None:
    with SandboxServer(products=1) as box:
        port = box.url.rpartition(":")[2]
        done = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "in use" in done.stderr
