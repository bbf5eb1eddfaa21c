"""The whole of ``compose.yaml`` at work: the scheduler runs the example DAG of several tenants into the warehouse."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.system.docker.compose import ROOT, filled_environment
from tests.system.docker.rehearsal import Rehearsal, rehearsal
from tools.verify import compare, read_table, served_products

if TYPE_CHECKING:
    from collections.abc import Iterator

DAG = "m2p_products_multi_tenant"
TABLE = "m2p_products_all_tenants"
MORE = 4
TENANTS = {"m2p_default": ("acme-operator", "ACME_CORP"), "m2p_globex": ("globex-viewer", "GLOBEX")} | {
    f"m2p_tenant_{n:03d}": (f"tenant-{n:03d}-viewer", f"TENANT_{n:03d}") for n in range(1, MORE + 1)
}


@pytest.fixture
def running() -> Iterator[Rehearsal]:
    connections = {
        conn_id: {
            "conn_type": "m2p",
            "host": "http://sandbox:8099",
            "login": client,
            "password": f"{client}-secret",
            "extra": {"tenant_id": tenant},
        }
        for conn_id, (client, tenant) in TENANTS.items()
        if tenant.startswith("TENANT_")
    }
    with tempfile.TemporaryDirectory(prefix="m2p-rehearsal-") as directory:
        home, dags = Path(directory) / "airflow", Path(directory) / "dags"
        home.mkdir()
        dags.mkdir()
        source = (ROOT / "dags" / f"{DAG}.py").read_text("utf-8")
        more, count = re.subn(r"^TENANTS = .*$", f"TENANTS = {list(TENANTS)}", source, flags=re.MULTILINE)
        assert count == 1
        (dags / f"{DAG}.py").write_text(more)
        with rehearsal(home, dags, connections, ["--extra-tenants", str(MORE)]) as project:
            yield project


@pytest.mark.timeout(600)
def test_every_tenant_is_loaded_exactly(running: Rehearsal) -> None:
    started = time.monotonic()
    api = requests.Session()
    base = running.url("api-server")
    login = {"username": "admin", "password": filled_environment()["AIRFLOW_ADMIN_PASSWORD"]}
    token = api.post(f"{base}/auth/token", json=login, timeout=30)
    token.raise_for_status()
    api.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
    dag = f"{base}/api/v2/dags/{DAG}"

    def unpaused() -> bool:
        return api.patch(dag, json={"is_paused": False}, timeout=30).status_code == 200  # 404 until it is parsed

    def runs() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = api.get(f"{dag}/dagRuns", timeout=30).json()["dag_runs"]
        return found

    running.until(unpaused, "the DAG")
    print("dag", time.monotonic() - started)
    running.until(lambda: any(run["state"] in ("success", "failed") for run in runs()), "the DAG run")
    print("run", time.monotonic() - started)
    (run,) = runs()
    assert (run["state"], run["run_type"]) == ("success", "scheduled"), running.logs()

    warehouse = f"postgresql://warehouse@127.0.0.1:{running.ports['warehouse']}/warehouse"
    for client, tenant in TENANTS.values():
        products = served_products(running.url("sandbox"), client, f"{client}-secret", tenant)
        verdict = compare(products, read_table(warehouse, TABLE, f"_m2p_tenant_id = '{tenant}'"), tenant)
        assert (verdict.differences, verdict.rows) == ([], len(products))
    assert {
        name for name, service in running.services.items() if "curl" in str(service) and not running.healthy(name)
    } == set()
    api.close()
    print("done", time.monotonic() - started)
