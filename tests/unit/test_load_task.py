from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import airflow.providers.postgres.hooks.postgres  # noqa: F401 - looks for drivers once, when it is imported
import pytest
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_m2p.exceptions import M2PConfigError
from airflow_provider_m2p.load_task import warehouse_engine
from airflow_provider_m2p.operators.m2p import M2PPublishLoadOperator
from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator
from tests.connections import connect, m2p_connection

if TYPE_CHECKING:
    from airflow_provider_m2p.sandbox.server import SandboxServer

WAREHOUSE = {"host": "127.0.0.1", "port": 9, "login": "u", "password": "hush-hush", "schema": "d"}


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to PostgreSQL, whose provider is installed, but none of its drivers."""
    connect(monkeypatch, warehouse=json.dumps({"conn_type": "postgres", **WAREHOUSE}))
    for module in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.usefixtures("no_driver")
def test_a_driver_that_is_not_installed_fails_the_task_before_the_first_page(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url))
    load = M2PToSqlOperator(task_id="load", sql_conn_id="warehouse", table="products")
    publish = M2PPublishLoadOperator(task_id="publish", sql_conn_id="warehouse", load_id="a")
    ti = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}
    context: Any = {"ti": SimpleNamespace(**ti, task=SimpleNamespace(retry_policy=None))}
    for operator in (load, publish):
        with pytest.raises(M2PConfigError, match=r"'warehouse' \(sql_conn_id\).*psycopg.*Install .*\[postgres\]") as caught:
            operator.execute(context)
        assert isinstance(caught.value, AirflowFailException)  # no retry would install it
        assert "hush-hush" not in str(caught.value)
    assert not sandbox.requests


class Bare(DbApiHook):
    """A hook of a database without a dialect."""

    conn_name_attr = "bare_conn_id"
    conn_type = "bare"


class Closed(Bare):
    """A hook that knows no URL of its database."""

    def get_uri(self) -> str:
        raise NotImplementedError("no URL")


class Gone(Bare):
    """A hook that leads nowhere that is a URL."""

    def get_uri(self) -> str:
        return "hush-hush"


@pytest.mark.parametrize("hook", [Bare, Closed, Gone])
def test_a_database_that_sqlalchemy_does_not_know(hook: type[Bare], monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, warehouse=json.dumps({"conn_type": "bare", **WAREHOUSE}))
    message = r"'warehouse' \(sql_conn_id\) leads to no database that SQLAlchemy knows: .*Install the SQLAlchemy dialect"
    with pytest.raises(M2PConfigError, match=message) as caught:
        with warehouse_engine(hook(bare_conn_id="warehouse")):
            pass
    assert "hush-hush" not in str(caught.value)


@pytest.mark.parametrize("host", ["", ":memory:"])
def test_a_database_that_would_go_with_the_task(
    host: str, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(
        monkeypatch,
        m2p_default=m2p_connection(sandbox.url),
        warehouse=json.dumps({"conn_type": "sqlite", "host": host}),
    )
    with pytest.raises(M2PConfigError, match=r"'warehouse' \(sql_conn_id\) names no file"):
        M2PToSqlOperator(task_id="load", sql_conn_id="warehouse", table="products").execute({})
    assert not sandbox.requests


def test_what_to_do_about_nothing_changed_must_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: Any = "Emit"
    with pytest.raises(M2PConfigError, match="if_unchanged='Emit' is none of emit, quiet, skip"):
        M2PToSqlOperator(task_id="load", sql_conn_id="warehouse", table="products", if_unchanged=wrong).execute({})
