"""Loads that wait for a second person, in real Airflow, answered through Airflow's REST API."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import airflow
import pytest
from packaging.version import Version
from sqlalchemy import inspect, text

from tests.system.conftest import xcom

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.dagrun import DagRun
    from fastapi.testclient import TestClient
    from sqlalchemy import Engine

    from airflow_provider_m2p.sandbox.server import SandboxServer
    from tests.system.conftest import RunDag

AIRFLOW_3_3 = Version(airflow.__version__) >= Version("3.3.0")
DAG_ID = "m2p_products_reviewed"
TABLE = "m2p_products_reviewed"


@dataclass
class Person:
    """Who answers, through Airflow's REST API, once a question waits. ``dag.test()`` sleeps while one does."""

    answers: list[tuple[str, str]]
    asked: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def look(self, seconds: float) -> None:
        if not seconds or len(self.asked) == len(self.answers):
            return  # to sleep for no time is to let other threads run
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

        client = api()
        for name, answer in self.answers:
            token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=name, role="admin"))
            client.headers["Authorization"] = f"Bearer {token}"
            questions = client.get(
                f"/api/v2/dags/{DAG_ID}/dagRuns/~/hitlDetails", params={"response_received": False}
            ).json()["hitl_details"]
            question = max(questions, key=itemgetter("created_at"))  # older ones were not answered in time
            ti = question["task_instance"]
            path = f"/api/v2/dags/{DAG_ID}/dagRuns/{ti['dag_run_id']}/taskInstances/{ti['task_id']}/-1/hitlDetails"
            self.asked.append(question)
            self.statuses.append(client.patch(path, json={"chosen_options": [answer]}).status_code)


@cache
def api() -> TestClient:
    """Airflow's REST API, made once for all tests: that takes seconds."""
    from airflow.api_fastapi.app import create_app
    from fastapi.testclient import TestClient

    return TestClient(create_app(apps="core"))


@dataclass
class Asyncio:
    """What the trigger of Airflow 3.2 calls ``asyncio``: its pause is the time to answer."""

    person: Person

    async def sleep(self, seconds: float) -> None:
        await asyncio.to_thread(self.person.look, seconds)


def pass_questions_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``dag.test()`` of Airflow 3.2 ask the API for a trigger's answer, as the triggerer does."""
    from airflow.jobs.triggerer_job_runner import HITLDetailResponseResult
    from airflow.sdk.execution_time.comms import GetHITLDetailResponse, UpdateHITLDetail
    from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor

    others = InProcessTestSupervisor._handle_request

    def handle(self: Any, msg: Any, log: Any, req_id: int) -> None:
        if isinstance(msg, GetHITLDetailResponse):
            answer = self.client.hitl.get_detail_response(ti_id=msg.ti_id)
        elif isinstance(msg, UpdateHITLDetail):
            answer = self.client.hitl.update_response(
                ti_id=msg.ti_id, chosen_options=msg.chosen_options, params_input=msg.params_input
            )
        else:
            return others(self, msg, log, req_id)
        return self.send_msg(HITLDetailResponseResult.from_api_response(response=answer), request_id=req_id)

    monkeypatch.setattr(InProcessTestSupervisor, "_handle_request", handle)


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the question answered by persons, one after the other: names and answers."""

    def by(*answers: tuple[str, str]) -> Person:
        person = Person(list(answers))
        if AIRFLOW_3_3:
            monkeypatch.setattr(time, "sleep", person.look)
        else:  # there a trigger waits
            pass_questions_on(monkeypatch)
            monkeypatch.setattr("airflow.providers.standard.triggers.hitl.asyncio", Asyncio(person))
        return person

    return by


@pytest.fixture
def loaded(answered: Any, run_dag: RunDag, warehouse: Engine) -> Engine:
    """A warehouse with a first load, approved."""
    answered(("checker", "Approve"))
    assert run_dag(DAG_ID).state == "success"
    assert len(rows(warehouse)) == 250
    return warehouse


def rows(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return sorted(connection.execute(text(f"SELECT product_id, _m2p_row_hash FROM {TABLE}")).all())


def states(run: DagRun) -> dict[str, str]:
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


def nothing_is_staged(engine: Engine) -> bool:
    with engine.connect() as connection:
        records = connection.execute(text("SELECT record FROM _m2p_staged")).scalars()
        waiting = [record for record in records if "published" not in json.loads(record)]
    tables = [name for name in inspect(engine).get_table_names() if name.startswith("_m2p_stage")]
    return not waiting and tables == ["_m2p_staged"]


def test_the_first_load_waits_for_a_person(
    answered: Any, run_dag: RunDag, sandbox: SandboxServer, warehouse: Engine
) -> None:
    person = answered(("somebody", "Approve"), ("checker", "Approve"))
    run = run_dag(DAG_ID)
    assert run.state == "success"
    assert person.statuses == [403, 200]
    assert "| 250 | 0 | 0 | 0 |" in person.asked[0]["body"]
    assert "create" in person.asked[0]["body"]
    assert not any(str(p["productName"]) in person.asked[0]["body"] for p in sandbox.catalogue())
    plan, result = xcom(run, "stage_products"), xcom(run, "publish_approved")
    assert (plan["load_id"], plan["inserted"]) == (result["load_id"], result["inserted"])
    assert states(run)["publish_small"] == "skipped"
    assert len(rows(warehouse)) == 250
    assert nothing_is_staged(warehouse)


def test_a_small_change_publishes_itself(
    loaded: Engine, answered: Any, run_dag: RunDag, sandbox: SandboxServer
) -> None:
    person = answered()
    sandbox.evolve(add=2, change=3, remove=1)
    run = run_dag(DAG_ID)
    assert run.state == "success"
    assert (states(run)["publish_small"], states(run)["ask_a_checker"]) == ("success", "skipped")
    assert xcom(run, "publish_small")["updated"] == 3
    assert person.asked == []
    assert nothing_is_staged(loaded)


def test_rejected(loaded: Engine, answered: Any, run_dag: RunDag, sandbox: SandboxServer) -> None:
    before = rows(loaded)
    answered(("checker", "Reject"))
    sandbox.evolve(change=100)
    run = run_dag(DAG_ID)
    assert run.state == "success"
    assert states(run)["publish_approved"] == "skipped"
    assert xcom(run, "discard")["discarded"] is True
    assert rows(loaded) == before
    assert nothing_is_staged(loaded)


def test_nobody_answers_in_time(
    loaded: Engine,
    answered: Any,
    dagbag: DagBag,
    run_dag: RunDag,
    sandbox: SandboxServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = rows(loaded)
    answered()
    ask = dagbag.dags[DAG_ID].get_task("ask_a_checker")
    monkeypatch.setattr(ask, "response_timeout", timedelta(microseconds=1))
    if AIRFLOW_3_3:
        monkeypatch.setattr(time, "sleep", lambda _: scheduler_looks_for_overdue_answers())
    sandbox.evolve(change=100)
    run = run_dag(DAG_ID)
    assert run.state == "failed"
    assert states(run)["ask_a_checker"] == "failed"
    assert states(run)["publish_approved"] == "upstream_failed"
    assert xcom(run, "discard")["discarded"] is True
    assert rows(loaded) == before
    assert nothing_is_staged(loaded)


def scheduler_looks_for_overdue_answers() -> None:
    """``dag.test()`` has no scheduler; while it waits, do what one does."""
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    SchedulerJobRunner(Job()).check_awaiting_input_timeouts()


def test_the_maker_does_not_approve_their_own_load(
    loaded: Engine,
    answered: Any,
    dagbag: DagBag,
    run_dag: RunDag,
    sandbox: SandboxServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = rows(loaded)
    maker = "dag_test"  # who triggers the runs of dag.test()
    ask = dagbag.dags[DAG_ID].get_task("ask_a_checker")
    monkeypatch.setattr(ask, "assigned_users", [{"id": maker, "name": maker}])
    answered((maker, "Approve"))
    sandbox.evolve(change=100)
    run = run_dag(DAG_ID)
    assert run.state == "failed"
    assert states(run)["other_person"] == "failed"
    assert rows(loaded) == before
    assert nothing_is_staged(loaded)
