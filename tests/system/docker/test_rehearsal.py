"""The whole of the compose files at work: the scheduler runs the example DAG of several tenants into the warehouse."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import requests

from tests.system.docker.compose import FILES, ROOT, filled_environment
from tests.system.docker.rehearsal import Rehearsal, rehearsal
from tools.verify import compare, read_table, served_products

if TYPE_CHECKING:
    from collections.abc import Iterator

DAG = "m2p_products_multi_tenant"
TABLE = "m2p_products_all_tenants"
OF_THE_COMPOSE_FILE = {"m2p_default": ("acme-operator", "ACME_CORP"), "m2p_globex": ("globex-viewer", "GLOBEX")}
PER_WORKER = 4  # AIRFLOW__CELERY__WORKER_CONCURRENCY in compose.celery.yaml
RUN_SECONDS = 900
# A lost task is noticed in seconds rather than minutes.
IMPATIENT = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
}


def more_tenants(number: int) -> dict[str, tuple[str, str]]:
    """Client and tenant of each connection beyond those of the compose file."""
    return {f"m2p_tenant_{n:03d}": (f"tenant-{n:03d}-viewer", f"TENANT_{n:03d}") for n in range(1, number + 1)}


def connection(client: str, tenant: str) -> str:
    fields = {"host": "http://sandbox:8099", "login": client, "password": f"{client}-secret"}
    return json.dumps({"conn_type": "m2p", **fields, "extra": {"tenant_id": tenant}})


def edited(source: str, pattern: str, replacement: str) -> str:
    text, count = re.subn(pattern, replacement, source, flags=re.MULTILINE)
    assert count == 1
    return text


@contextlib.contextmanager
def project(
    files: tuple[str, ...], tenants: int, environment: dict[str, str], **options: Any
) -> Iterator[tuple[Rehearsal, Api]]:
    """Run the compose files with so many tenants, added as the documentation says, and without the long wait for a retry."""
    more = more_tenants(tenants - len(OF_THE_COMPOSE_FILE))
    connections = {f"AIRFLOW_CONN_{conn_id.upper()}": connection(*names) for conn_id, names in more.items()}
    with tempfile.TemporaryDirectory(prefix="m2p-rehearsal-") as directory:
        home, dags = Path(directory) / "airflow", Path(directory) / "dags"
        home.mkdir()
        dags.mkdir()
        source = (ROOT / "dags" / f"{DAG}.py").read_text("utf-8")
        source = edited(source, r"^TENANTS = .*$", f"TENANTS = {[*OF_THE_COMPOSE_FILE, *more]}")
        (dags / f"{DAG}.py").write_text(edited(source, r"timedelta\(minutes=2\)", "timedelta(seconds=1)"))
        with rehearsal(
            files,
            home,
            dags,
            environment=connections | environment,
            sandbox=["--extra-tenants", str(len(more))],
            **options,
        ) as running:
            yield running, Api(running)


class Api:
    """Airflow's REST API, signed in to as ``admin``."""

    def __init__(self, running: Rehearsal) -> None:
        self.dag = f"{running.url('api-server')}/api/v2/dags/{DAG}"
        login = {"username": "admin", "password": filled_environment()["AIRFLOW_ADMIN_PASSWORD"]}
        with requests.post(f"{running.url('api-server')}/auth/token", json=login, timeout=60) as answer:
            answer.raise_for_status()
            self.headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def unpause(self) -> bool:
        """Unpause the DAG; false until it is parsed."""
        with requests.patch(self.dag, json={"is_paused": False}, headers=self.headers, timeout=60) as answer:
            return answer.status_code == 200

    def runs(self) -> list[dict[str, Any]]:
        with requests.get(f"{self.dag}/dagRuns", headers=self.headers, timeout=60) as answer:
            found: list[dict[str, Any]] = answer.json()["dag_runs"]
            return found

    def tasks(self) -> list[dict[str, Any]]:
        run = self.runs()[0]["dag_run_id"]
        with requests.get(f"{self.dag}/dagRuns/{run}/taskInstances?limit=100", headers=self.headers, timeout=60) as answer:
            found: list[dict[str, Any]] = answer.json()["task_instances"]
            return found

    def in_state(self, state: str, since: datetime | None = None) -> list[dict[str, Any]]:
        """The tasks in a state, or those of them that have begun since then."""
        found = [task for task in self.tasks() if task["state"] == state]
        return [task for task in found if since is None or datetime.fromisoformat(task["start_date"]) > since]

    def finished(self) -> bool:
        return any(run["state"] in ("success", "failed") for run in self.runs())


def set_faults(running: Rehearsal, *specs: str) -> None:
    with requests.put(f"{running.url('sandbox')}/_sandbox/faults", json=specs, timeout=30) as answer:
        answer.raise_for_status()


def assert_exact(running: Rehearsal, api: Api, tenants: int) -> None:
    expected = [*OF_THE_COMPOSE_FILE.values(), *more_tenants(tenants - len(OF_THE_COMPOSE_FILE)).values()]
    (run,) = api.runs()
    assert (run["state"], run["run_type"]) == ("success", "scheduled"), running.logs()
    url = f"postgresql://warehouse@127.0.0.1:{running.ports['warehouse']}/warehouse"
    for client, tenant in expected:
        products = served_products(running.url("sandbox"), client, f"{client}-secret", tenant)
        verdict = compare(products, read_table(url, TABLE, f"_m2p_tenant_id = '{tenant}'"), tenant)
        assert (verdict.differences, verdict.rows) == ([], len(products))
    with psycopg.connect(url) as warehouse:
        tables = warehouse.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        assert {name for (name,) in tables if not name.startswith("_m2p_")} == {TABLE}
        loads = warehouse.execute("SELECT DISTINCT tenant_id, status FROM _m2p_loads").fetchall()
        assert dict(loads).keys() == {tenant for _, tenant in expected}


# One after the other: each is a whole Airflow.
pytestmark = [pytest.mark.timeout(1800), pytest.mark.xdist_group("rehearsal")]


def test_local_executor() -> None:
    with project(FILES[:1], 4, {}) as (running, api):
        running.until(api.unpause, "the DAG")
        running.until(api.finished, "the DAG run", RUN_SECONDS)
        assert_exact(running, api, 4)


def test_fifty_tenants_on_celery_workers_one_of_which_is_killed() -> None:
    with project(FILES, 50, IMPATIENT, workers=2) as (running, api):
        for worker in ("worker-1", "worker-2"):
            # Their health check takes seconds of the processor that they start on: not before it can succeed.
            running.until(lambda worker=worker: "ready." in running.log(worker), worker)  # type: ignore[misc]
            running.until(lambda worker=worker: running.healthy(worker), worker)  # type: ignore[misc]
        running.until(api.unpause, "the DAG")
        running.until(lambda: bool(api.runs()), "a DAG run")
        running.until(lambda: len(api.in_state("success")) >= 10, "the first tenants")
        set_faults(running, "latency=30@page1")  # whatever begins now is held half-way
        held = datetime.now(UTC)
        running.until(lambda: len(api.in_state("running", since=held)) > PER_WORKER, "tasks on both workers")
        running.kill("worker-1")
        set_faults(running)
        running.until(api.finished, "the DAG run", RUN_SECONDS)
        assert any(task["try_number"] > 1 for task in api.tasks())
        assert_exact(running, api, 50)
