"""What a DAG run's configuration may put into templated arguments: one line in the log, no other host, no other table."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_m2p.operators.m2p import M2PExtractProductsOperator, M2PPublishLoadOperator
from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator
from tests.connections import connect, m2p_connection, sql_connection
from tests.integration.hostile.conftest import SECRET, Platform, refusal

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL

JUNK = "x\r\nFAKE log line\x1b[2J\u2028%s"
ARGUMENTS = ("m2p_conn_id", "sql_conn_id", "table", "schema", "endpoint", "key_columns", "exclude_columns", "hash_columns")


@pytest.mark.parametrize("name", ["", *ARGUMENTS])
def test_any_templated_argument(
    platform: Platform,
    sqlite_url: URL,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    connect(
        monkeypatch,
        m2p_default=m2p_connection(platform.url, password=SECRET),
        warehouse=sql_connection(sqlite_url),
    )
    platform.answer = lambda _: [{"productId": "a"}]
    value: Any = [JUNK] if name.endswith("columns") else f"/{JUNK}" if name == "endpoint" else JUNK
    arguments = {"sql_conn_id": "warehouse", "table": "products"} | ({name: value} if name else {})
    outcome: list[BaseException] = []
    with caplog.at_level(logging.INFO):
        try:
            refusal(lambda: M2PToSqlOperator(task_id="load", **arguments).execute({}))
        except Exception as error:
            outcome.append(error)
    # Only Airflow itself speaks of connections that are not there.
    assert not outcome or name.endswith("conn_id")
    assert all(record.getMessage().isprintable() for record in caplog.records), caplog.text


def test_a_load_that_is_not_there(sqlite_url: URL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    connect(monkeypatch, warehouse=sql_connection(sqlite_url))
    with caplog.at_level(logging.INFO):
        for action in ("publish", "discard"):
            operator = M2PPublishLoadOperator(task_id="p", sql_conn_id="warehouse", load_id=JUNK, action=action)
            refusal(lambda: operator.execute({}))  # noqa: B023
    assert all(record.getMessage().isprintable() for record in caplog.records), caplog.text


def test_a_file_with_an_odd_name(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(platform.url, password=SECRET))
    platform.answer = lambda _: [{"productId": "a"}]
    path = tmp_path / "a\nFAKE\x1b[2J.parquet"
    with caplog.at_level(logging.INFO):
        M2PExtractProductsOperator(task_id="e", output_path=f"file://{path}").execute({})
    assert len(list(tmp_path.glob("*.parquet"))) == 1
    assert all(record.getMessage().isprintable() for record in caplog.records), caplog.text
