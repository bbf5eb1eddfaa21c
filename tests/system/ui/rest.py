"""Airflow's REST API, through its own client."""

from __future__ import annotations

import time

import pytest
import requests
from airflow_client.client import ApiClient, AssetApi, Configuration, ConnectionApi, DAGApi, DagRunApi, TaskInstanceApi
from airflow_client.client.exceptions import NotFoundException
from airflow_client.client.models import (
    ConnectionBody,
    ConnectionResponse,
    CreateAssetEventsBody,
    DAGPatchBody,
    TriggerDAGRunPostBody,
)

HOPELESS = {"failed", "up_for_retry", "upstream_failed"}


class Rest:
    """
    What the tests ask of the API.

    :param url: Airflow's.
    :param patience: seconds that a run may take.
    """

    def __init__(self, url: str, patience: float) -> None:
        token = requests.get(f"{url}/auth/token", timeout=patience).json()["access_token"]
        client = ApiClient(Configuration(host=url, access_token=token))
        self._patience = patience
        self._assets = AssetApi(client)
        self._connections = ConnectionApi(client)
        self._dags = DAGApi(client)
        self._runs = DagRunApi(client)
        self._tasks = TaskInstanceApi(client)

    def connection(self, conn_id: str) -> ConnectionResponse:
        return self._connections.get_connection(conn_id)

    def create(self, connection: ConnectionBody) -> ConnectionResponse:
        return self._connections.post_connection(connection)

    def test(self, conn_id: str) -> tuple[bool, str]:
        """Test a connection that Airflow knows, from whatever source."""
        answer = self._connections.test_connection(ConnectionBody(connection_id=conn_id, conn_type="m2p"))
        return answer.status, answer.message

    def test_on_worker(self, connection: ConnectionBody) -> tuple[str, str | None]:
        """Have a worker test a connection, as Airflow 3.3 can; return the final state, and what the worker says."""
        from airflow_client.client.models import ConnectionTestRequestBody  # not in the client for 3.2

        body = ConnectionTestRequestBody(**connection.to_dict(), commit_on_success=False)
        token = self._connections.enqueue_connection_test(body).token
        deadline = time.monotonic() + self._patience
        while (test := self._connections.get_connection_test(token)).state not in ("success", "failed"):
            if time.monotonic() > deadline:
                pytest.fail(f"the test on a worker is {test.state}")
            time.sleep(0.5)
        return test.state, test.result_message

    def unpause(self, dag_id: str) -> None:
        """Let a DAG run."""
        self.wait_for_dag(dag_id)
        self._dags.patch_dag(dag_id, DAGPatchBody(is_paused=False))

    def wait_for_dag(self, dag_id: str) -> None:
        """Return once the DAG processor has read it."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                self._dags.get_dag(dag_id)
                return
            except NotFoundException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def run(self, dag_id: str) -> None:
        """Trigger a DAG and wait for the run's success."""
        self.unpause(dag_id)
        run = self._runs.trigger_dag_run(dag_id, TriggerDAGRunPostBody(logical_date=None))
        self.wait_for_success(dag_id, run.dag_run_id)

    def run_by_asset(self, dag_id: str, asset: str) -> None:
        """Add an event to an asset, and wait for the success of the run that the scheduler starts for it."""
        self.unpause(dag_id)
        (found,) = self._assets.get_assets(name_pattern=asset).assets
        self._assets.create_asset_event(CreateAssetEventsBody(asset_id=found.id))
        deadline = time.monotonic() + self._patience
        while not (runs := self._runs.get_dag_runs(dag_id).dag_runs):
            if time.monotonic() > deadline:
                pytest.fail(f"no run of {dag_id} after an event of {asset}")
            time.sleep(0.5)
        (run,) = runs
        assert run.run_type.value == "asset_triggered"
        self.wait_for_success(dag_id, run.dag_run_id)

    def wait_for_success(self, dag_id: str, run_id: str) -> None:
        """Return once the run has succeeded."""
        deadline = time.monotonic() + self._patience
        while (state := str(self._runs.get_dag_run(dag_id, run_id).state.value)) != "success":
            tasks = self._tasks.get_task_instances(dag_id, run_id).task_instances
            states = {f"{task.task_id}[{task.map_index}]": str(task.state and task.state.value) for task in tasks}
            if state == "failed" or HOPELESS & set(states.values()) or time.monotonic() > deadline:
                pytest.fail(f"{dag_id} {run_id} is {state}: {states}")
            time.sleep(0.5)
