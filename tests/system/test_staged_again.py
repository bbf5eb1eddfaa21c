"""What a checker agreed to is what is published, whichever tasks of the run are cleared afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.sdk.definitions.dag import _run_task
from airflow.utils.session import create_session
from sqlalchemy import select

from tests.system.conftest import xcom
from tests.system.test_reviewed_load import DAG_ID, answered, rows  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.dagrun import DagRun
    from sqlalchemy import Engine

    from airflow_provider_m2p.sandbox.server import SandboxServer
    from tests.system.conftest import RunDag


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("decider", ["is_small", "ask_a_checker"])
def test_a_load_staged_again_is_not_published_unseen(
    decider: str,
    answered: Any,  # noqa: F811
    run_dag: RunDag,
    dagbag: DagBag,
    sandbox: SandboxServer,
    warehouse: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_alone(task_id: str) -> str:
        """Clear one task and nothing else, as one can in the grid, and run it."""
        with create_session() as session:
            ti = session.scalars(select(TaskInstance).filter_by(run_id=run.run_id, task_id=task_id)).one()
            clear_task_instances([ti], session)
        _run_task(ti=ti_of(run, task_id), task=dagbag.dags[DAG_ID].get_task(task_id))
        return str(ti_of(run, task_id).state)

    publish = "publish_approved"
    answered(("checker", "Approve"))
    run = run_dag(DAG_ID)
    assert run.state == "success"
    if decider == "is_small":
        publish = "publish_small"
        sandbox.evolve(add=1, change=1, remove=0)
        run = run_dag(DAG_ID)
    assert str(ti_of(run, publish).state) == "success"
    agreed, before = xcom(run, "stage_products"), rows(warehouse)

    sandbox.evolve(add=50, change=50, remove=50)
    assert run_alone("stage_products") == "success"
    waiting = xcom(run, "stage_products")
    assert (waiting["load_id"], waiting["inserted"]) == (agreed["load_id"], 50)
    assert run_alone(publish) in ("failed", "up_for_retry")
    assert rows(warehouse) == before
    # With the decision made anew, what waits is published.
    if decider == "is_small":
        monkeypatch.setattr(dagbag.dags[DAG_ID].get_task(publish), "plan_id", waiting["plan_id"])
        assert run_alone(publish) == "success"
        assert len(rows(warehouse)) == len(before) + 50


def ti_of(run: DagRun, task_id: str) -> TaskInstance:
    ti = run.get_task_instance(task_id)
    assert ti is not None
    return ti
