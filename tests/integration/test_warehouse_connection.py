"""What a warehouse's connection says holds for the loads into it, too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from airflow_provider_m2p.exceptions import M2PLoadError
from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator
from tests.connections import connect, m2p_connection, sql_connection

if TYPE_CHECKING:
    from airflow_provider_m2p.sandbox.server import SandboxServer


@pytest.fixture(autouse=True)
def platform(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> SandboxServer:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url))
    return sandbox


def with_extra(url: sa.URL, **extra: str) -> str:
    return json.dumps({**json.loads(sql_connection(url)), "extra": extra})


def test_options_of_postgresql_hold(
    postgres_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres_engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA other")
    extra = {"options": "-c search_path=other", "application_name": "nightly", "cursor": "dictcursor"}
    connect(monkeypatch, warehouse=with_extra(postgres_engine.url, **extra))
    names = []

    def note(connection: sa.Connection, *_: object) -> None:
        names.append(connection.connection.dbapi_connection.info.parameter_status("application_name"))

    sa.event.listen(sa.Engine, "before_execute", note)
    try:
        M2PToSqlOperator(task_id="load", sql_conn_id="warehouse", table="products").execute({})
    finally:
        sa.event.remove(sa.Engine, "before_execute", note)
    assert set(names) == {"nightly"}
    assert sa.inspect(postgres_engine).has_table("products", schema="other")
    assert not sa.inspect(postgres_engine).has_table("products", schema="public")


def test_an_encryption_that_the_server_lacks_is_not_done_without(
    postgres_engine: sa.Engine, platform: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, warehouse=with_extra(postgres_engine.url, sslmode="verify-full", sslrootcert="system"))
    with pytest.raises(M2PLoadError, match="SSL"):
        M2PToSqlOperator(task_id="load", sql_conn_id="warehouse", table="products").execute({})
    assert not sa.inspect(postgres_engine).get_table_names()
    assert not platform.requests
