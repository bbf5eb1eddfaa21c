"""What importing costs: discovery must not touch Airflow, nor DAG files load what only tasks need."""

from __future__ import annotations

import subprocess
import sys

MODULES = "airflow_provider_m2p.operators.m2p, airflow_provider_m2p.transfers.m2p_to_sql"
HEAVY = {"pandas", "pyarrow", "sqlalchemy", "requests", "tenacity", "cryptography", "jwt", "fastapi"}


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_discovery_imports_nothing_of_airflow() -> None:
    loaded = python(
        "import sys\n"
        "from airflow_provider_m2p.get_provider_info import get_provider_info\n"
        "get_provider_info()\n"
        "print([name for name in sys.modules if name.partition('.')[0] == 'airflow'])"
    )
    assert loaded.strip() == "[]"


def test_a_dag_file_loads_no_heavy_library() -> None:
    added = python(
        "import sys\n"
        "from airflow.sdk import Asset, BaseHook, BaseOperator\n"
        "before = set(sys.modules)\n"
        f"import {MODULES}\n"
        f"print({HEAVY} & (set(sys.modules) - before))"
    )
    assert added.strip() == "set()"


def test_a_dag_file_imports_quickly() -> None:
    # A busy machine makes any single run slow.
    code = (
        "import time\n"
        "from airflow.sdk import Asset, BaseHook, BaseOperator\n"
        "start = time.process_time()\n"
        f"import {MODULES}\n"
        "print(time.process_time() - start)"
    )
    assert any(float(python(code)) < 0.03 for _ in range(5))
