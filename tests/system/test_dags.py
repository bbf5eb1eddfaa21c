"""The example DAGs in real Airflow, against the sandbox, into real databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from airflow.models.asset import AssetEvent
from airflow.utils.session import create_session
from psycopg.types.json import set_json_loads
from sqlalchemy import inspect, select, text

from airflow_provider_m2p.exceptions import M2PAuthError
from airflow_provider_m2p.links.m2p import M2PApiDocsLink
from tests.connections import connect, m2p_connection
from tests.system.conftest import AIRFLOW_3_3, DAGS, RunDag, xcom
from tools.verify import Table, compare, exact_json

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from sqlalchemy import Engine

    from airflow_provider_m2p.sandbox.server import SandboxServer

any_database = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


def read(engine: Engine, table: str, where: str = "1 = 1") -> Table:
    types = {column["name"]: str(column["type"]).lower() for column in inspect(engine).get_columns(table)}
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            set_json_loads(exact_json, connection.connection.driver_connection)
        rows = connection.exec_driver_sql(f"SELECT * FROM {table} WHERE {where}").mappings()
        return Table(types, [dict(row) for row in rows])


def test_dags_parse_without_errors_and_warnings(dagbag: DagBag) -> None:
    assert dagbag.import_errors == {}
    assert dagbag.captured_warnings == {}
    assert {path.stem for path in DAGS.glob("*.py")} == set(dagbag.dags)


@pytest.mark.parametrize("dag_id", [path.stem for path in DAGS.glob("*.py")])
def test_dags_introduce_themselves(dagbag: DagBag, dag_id: str) -> None:
    dag = dagbag.dags[dag_id]
    assert dag.doc_md
    assert "Connections:" in dag.doc_md
    assert dag.description
    assert "m2p" in dag.tags
    assert dag.catchup is False


def test_sync(run_dag: RunDag, sandbox: SandboxServer, warehouse: Engine) -> None:
    run = run_dag("m2p_products_sync")
    assert run.state == "success"
    result = xcom(run, "load_products")
    assert (result["rows_read"], result["inserted"]) == (250, 250)
    verdict = compare(sandbox.catalogue(), read(warehouse, "m2p_products"), "ACME_CORP")
    assert verdict.differences == []
    assert verdict.rows == 250

    sandbox.evolve(add=3, change=7, remove=2)
    result = xcom(run_dag("m2p_products_sync"), "load_products")
    assert [result[name] for name in ("inserted", "updated", "unchanged", "deleted")] == [3, 7, 241, 2]
    verdict = compare(sandbox.catalogue(), read(warehouse, "m2p_products"), "ACME_CORP")
    assert verdict.differences == []
    assert (verdict.rows, verdict.marked_deleted) == (251, 2)


def test_multi_tenant(run_dag: RunDag, sandbox: SandboxServer, warehouse: Engine) -> None:
    run = run_dag("m2p_products_multi_tenant")
    assert run.state == "success"
    table = "m2p_products_all_tenants"
    for index, tenant in enumerate(["ACME_CORP", "GLOBEX"]):
        assert xcom(run, "load_products", index)["tenant_id"] == tenant
        rows = read(warehouse, table, f"_m2p_tenant_id = '{tenant}'")
        assert compare(sandbox.catalogue(tenant), rows, tenant).differences == []
    names = {ti.rendered_map_index for ti in run.get_task_instances()}
    assert names == {"m2p_default", "m2p_globex"}


def test_dataframe(run_dag: RunDag, sandbox: SandboxServer, warehouse: Engine) -> None:
    run = run_dag("m2p_products_dataframe")
    assert run.state == "success"
    products = pd.DataFrame([(p["productType"], p["status"]) for p in sandbox.catalogue()])
    with warehouse.connect() as connection:
        rows = connection.execute(text("SELECT product_type, status, products FROM m2p_products_by_type"))
        assert {(row[0], row[1]): row[2] for row in rows} == products.value_counts().to_dict()


@any_database
def test_a_task_makes_one_token_call_and_traceable_requests(
    run_dag: RunDag, sandbox: SandboxServer, warehouse: Engine
) -> None:
    run = run_dag("m2p_products_sync")
    ids = [record.request_id for record in sandbox.requests]
    assert len(set(ids)) == len(ids) == 4
    assert all(i.startswith(f"m2p_products_sync/{run.run_id}/load_products/try=1-") for i in ids), ids


@any_database
def test_the_log_tells_the_story_of_a_load_in_a_few_lines(
    run_dag: RunDag, sandbox: SandboxServer, warehouse: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dag("m2p_products_sync")
    lines = [line for line in capsys.readouterr().out.splitlines() if "airflow_provider_m2p" in line]
    story = ("Loading http", "Request ids at the platform begin with", "Loaded 250 rows from 3 pages")
    assert [told for line in lines for told in story if told in line] == [*story]
    assert len(lines) < 20, lines


@any_database
def test_a_wrong_secret_fails_at_once_and_callbacks_see_why(
    run_dag: RunDag,
    dagbag: DagBag,
    sandbox: SandboxServer,
    warehouse: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url, password="not-the-secret"))
    task = dagbag.dags["m2p_products_sync"].get_task("load_products")
    seen: list[object] = []
    monkeypatch.setattr(task, "on_failure_callback", [lambda context: seen.append(context["exception"])])
    run = run_dag("m2p_products_sync")
    ti = run.get_task_instance("load_products")
    assert task.retries == 3
    assert (run.state, ti.state, ti.try_number) == ("failed", "failed", 1)
    assert sandbox.count("/auth/token") == 1
    if AIRFLOW_3_3:  # from there on, dag.test() runs callbacks
        (error,) = seen
        assert isinstance(error, M2PAuthError)
        assert error.status_code == 401


@any_database
def test_an_outage_is_left_to_airflows_retries(
    run_dag: RunDag, dagbag: DagBag, warehouse: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, warehouse='{"conn_type": "postgres", "host": "127.0.0.1", "port": 1, "login": "u"}')
    task = dagbag.dags["m2p_products_sync"].get_task("load_products")
    monkeypatch.setattr(task, "retry_delay", timedelta(0))
    monkeypatch.setattr(task, "retries", 1)
    run = run_dag("m2p_products_sync")
    ti = run.get_task_instance("load_products")
    assert (run.state, ti.try_number) == ("failed", 2)


@any_database
def test_asset_events_tell_what_changed_and_can_be_left_out_if_nothing_did(
    run_dag: RunDag, dagbag: DagBag, sandbox: SandboxServer, warehouse: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def events() -> list[dict[str, Any]]:
        with create_session() as session:
            query = select(AssetEvent).where(AssetEvent.source_run_id == run.run_id)
            return [event.extra for event in session.scalars(query)]

    task = dagbag.dags["m2p_products_sync"].get_task("load_products")
    run = run_dag("m2p_products_sync")
    (extra,) = events()
    assert extra["inserted"] == 250
    assert datetime.fromisoformat(extra["watermark"]) < datetime.now(UTC)
    run = run_dag("m2p_products_sync")
    assert [extra["unchanged"] for extra in events()] == [250]

    monkeypatch.setattr(task, "if_unchanged", "quiet")
    run = run_dag("m2p_products_sync")
    assert (run.get_task_instance("load_products").state, events()) == ("success", [])
    sandbox.evolve(add=0, change=1, remove=0)
    run = run_dag("m2p_products_sync")
    assert [extra["updated"] for extra in events()] == [1]

    monkeypatch.setattr(task, "if_unchanged", "skip")
    run = run_dag("m2p_products_sync")
    assert (run.get_task_instance("load_products").state, events()) == ("skipped", [])
    assert xcom(run, "load_products")["unchanged"] == 250


@any_database
def test_a_link_to_the_api_docs(run_dag: RunDag, sandbox: SandboxServer, warehouse: Engine) -> None:
    run = run_dag("m2p_products_sync")
    ti = run.get_task_instance("load_products")
    key = M2PApiDocsLink().xcom_key
    assert ti.xcom_pull(task_ids="load_products", key=key) == f"{sandbox.url}/api-docs"
