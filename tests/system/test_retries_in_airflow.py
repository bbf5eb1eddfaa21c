"""A task with ``M2P_RETRY_POLICY``, retried by Airflow itself. Tasks without are in test_dags.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.connections import connect, m2p_connection
from tests.system.conftest import AIRFLOW_3_3

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from sqlalchemy import Engine

    from airflow_provider_m2p.sandbox.server import SandboxServer
    from tests.system.conftest import RunDag

if AIRFLOW_3_3:

    @pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
    def test_the_policy_fails_at_once_what_no_retry_can_help(
        run_dag: RunDag,
        dagbag: DagBag,
        sandbox: SandboxServer,
        warehouse: Engine,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from airflow_provider_m2p.retry_policy import M2P_RETRY_POLICY

        connect(monkeypatch, m2p_default=m2p_connection(sandbox.url, password="not-the-secret"))
        task = dagbag.dags["m2p_products_sync"].get_task("load_products")
        monkeypatch.setattr(task, "retry_policy", M2P_RETRY_POLICY)
        ti = run_dag("m2p_products_sync").get_task_instance("load_products")
        assert ti is not None
        assert task.retries == 3
        assert (str(ti.state), ti.try_number) == ("failed", 1)
        assert sandbox.count("/auth/token") == 1
