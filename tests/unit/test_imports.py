"""What importing costs: discovery must not touch Airflow, nor DAG files load what only tasks need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_the_loader_runs_without_airflow(tmp_path: Path) -> None:
    loaded = python(
        f"""
import sys

class NotInstalled:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "airflow":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NotInstalled)

import sqlalchemy as sa
from airflow_provider_m2p import frames
from airflow_provider_m2p.client import ClientSettings, M2PClient
from airflow_provider_m2p.sandbox import SandboxServer
from airflow_provider_m2p.warehouse import Loader
from airflow_provider_m2p.warehouse.spec import LoadSpec

engine = sa.create_engine("sqlite:///{tmp_path / "warehouse.db"}")
with SandboxServer() as sandbox:
    settings = ClientSettings.from_connection(
        conn_id="m2p", host=sandbox.url, port=None, schema=None, login="acme-viewer", password="acme-viewer-secret",
        extra={{"tenant_id": "ACME_CORP", "token_cache": "process"}},
    )
    with M2PClient(settings) as client:
        loader = Loader(engine, LoadSpec(table="products", tenant_id="ACME_CORP", load_id="by-hand"))
        print(loader.run(client.pages()).inserted)
        print(len(frames.to_dataframe(client.pages())))
engine.dispose()
print([name for name in sys.modules if name.partition(".")[0] == "airflow"])
"""
    )
    assert loaded.split() == ["250", "250", "[]"]
