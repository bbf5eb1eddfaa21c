"""What the provider must do in a clean environment. ``tools.matrix`` runs it there, alone, with the wheel installed."""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import airflow_provider_m2p

DAGS = Path(airflow_provider_m2p.__file__).parent / "example_dags"


def discovery() -> None:
    """Airflow finds the provider, its hook and its connection form by the wheel's entry point."""
    from airflow.providers_manager import ProvidersManager

    manager: Any = ProvidersManager()  # type: ignore[no-untyped-call]
    found = manager.providers["airflow-provider-m2p"]
    assert found.version == version("airflow-provider-m2p") == airflow_provider_m2p.__version__, found.version
    hook = manager.hooks["m2p"]
    assert hook is not None
    assert hook.hook_class_name == "airflow_provider_m2p.hooks.m2p.M2PHook", hook
    fields = {name for name in manager.connection_form_widgets if name.startswith("extra__m2p__")}
    assert "extra__m2p__tenant_id" in fields, fields
    assert manager.field_behaviours["m2p"]["relabeling"]["password"] == "Client secret"


def load() -> None:
    """An example DAG of the wheel loads the catalogue, twice."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.utils.db import initdb

    initdb()
    bag = DagBag(DAGS)
    assert not bag.import_errors, bag.import_errors
    for _ in range(2):
        run = bag.dags["m2p_products_sync"].test()
        assert run.state == "success", run.state


def refusals() -> None:
    """What is wrong with a connection is said by the error that means it."""
    from airflow_provider_m2p.exceptions import M2PAuthError, M2PConfigError
    from airflow_provider_m2p.hooks.m2p import M2PHook
    from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator

    good = json.loads(os.environ["AIRFLOW_CONN_M2P_DEFAULT"])
    wrong = {"m2p_stranger": {"password": "not-the-secret"}, "m2p_nobody": {"extra": {}}}
    for conn_id, fields in wrong.items():
        os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(good | fields)
    ok, message = M2PHook("m2p_default").test_connection()
    assert ok, message
    for conn_id, error in (("m2p_stranger", M2PAuthError), ("m2p_nobody", M2PConfigError)):
        message = ""
        try:
            M2PToSqlOperator(task_id="load", m2p_conn_id=conn_id, sql_conn_id="warehouse", table="none").execute({})
        except error as refusal:
            message = str(refusal)
        assert conn_id in message, message
        assert "not-the-secret" not in message, message


if __name__ == "__main__":
    assert Path(airflow_provider_m2p.__file__).is_relative_to(sys.prefix), airflow_provider_m2p.__file__
    os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(DAGS)
    discovery()
    load()
    refusals()
