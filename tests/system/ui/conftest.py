"""A whole Airflow on loopback, Debian's Chromium without a screen, and the sandbox between whom they talk."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import requests
from playwright.sync_api import BrowserContext, Page, ViewportSize, expect, sync_playwright

from airflow_provider_m2p.sandbox.server import SandboxServer
from tests.connections import m2p_connection
from tests.system.conftest import DAGS
from tests.system.ui.connections_page import ConnectionsPage
from tests.system.ui.rest import Rest
from tools.local import airflow, airflow_environment

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: What the machine may take for one step, however slow it is. Nothing waits that long unless it fails.
PATIENCE = 180.0
#: A client that has a token and a tenant, but no role that may read.
GUEST = "acme-guest"
USUAL_SIZE: ViewportSize = {"width": 1280, "height": 900}

Screenshot: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Airflow:
    """
    A running Airflow.

    :param url: of its UI and its API.
    :param home: everything it writes.
    :param warehouse: the SQLite file behind the connection ``warehouse``.
    """

    url: str
    home: Path
    warehouse: Path


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    """The platform, one for all tests of a module."""
    with SandboxServer() as server:
        server.add_client(GUEST, "ACME_CORP", "Guest")
        yield server


@pytest.fixture(scope="module")
def secrets(sandbox: SandboxServer) -> list[bytes]:
    """The client secrets that the tests use, right or wrong, and how every token begins."""
    header = sandbox.token().partition(".")[0]
    return [b"acme-operator-secret", b"acme-guest-secret", b"not-the-secret", header.encode()]


@pytest.fixture(scope="module")
def running_airflow(
    sandbox: SandboxServer, secrets: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow]:
    """
    API server, scheduler and DAG processor, on a metadata database of their own, every user an admin.

    Afterwards, no file they wrote may hold a secret: logs, databases, caches.
    """
    home = tmp_path_factory.mktemp("airflow")
    dags = shutil.copytree(Path(__file__).parent / "dags", home / "dags")
    for dag in ("m2p_products_sync", "m2p_products_reviewed"):
        shutil.copy(DAGS / f"{dag}.py", dags)
    watching = (DAGS / "m2p_products_watch.py").read_text()
    (dags / "m2p_products_watch.py").write_text(watching.replace("m2p_default", "m2p_json"))
    port = free_port()
    here = Airflow(f"http://127.0.0.1:{port}", home, home / "warehouse.db")
    environment = {
        **airflow_environment(home),
        "AIRFLOW__API__BASE_URL": here.url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__PARALLELISM": "3",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        # The API server may be slow to answer the first task, when all of Airflow starts at once on few cores.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": str(PATIENCE),
        "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(here.warehouse)}),
        # What m2p_default is in the form, in the two notations that need no UI.
        "AIRFLOW_CONN_M2P_JSON": m2p_connection(sandbox.url, "acme-operator"),
        "AIRFLOW_CONN_M2P_URI": (
            f"m2p://acme-operator:acme-operator-secret@http%3A%2F%2F{sandbox.url.removeprefix('http://')}"
            "/?tenant_id=ACME_CORP&page_size=50"
        ),
    }
    log = home / "airflow.log"
    with log.open("wb") as output, ExitStack() as running:
        subprocess.run(airflow("db", "migrate"), env=environment, stdout=output, stderr=output, check=True)
        for command in (["api-server"], ["scheduler", "--skip-serve-logs"], ["dag-processor"]):
            running.enter_context(process_group(airflow(*command), env=environment, stdout=output, stderr=output))
        wait_until_up(here.url, log)
        yield here
    files = [path for path in home.rglob("*") if path.is_file()]
    assert [path for path in files if has_secret(path.read_bytes(), secrets)] == []


@pytest.fixture
def rest(running_airflow: Airflow) -> Rest:
    """Airflow's REST API."""
    return Rest(running_airflow.url, PATIENCE)


@pytest.fixture(scope="module")
def browser(
    running_airflow: Airflow, secrets: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrowserContext]:
    """A new browser. Afterwards, nothing that Airflow ever told it may have held a secret."""
    folder = tmp_path_factory.mktemp("browser")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder / "profile",
            executable_path=CHROMIUM,
            args=FLAGS,
            base_url=running_airflow.url,
            viewport=USUAL_SIZE,
            color_scheme="light",
            reduced_motion="reduce",
            locale="en-US",
            timezone_id="UTC",
            record_har_path=folder / "answers.har",
            record_har_url_filter="**/api/v2/**",
        )
        context.set_default_timeout(PATIENCE * 1000)
        expect.set_options(timeout=PATIENCE * 1000)
        yield context
        context.close()
    entries = json.loads((folder / "answers.har").read_text())["log"]["entries"]
    answers = [entry["response"]["content"].get("text", "") for entry in entries]
    assert answers
    assert not any(has_secret(answer.encode(), secrets) for answer in answers)


@pytest.fixture(scope="module")
def page(browser: BrowserContext) -> Page:
    """The tab that all tests use: loading the UI anew is most of the work."""
    return browser.pages[0]


@pytest.fixture
def connections(page: Page) -> ConnectionsPage:
    """*Admin > Connections*."""
    return ConnectionsPage(page)


@pytest.fixture
def screenshot(page: Page, tmp_path: Path) -> Screenshot:
    """
    Take a picture of the tab.

    The documentation's pictures are made anew by ``SCREENSHOTS=docs/images make test ARGS="tests/system/ui"``.
    """
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)

    def take(name: str) -> None:
        page.screenshot(path=folder / f"{name}.png", animations="disabled")

    return take


def free_port() -> int:
    """Return a port that is free and, outside the range that the system hands out, stays so."""
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def process_group(command: list[str], **options: Any) -> Iterator[None]:
    """Run a command, and end it with everything it started."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_up(url: str, log: Path) -> None:
    """Return once the API answers. The other parts may still be on their way: what needs them waits for them."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(requests.ConnectionError, requests.Timeout):
            if requests.get(f"{url}/api/v2/version", timeout=5).ok:
                return
        time.sleep(0.2)
    pytest.fail(f"Airflow did not start:\n{log.read_text()[-5000:]}")


def has_secret(content: bytes, secrets: list[bytes]) -> bool:
    return any(secret in content for secret in secrets)
