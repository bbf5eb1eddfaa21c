"""A real MariaDB server next to the PostgreSQL and SQLite that all tests have, and one parameter for each way to load."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from tests.integration.warehouse.streams import Warehouse
from tools.postgres import free_port

# As in tools.postgres: durability is not what a throw-away server is for.
FAST = ("--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--skip-log-bin", "--innodb-buffer-pool-size=64M")
WAYS = ("sqlite", "psycopg", "psycopg2", "portable", "mariadb")


@contextlib.contextmanager
def mariadb_server(*options: str) -> Iterator[int]:
    """Run a fresh server (user ``root``, no password) and yield its port; stop and remove it afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="m2p-mariadb-"))
    data, port = directory / "data", free_port()
    # A server that starts, and its setup, clear away what others have in their directory for temporary files.
    common = ["--no-defaults", f"--user={getpass.getuser()}", f"--datadir={data}", f"--tmpdir={directory}"]
    setup = ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
    serve = [
        shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin") or "mariadbd",
        *common,
        f"--socket={directory / 'socket'}",
        f"--pid-file={directory / 'pid'}",
        f"--port={port}",
        "--bind-address=127.0.0.1",
        *FAST,
        *options,
    ]
    try:
        subprocess.run(setup, check=True)  # what it says is in pytest's report if it fails
        with (directory / "log").open("wb") as log:
            server = subprocess.Popen(serve, stdout=log, stderr=log)
        try:
            _wait_for(f"mysql+pymysql://root@127.0.0.1:{port}")
            yield port
        finally:
            server.kill()
            server.wait()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@retry(retry=retry_if_exception_type(sa.exc.OperationalError), stop=stop_after_delay(60), wait=wait_fixed(0.1), reraise=True)
def _wait_for(url: str) -> None:
    with sa.create_engine(url, poolclass=sa.pool.NullPool).connect():
        pass


@pytest.fixture(scope="session")
def mariadb_port() -> Iterator[int]:
    """A server for this run, or one that runs already, such as MySQL's own."""
    if port := os.environ.get("MYSQL_PORT"):
        yield int(port)
        return
    with mariadb_server() as port:
        yield port


@pytest.fixture
def mariadb_url(mariadb_port: int) -> Iterator[sa.URL]:
    """An empty database on that server, for this test alone."""
    name = f"t{os.urandom(6).hex()}"
    url = sa.make_url(f"mysql+pymysql://root@127.0.0.1:{mariadb_port}")
    admin = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with admin.begin() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    yield url.set(database=name)
    with admin.begin() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}")


def _warehouse(way: str, request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    fixture = {"sqlite": "sqlite_url", "mariadb": "mariadb_url"}.get(way, "postgres_url")
    url: sa.URL = request.getfixturevalue(fixture)
    if way == "psycopg2":
        url = url.set(drivername="postgresql+psycopg2")
    warehouse = Warehouse(way, url)
    yield warehouse
    warehouse.close()


@pytest.fixture(params=WAYS)
def warehouse(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    """An empty warehouse; one test for each way to load."""
    yield from _warehouse(request.param, request)


@pytest.fixture(params=["sqlite", "psycopg"])
def first_class(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    """An empty warehouse; one test on SQLite and one on PostgreSQL."""
    yield from _warehouse(request.param, request)


@pytest.fixture
def sqlite(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    yield from _warehouse("sqlite", request)


@pytest.fixture
def postgres(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    yield from _warehouse("psycopg", request)


@pytest.fixture
def mariadb(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    yield from _warehouse("mariadb", request)
