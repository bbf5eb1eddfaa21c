"""Airflow, the sandbox and a warehouse on this machine, wired together: what the demo and the UI command run."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".demo"
TENANT = "ACME_CORP"
CLIENT_ID = "acme-operator"


def fresh_home() -> Path:
    """Return the directory that a local run writes to, emptied."""
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    return HOME


@contextlib.contextmanager
def running_sandbox(python: Path = Path(sys.executable)) -> Iterator[str]:
    """
    Run ``m2p-sandbox`` on a free port and yield its URL; stop it afterwards.

    :param python: the interpreter of the environment whose sandbox it is.
    """
    command = [str(python), "-P", "-m", "airflow_provider_m2p.sandbox", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise SystemExit("The sandbox did not start; its message stands above.")
            yield url
        finally:
            process.terminate()


def connections(base_url: str, warehouse: dict[str, object]) -> dict[str, dict[str, object]]:
    """
    Return the connections of the example DAGs, in Airflow's JSON form.

    :param base_url: the sandbox's URL.
    :param warehouse: the connection ``warehouse``.
    """

    def m2p(client_id: str, tenant_id: str) -> dict[str, object]:
        return {
            "conn_type": "m2p",
            "host": base_url,
            "login": client_id,
            "password": f"{client_id}-secret",
            "extra": {"tenant_id": tenant_id},
        }

    return {
        "m2p_default": m2p(CLIENT_ID, TENANT),
        "m2p_globex": m2p("globex-viewer", "GLOBEX"),
        "warehouse": warehouse,
    }


def airflow_environment(home: Path) -> dict[str, str]:
    """
    Return the environment for an Airflow with a home of its own and the example DAGs.

    :param home: directory for everything that Airflow writes.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "_AIRFLOW_"))}
    return {
        **ours,
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        # Its processes write to one SQLite file: on a slow machine 5 s, as usual, are too short to wait for each other.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow' / 'airflow.db'}?timeout=60",
        # Tokens and caches stay in here as well.
        "XDG_CACHE_HOME": str(home / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def airflow(*arguments: str) -> list[str]:
    """Return the command line of an ``airflow`` command of this virtual environment."""
    return [str(Path(sys.executable).parent / "airflow"), *arguments]
