from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from airflow.sdk import Asset, AssetAlias, BaseHook
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.execution_time.context import OutletEventAccessors
from sqlalchemy import inspect, text

from airflow_provider_m2p.exceptions import M2PAuthError, M2PConfigError, M2PSchemaError
from airflow_provider_m2p.task_run import TaskRun
from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator
from tests.connections import connect, m2p_connection, sql_connection

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from airflow_provider_m2p.sandbox.server import SandboxServer


@pytest.fixture
def connected(sandbox: SandboxServer, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine's database as connection ``warehouse``, the sandbox as ``m2p_default``."""
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url), warehouse=sql_connection(engine.url))
    return engine


def operator(**arguments: Any) -> M2PToSqlOperator:
    return M2PToSqlOperator(**{"task_id": "load", "sql_conn_id": "warehouse", "table": "products", **arguments})


def task_context(**changes: Any) -> dict[str, Any]:
    ti = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1, **changes}
    return {
        "ti": SimpleNamespace(**ti, task=SimpleNamespace(retry_policy=None)),
        "outlet_events": OutletEventAccessors(),
    }


def column(engine: Engine, query: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(query)).scalars())


def test_constructing_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> None:
        raise AssertionError("touched in __init__")

    monkeypatch.setattr(BaseHook, "get_connection", no)
    monkeypatch.setattr(socket.socket, "connect", no)
    arguments = {
        "m2p_conn_id": "{{ a }}",
        "sql_conn_id": "{{ b }}",
        "table": "{{ c }}",
        "schema": "{{ d }}",
        "endpoint": "{{ e }}",
        "key_columns": ["{{ f }}"],
        "exclude_columns": ["{{ g }}"],
        "hash_columns": ["{{ h }}"],
    }
    load = M2PToSqlOperator(task_id="load", **arguments)  # type: ignore[arg-type]
    assert load.template_fields == tuple(arguments)
    assert {name: getattr(load, name) for name in arguments} == arguments


def test_loads_and_returns_the_counts_as_plain_json(sandbox: SandboxServer, connected: Engine) -> None:
    result = operator().execute({})
    assert json.loads(json.dumps(result)) == result
    assert list(result) == [
        "load_id",
        "tenant_id",
        "table",
        "write_mode",
        "pages",
        "rows_read",
        "inserted",
        "updated",
        "unchanged",
        "deleted",
        "duplicates",
        "schema_changes",
        "seconds",
    ]
    expected = {
        "tenant_id": "ACME_CORP",
        "table": "products",
        "write_mode": "upsert",
        "pages": 3,
        "rows_read": 250,
        "inserted": 250,
        "updated": 0,
        "unchanged": 0,
        "deleted": 0,
        "duplicates": 0,
    }
    assert {name: result[name] for name in expected} == expected
    assert sorted(column(connected, "SELECT product_id FROM products")) == sorted(
        product["productId"] for product in sandbox.catalogue()
    )


def test_a_second_load_writes_what_changed(sandbox: SandboxServer, connected: Engine) -> None:
    operator().execute({})
    sandbox.evolve(add=2, change=5, remove=1)
    result = operator().execute({})
    assert [result[name] for name in ("inserted", "updated", "unchanged", "deleted")] == [2, 5, 244, 1]


def test_the_load_id_is_random_outside_a_task(connected: Engine) -> None:
    first, second = operator().execute({})["load_id"], operator().execute({})["load_id"]
    assert UUID(first) != UUID(second)


def test_the_load_id_is_the_same_for_every_try_of_a_task(connected: Engine) -> None:
    load = operator()
    results = [load.execute(task_context(try_number=number)) for number in (1, 2)]
    run = TaskRun(dag_id="d", run_id="r", task_id="t")
    assert [result["load_id"] for result in results] == [run.load_id] * 2
    with connected.connect() as connection:
        rows = connection.execute(
            text("SELECT load_id, attempt, dag_id, run_id, task_id FROM _m2p_loads ORDER BY attempt")
        ).all()
    assert [tuple(row) for row in rows] == [(run.load_id, n, "d", "r", "t") for n in (1, 2)]


def test_key_columns_may_be_one_name(connected: Engine) -> None:
    assert operator(key_columns="productId").execute({})["inserted"] == 250


def test_max_pages_and_endpoint(sandbox: SandboxServer, connected: Engine) -> None:
    result = operator(endpoint="/configs/v1/products/", max_pages=2).execute({})
    assert (result["pages"], result["rows_read"]) == (2, 200)
    assert sandbox.count("/configs/v1/products/") == 2


@pytest.mark.parametrize(
    "wrong",
    [{"max_pages": "2"}, {"max_delete_ratio": "x"}, {"max_depth": "3"}, {"child_tables": "no"}, {"publish": "no"}],
)
def test_an_argument_of_a_wrong_type_is_named_and_costs_no_request(
    sandbox: SandboxServer, connected: Engine, wrong: dict[str, Any]
) -> None:
    with pytest.raises(M2PConfigError, match=next(iter(wrong))):
        operator(**wrong).execute({})
    assert not sandbox.requests


@pytest.mark.parametrize(
    ("mode", "live"),
    [("replace", ""), ("upsert", " WHERE _m2p_deleted_at IS NULL"), ("history", " WHERE _m2p_valid_to IS NULL")],
)
def test_only_a_list_that_was_read_whole_deletes(
    sandbox: SandboxServer, sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch, mode: str, live: str
) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url), warehouse=sql_connection(sqlite_engine.url))

    def load(**arguments: Any) -> tuple[int, int]:
        """Return how many rows were deleted, and how many there are after that."""
        result = operator(write_mode=mode, max_delete_ratio=1, **arguments).execute({})
        return result["deleted"], column(sqlite_engine, f"SELECT count(*) FROM products{live}")[0]

    assert load() == (0, 250)
    sandbox.evolve(add=0, change=0, remove=3)
    assert load(max_pages=2) == (0, 250)
    sandbox.set_faults("total-changes")
    assert load() == (0, 250)
    assert sandbox.faults_fired() == {"total-changes": 3}
    sandbox.set_faults()
    assert load() == (3, 247)


def test_outlets_get_the_counts(connected: Engine) -> None:
    asset, alias = Asset("m2p_products"), AssetAlias("some_alias")
    context = task_context()
    result = operator(outlets=[asset, alias]).execute(context)
    events = context["outlet_events"]
    watermark = datetime.fromisoformat(events[asset].extra["watermark"])
    assert datetime.now(UTC) - timedelta(minutes=1) < watermark < datetime.now(UTC)
    assert events[asset].extra == {**result, "watermark": watermark.isoformat()}
    assert events[alias].asset_alias_events == []


def test_a_load_that_changed_nothing(connected: Engine) -> None:
    asset = Asset("m2p_products")

    def load(if_unchanged: str, **ti: Any) -> tuple[M2PToSqlOperator, dict[str, Any]]:
        loader, context = operator(outlets=[asset], if_unchanged=if_unchanged), task_context(**ti)
        loader.execute(context)
        return loader, context["outlet_events"][asset].extra

    first, extra = load("quiet")
    assert (first.outlets, extra["inserted"]) == ([asset], 250)
    again, extra = load("emit")
    assert (again.outlets, extra["unchanged"]) == ([asset], 250)
    quiet, extra = load("quiet")
    assert (quiet.outlets, extra) == ([], {})
    # The try before this one may have died between its commit and Airflow's knowing of it.
    retried, extra = load("quiet", try_number=2)
    assert (retried.outlets, extra["unchanged"]) == ([asset], 250)

    pushed: dict[str, Any] = {}
    with pytest.raises(AirflowSkipException, match="Nothing changed"):
        load("skip", xcom_push=lambda key, value: pushed.update({key: value}))
    assert pushed["return_value"]["unchanged"] == 250


def test_personal_data_stay_out_of_the_warehouse(connected: Engine) -> None:
    operator(exclude_columns=["limits", "description"], hash_columns="productName").execute({})
    names = [item["name"] for item in inspect(connected).get_columns("products")]
    assert not any(name.startswith("limits") or name == "description" for name in names)
    assert not any("Card" in str(value) for value in column(connected, "SELECT product_name FROM products"))


def test_a_link_to_the_api_docs(sandbox: SandboxServer, connected: Engine) -> None:
    load = operator()
    (link,) = load.operator_extra_links
    assert link.get_link(load, ti_key=None) == ""
    load.execute({})
    assert link.get_link(load, ti_key=None) == f"{sandbox.url}/api-docs"


def test_outlets_outside_a_task_are_left_alone(connected: Engine) -> None:
    assert operator(outlets=[Asset("m2p_products")]).execute({})["inserted"] == 250


def test_the_log_tells_the_story_in_a_few_lines(connected: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    operator().execute({})
    lines = [line for line in capsys.readouterr().out.splitlines() if "M2PToSqlOperator" in line]
    assert 2 <= len(lines) < 20, lines
    assert "tenant ACME_CORP" in lines[-2]
    assert "Loaded 250 rows" in lines[-1]


@pytest.mark.parametrize(
    ("warehouse", "kind"),
    [({"conn_type": "m2p", "host": "http://127.0.0.1:9"}, "m2p"), ({"conn_type": "no_such_type"}, "no_such_type")],
)
def test_a_connection_that_is_no_sql_database(
    warehouse: dict[str, str], kind: str, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url), warehouse=json.dumps(warehouse))
    with pytest.raises(M2PConfigError, match=rf"'warehouse' .*sql_conn_id.* '{kind}'"):
        operator().execute({})
    assert not sandbox.requests


def test_an_unknown_key_column_names_those_there_are(connected: Engine) -> None:
    with pytest.raises(M2PSchemaError, match=r"no_such_key.*productId"):
        operator(key_columns=("no_such_key",)).execute({})


def test_a_wrong_secret_in_a_task_fails_it_without_retries(
    sandbox: SandboxServer, connected: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url, password="wrong-one"))
    with pytest.raises(M2PAuthError, match="client secret") as outside:
        operator().execute({})
    assert type(outside.value) is M2PAuthError
    with pytest.raises(M2PAuthError, match="client secret") as inside:
        operator().execute(task_context())
    assert isinstance(inside.value, AirflowFailException)


def test_a_warehouse_that_cannot_be_reached_costs_no_request(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    warehouse = {"conn_type": "postgres", "host": "127.0.0.1", "port": port, "login": "u", "password": "hush-hush"}
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url), warehouse=json.dumps(warehouse))
    with pytest.raises(Exception, match=r"127\.0\.0\.1") as caught:
        operator().execute({})
    assert "hush-hush" not in str(caught.value)
    assert not sandbox.requests
