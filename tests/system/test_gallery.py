"""The example DAGs that build on the history of the products, and the one that watches the age of secrets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import Asset
from sqlalchemy import text

from tests.connections import connect, m2p_connection
from tests.system.conftest import xcom

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from sqlalchemy import Engine

    from airflow_provider_m2p.sandbox.server import SandboxServer
    from tests.system.conftest import RunDag

TODAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)


def rows(engine: Engine, query: str) -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_history_and_the_analytics_on_its_asset(
    run_dag: RunDag, dagbag: DagBag, sandbox: SandboxServer, warehouse: Engine
) -> None:
    assert run_dag("m2p_products_history").state == "success"
    sandbox.evolve(add=3, change=7, remove=2)
    result = xcom(run_dag("m2p_products_history"), "load_history")
    assert [result[name] for name in ("inserted", "updated", "deleted")] == [3, 7, 2]
    (asset,) = dagbag.dags["m2p_products_history"].get_task("load_history").outlets
    assert asset == Asset("m2p_products_history")
    assert list(dagbag.dags["m2p_products_analytics"].timetable.asset_condition.objects) == [asset]

    for _ in range(2):
        assert run_dag("m2p_products_analytics").state == "success"
        found = rows(warehouse, "SELECT product_id, changes, is_current FROM m2p_product_changes")
        assert len(found) == 253
        assert sum(changes for _, changes, _ in found) == 7
        assert sum(1 for *_, is_current in found if not is_current) == 2


def test_snapshots_of_the_past_do_not_depend_on_when_they_are_taken(
    run_dag: RunDag, dagbag: DagBag, sandbox: SandboxServer, warehouse: Engine
) -> None:
    def snapshot(day: datetime) -> list[Any]:
        assert dagbag.dags["m2p_products_snapshot"].test(logical_date=day).state == "success"
        return sorted(rows(warehouse, f"SELECT product_id FROM m2p_products_snapshots WHERE day = '{day.date()}'"))

    first = sorted((product["productId"],) for product in sandbox.catalogue())
    assert run_dag("m2p_products_history").state == "success"
    # The first load was three days ago, the second the day before yesterday's.
    age(warehouse, TODAY - timedelta(days=3))
    sandbox.evolve(add=3, remove=2)
    second = sorted((product["productId"],) for product in sandbox.catalogue())
    assert run_dag("m2p_products_history").state == "success"
    assert snapshot(TODAY - timedelta(days=1)) == first
    # Midnight may have passed since today was looked up.
    assert snapshot(TODAY + timedelta(days=2)) == second
    assert snapshot(TODAY - timedelta(days=1)) == first
    early = dagbag.dags["m2p_products_snapshot"].test(logical_date=TODAY - timedelta(days=9))
    assert early.state == "failed"
    assert len(rows(warehouse, "SELECT DISTINCT day FROM m2p_products_snapshots")) == 2


def age(engine: Engine, moment: datetime) -> None:
    """Have all states in the history begin then."""
    value = moment.strftime("%Y-%m-%d %H:%M:%S.%f") + ("+00" if engine.dialect.name == "postgresql" else "")
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE m2p_products_history SET _m2p_valid_from = '{value}'"))


@pytest.mark.parametrize(("days", "state"), [(10, "success"), (80, "failed")])
def test_old_secrets_are_told_in_time(
    days: int, state: str, run_dag: RunDag, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = (datetime.now(UTC) - timedelta(days=days)).date().isoformat()
    connect(
        monkeypatch,
        m2p_default=m2p_connection(sandbox.url, credentials_issued_on=issued),
        m2p_globex=m2p_connection(sandbox.url, "globex-viewer", "GLOBEX"),
    )
    run = run_dag("m2p_credentials_rotation")
    assert run.state == state
    assert {ti.rendered_map_index: str(ti.state) for ti in run.get_task_instances()} == {
        "m2p_default": state,
        "m2p_globex": "success",
    }
    assert not sandbox.requests
