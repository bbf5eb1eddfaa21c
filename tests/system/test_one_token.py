"""A mapped DAG of 200 tasks asks for one token per credential."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.connections import m2p_connection
from tests.system.own_airflow import OwnAirflow, own_airflow  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from airflow_provider_m2p.sandbox.server import SandboxServer

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
def test_two_hundred_mapped_tasks_ask_for_two_tokens(own_airflow: OwnAirflow, sandbox: SandboxServer) -> None:  # noqa: F811
    (own_airflow.home / "dags").mkdir()
    (own_airflow.home / "dags" / "m2p_mapped.py").write_text(DAG)
    own_airflow.run(
        "airflow",
        *("dags", "test", "m2p_mapped"),
        AIRFLOW__CORE__DAGS_FOLDER=str(own_airflow.home / "dags"),
        AIRFLOW__OPENLINEAGE__DISABLED="True",  # takes its time for every task
        AIRFLOW_CONN_M2P_DEFAULT=m2p_connection(sandbox.url, token_cache="disk"),
        AIRFLOW_CONN_M2P_GLOBEX=m2p_connection(sandbox.url, "globex-viewer", "GLOBEX", token_cache="disk"),
    )
    asked = [(record.client_id, record.token) for record in sandbox.requests if record.path == "/v1/products/"]
    assert len(asked) == 200
    assert {client for client, _ in asked} == {"acme-viewer", "globex-viewer"}
    assert len(set(asked)) == 2
    assert sandbox.count("/auth/token") == 2
