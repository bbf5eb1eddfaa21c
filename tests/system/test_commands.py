"""What ``airflow`` itself says about the provider, on the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.connections import m2p_connection
from tests.system.conftest import AIRFLOW_3_3, DAGS

if TYPE_CHECKING:
    from airflow_provider_m2p.sandbox.server import SandboxServer


def airflow(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run an ``airflow`` command; both its outputs must be free of warnings."""
    command = [sys.executable, "-m", "airflow", *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert "warning" not in output.lower(), output
    assert "Traceback" not in output, output
    return done.returncode, done.stdout


def test_providers_get() -> None:
    code, output = airflow("providers", "get", "airflow-provider-m2p", "--full", "--output", "yaml")
    assert code == 0
    assert "m2p_to_sql" in output


def test_providers_hooks() -> None:
    code, output = airflow("providers", "hooks", "--output", "plain")
    assert code == 0
    (line,) = (line for line in output.splitlines() if line.startswith("m2p "))
    assert line.split()[1:3] == ["airflow_provider_m2p.hooks.m2p.M2PHook", "m2p_conn_id"]


@pytest.mark.usefixtures("airflow_db")
def test_connections_test(sandbox: SandboxServer) -> None:
    def test(connection: str) -> tuple[int, str]:
        return airflow(
            "connections",
            "test",
            "m2p_default",
            AIRFLOW__CORE__TEST_CONNECTION="Enabled",
            AIRFLOW_CONN_M2P_DEFAULT=connection,
        )

    code, output = test(m2p_connection(sandbox.url))
    assert code == 0, output
    assert "Connection success" in output
    _, output = test(m2p_connection(sandbox.url, password="not-the-secret"))
    assert "Token: " in output
    assert "not-the-secret" not in output


if AIRFLOW_3_3:

    def test_airflow_finds_the_example_dags(monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow.dag_processing.bundles.manager import DagBundlesManager

        monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "True")
        bundle = DagBundlesManager().get_bundle("airflow-provider-m2p-example-dags")
        bundle.initialize()
        assert {path.name for path in Path(bundle.path).glob("*.py")} == {path.name for path in DAGS.glob("*.py")}
