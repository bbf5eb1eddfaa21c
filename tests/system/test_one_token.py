"""A mapped DAG of 200 tasks asks for one token per credential."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.dag_processing.dagbag import DagBag

from tests.connections import connect, m2p_connection

if TYPE_CHECKING:
    from airflow_provider_m2p.sandbox.server import SandboxServer
    from tests.system.conftest import RunDag

DAG = """
import pendulum
from airflow.sdk import DAG, task
from airflow_provider_m2p.client import token_cache
from airflow_provider_m2p.hooks.m2p import M2PHook

@task
def count(conn_id, number):
    token_cache.clear()  # dag.test() is one process; a worker has one for each task, and they share the disk alone
    M2PHook(conn_id).request("GET", "/v1/products/", params={"pageNo": 0, "pageSize": 1})

with DAG("m2p_mapped", start_date=pendulum.datetime(2026, 1, 1), schedule=None):
    count.expand(conn_id=["m2p_default", "m2p_globex"], number=list(range(100)))
"""


@pytest.mark.timeout(700)
def test_two_hundred_mapped_tasks_ask_for_two_tokens(
    run_dag: RunDag, dagbag: DagBag, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dag_file = tmp_path / "dags" / "m2p_mapped.py"
    dag_file.parent.mkdir()
    dag_file.write_text(DAG)
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(dag_file.parent))
    monkeypatch.setitem(dagbag.dags, "m2p_mapped", DagBag(dag_file).dags["m2p_mapped"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    connect(
        monkeypatch,
        m2p_default=m2p_connection(sandbox.url, token_cache="disk"),
        m2p_globex=m2p_connection(sandbox.url, "globex-viewer", "GLOBEX", token_cache="disk"),
    )
    assert run_dag("m2p_mapped").state == "success"
    asked = [(record.client_id, record.token) for record in sandbox.requests if record.path == "/v1/products/"]
    assert len(asked) == 200
    assert {client for client, _ in asked} == {"acme-viewer", "globex-viewer"}
    assert len(set(asked)) == 2
    assert sandbox.count("/auth/token") == 2
