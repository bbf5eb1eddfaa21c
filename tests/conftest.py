"""Fixtures that every test may use: an Airflow home of our own, real databases, the sandbox."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

# Airflow reads its configuration while it is imported: settle it here, before any test module imports Airflow.
# One home per process, so that parallel test processes share neither metadata database nor logs.
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="m2p-airflow-"))
for name in [name for name in os.environ if name.startswith(("AIRFLOW_", "_AIRFLOW_", "M2P_"))]:
    del os.environ[name]
os.environ.update(
    AIRFLOW_HOME=str(AIRFLOW_HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(Path(__file__).parent.parent / "dags"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__API_AUTH__JWT_SECRET=os.urandom(64).hex(),  # dag.test() of Airflow 3.2 makes none up
    XDG_CACHE_HOME=str(AIRFLOW_HOME / "cache"),
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Engine

    from airflow_provider_m2p.sandbox.server import SandboxServer

# A slow moment of the machine is no defect.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")


def pytest_unconfigure() -> None:
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # A run that is killed never gets to its summary: name a failure when it happens. Only the process that prints
    # the dots has a terminal of its own; the others' reports reach it.
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nFAILED in {report.when}: {report.nodeid}\n{report.longreprtext}", file=sys.__stderr__, flush=True)


@pytest.fixture(scope="session")
def airflow_db() -> Path:
    """Airflow's metadata database, migrated; and a copy of it that stays empty, for other homes."""
    from airflow.utils.db import initdb

    initdb()
    empty = AIRFLOW_HOME / "empty.db"
    with closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db")) as ours, closing(sqlite3.connect(empty)) as copy:
        ours.backup(copy)
    return empty


@pytest.fixture
def sqlite_url(tmp_path: Path) -> URL:
    from sqlalchemy import make_url

    return make_url(f"sqlite:///{tmp_path / 'warehouse.db'}")


@pytest.fixture(scope="session")
def postgres_port() -> Iterator[int]:
    """Port of a real PostgreSQL server on loopback; user ``postgres``, no password."""
    from tools.postgres import postgres_server

    with postgres_server() as port:
        yield port


@pytest.fixture(scope="session")
def empty_databases() -> list[str]:
    """Databases of that server that a test has used, and are empty again."""
    return []


@pytest.fixture
def postgres_url(postgres_port: int, empty_databases: list[str]) -> Iterator[URL]:
    """An empty database on that server, for this test alone (psycopg 3; ``url.set(drivername=...)`` for others)."""
    import psycopg
    from sqlalchemy import make_url

    from tests.emptied import emptied
    from tools.postgres import database_url

    server = {"host": "127.0.0.1", "port": postgres_port, "user": "postgres", "autocommit": True}
    if empty_databases:
        name = empty_databases.pop()
    else:
        name = f"t{os.urandom(6).hex()}"
        with psycopg.connect(dbname="postgres", **server) as connection:
            connection.execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY")  # the quicker one without fsync
    yield make_url(database_url(postgres_port, name))
    with psycopg.connect(dbname=name, **server) as connection:
        is_empty = emptied(connection)
    if is_empty:
        empty_databases.append(name)
    else:
        with psycopg.connect(dbname="postgres", **server) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _engine(url: URL) -> Iterator[Engine]:
    from sqlalchemy import create_engine

    engine = create_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite_engine(sqlite_url: URL) -> Iterator[Engine]:
    yield from _engine(sqlite_url)


@pytest.fixture
def postgres_engine(postgres_url: URL) -> Iterator[Engine]:
    yield from _engine(postgres_url)


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """One test on each of the databases."""
    engine: Engine = request.getfixturevalue(f"{request.param}_engine")
    return engine


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    """The platform on loopback, with 250 products for each tenant. See ``SandboxServer`` for other sizes and rules."""
    from airflow_provider_m2p.sandbox.server import SandboxServer

    with SandboxServer() as server:
        yield server
