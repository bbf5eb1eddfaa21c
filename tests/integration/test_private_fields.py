"""Personal data that an endpoint returns and nobody wants: they are nowhere, warehouse and logs included."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import MetaData, select

from airflow_provider_m2p.hooks.m2p import M2PHook
from airflow_provider_m2p.operators.m2p import M2PPublishLoadOperator
from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator
from tests.connections import connect, m2p_connection, sql_connection

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from airflow_provider_m2p.sandbox.server import SandboxServer

ENDPOINT = "/prepaid/middleware/v1/corporate-issuances/fetch-by-status/APPROVED"


def everything(engine: Engine) -> str:
    """Return all the warehouse holds: every cell of every table, and SQLite's file."""
    metadata = MetaData()
    metadata.reflect(engine)
    with engine.connect() as connection:
        cells = [tuple(row) for table in metadata.sorted_tables for row in connection.execute(select(table))]
    file = b""
    if engine.dialect.name == "sqlite":
        with open(str(engine.url.database), "rb") as database:
            # Cells stand side by side there: the tenant before a "000..." would look like a corporate's id.
            file = database.read().replace(b"ACME_CORP", b"|")
    return f"{cells}{file.decode('utf-8', 'replace')}"


@pytest.mark.parametrize("publish", [True, False])
def test_excluded_and_hashed_values_are_nowhere(
    publish: bool,
    sandbox: SandboxServer,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url), warehouse=sql_connection(engine.url))
    issuances = [row for page in M2PHook().iter_pages(ENDPOINT) for row in page]
    private = {row["applicationNumber"] for row in issuances}
    private |= {row["corporate"]["corporateId"] for row in issuances}
    private |= {row["corporate"]["branch"] for row in issuances} - {None}
    assert len(private) > 20

    load = M2PToSqlOperator(
        task_id="load",
        sql_conn_id="warehouse",
        table="issuances",
        endpoint=ENDPOINT,
        key_columns=["id"],
        exclude_columns=["applicationNumber", "corporate.branch"],
        hash_columns=["corporate.corporateId"],
        publish=publish,
    )
    results: list[dict[str, Any]] = []
    with caplog.at_level(logging.DEBUG):
        results.append(load.execute({}))
        staged = everything(engine)
        if not publish:
            act = M2PPublishLoadOperator(task_id="act", sql_conn_id="warehouse", load_id=results[0]["load_id"])
            results.append(act.execute({}))
    assert results[-1]["inserted"] == len(issuances)

    warehouse = everything(engine)
    assert issuances[0]["id"] in warehouse
    output = capfd.readouterr()
    for place in (staged, warehouse, caplog.text, output.out, output.err, json.dumps(results, ensure_ascii=False)):
        assert not [value for value in private if value in place]
    table = MetaData()
    table.reflect(engine, only=["issuances"])
    columns = table.tables["issuances"].columns
    assert "application_number" not in columns
    assert "corporate__branch" not in columns
    with engine.connect() as connection:
        hashes = set(connection.execute(select(columns["corporate__corporate_id"])).scalars())
    assert len(hashes) == len({row["corporate"]["corporateId"] for row in issuances})
