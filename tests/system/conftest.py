"""Real Airflow: the DAGs of ``dags/``, a migrated metadata database, connections to the sandbox and a warehouse."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import airflow
import pytest
from packaging.version import Version

from tests.connections import connect, m2p_connection, sql_connection

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.dagrun import DagRun
    from sqlalchemy import Engine

    from airflow_provider_m2p.sandbox.server import SandboxServer

AIRFLOW_3_3 = Version(airflow.__version__) >= Version("3.3.0")
DAGS = Path(__file__).parents[2] / "dags"

RunDag: TypeAlias = "Callable[[str], DagRun]"


if not AIRFLOW_3_3:
    # dag.test() makes the API that tasks talk to anew for each of them, which takes seconds; 3.3 keeps it, too.
    from airflow.sdk.execution_time import supervisor

    supervisor.in_process_api_server = cache(supervisor.in_process_api_server)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave all DAGs to one process: the first dag.test() of each makes the whole API that tasks talk to."""
    for item in items:
        if "run_dag" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("run_dag"))


@pytest.fixture(scope="session")
def dagbag(airflow_db: Path) -> DagBag:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=DAGS)


@pytest.fixture
def run_dag(dagbag: DagBag) -> RunDag:
    """Run one of the example DAGs as ``airflow dags test`` does."""

    def run(dag_id: str) -> DagRun:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Airflow's parts say of each other
            warnings.filterwarnings("error", module="airflow_provider_m2p")
            return dagbag.dags[dag_id].test()

    return run


@pytest.fixture
def warehouse(sandbox: SandboxServer, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The database behind the connection ``warehouse``; the sandbox's tenants are connections, too."""
    connect(
        monkeypatch,
        m2p_default=m2p_connection(sandbox.url),
        m2p_globex=m2p_connection(sandbox.url, "globex-viewer", "GLOBEX"),
        warehouse=sql_connection(engine.url),
    )
    return engine


def xcom(run: DagRun, task_id: str, map_index: int = -1) -> Any:
    """Return what a task returned."""
    ti = run.get_task_instance(task_id, map_index=map_index)
    assert ti is not None
    return ti.xcom_pull(task_ids=task_id, map_indexes=map_index)
