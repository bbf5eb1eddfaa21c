"""
Much of what Airflow can do with the provider, and what goes wrong with it, under secrets that can be recognised.

test_secrets.py runs this as a process of its own, and searches all that it leaves behind for what it writes to OUT:
    python -m tests.system.secrets_run OUT
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.cli.cli_parser import get_parser
from airflow.dag_processing.dagbag import DagBag
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from sqlalchemy import make_url

from airflow_provider_m2p.exceptions import M2PError
from airflow_provider_m2p.hooks.m2p import M2PHook
from airflow_provider_m2p.sandbox.server import SandboxServer
from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator
from airflow_provider_m2p.triggers.m2p import M2PCatalogueTrigger
from tests.connections import m2p_connection, sql_connection
from tests.system.conftest import AIRFLOW_3_3, DAGS
from tests.system.secrets_dags import PRIVATE
from tests.system.test_reviewed_load import pass_questions_on, scheduler_looks_for_overdue_answers

HOME = Path(os.environ["AIRFLOW_HOME"])
#: One secret per client, each with characters that JSON, URLs and shells write differently, and one that is wrong.
CLIENTS = {
    "grep-viewer": ("ACME_CORP", "Viewer"),
    "grep-globex": ("GLOBEX", "Viewer"),
    "grep-guest": ("ACME_CORP", "Guest"),
    "grep-private": ("INITECH", "Viewer"),
}
SECRETS = {name: f'{os.urandom(12).hex()}"%/é\\{os.urandom(12).hex()}' for name in (*CLIENTS, "wrong")}
#: Values of customers: left out, hashed, and loaded.
EXCLUDED, HASHED, LOADED = (f"{os.urandom(10).hex()}" for _ in range(3))

#: What fails: another connection, faults of the platform, another load.
FAILURES: list[tuple[dict[str, Any], tuple[str, ...], dict[str, Any]]] = [
    ({"password": SECRETS["wrong"]}, (), {}),
    ({"tenant_id": "GLOBEX"}, (), {}),
    ({"client_id": "grep-guest"}, (), {}),
    ({"products_path": "/v9/nothing"}, (), {}),
    ({"tenant_id": ""}, (), {}),
    ({"token_cache": "off"}, ("html=200@token",), {}),
    ({}, ("token-revoked",), {}),
    ({}, ("html=200",), {}),
    ({}, ("problem-200",), {}),
    ({}, ("wrong-shape",), {}),
    ({}, ("wrong-rows",), {}),
    ({}, ("redirect",), {}),
    ({}, (), {"key_columns": ["nothing"]}),
    ({}, (), {**PRIVATE, "key_columns": ["holder.city"]}),
    ({}, (), {**PRIVATE, "schema_policy": "freeze"}),
    ({}, (), {**PRIVATE, "write_mode": "history", "table": "m2p_private"}),
]


class Run:
    """
    The process.

    :param sandbox: the platform.
    :param said: takes down what errors, objects and events say of themselves.
    """

    def __init__(self, sandbox: SandboxServer, said: Any) -> None:
        self.sandbox = sandbox
        self.said = said
        self.tokens: list[str] = []
        issue = sandbox.platform.tokens.issue

        def issue_and_keep(*args: Any, **kwargs: Any) -> str:
            self.tokens.append(issue(*args, **kwargs))
            return self.tokens[-1]

        sandbox.platform.tokens.issue = issue_and_keep  # type: ignore[method-assign]
        for client_id, (tenant, role) in CLIENTS.items():
            sandbox.add_client(client_id, tenant, role, SECRETS[client_id])
        for product in sandbox.catalogue("INITECH")[:5]:
            holder = {"name": HASHED, "mobile": EXCLUDED, "city": LOADED}
            sandbox.put({**product, "holder": holder, "cards": [{"number": EXCLUDED, "art": LOADED}]}, "INITECH")
        self.connect("m2p_default", "grep-viewer")
        self.connect("m2p_globex", "grep-globex")
        self.connect("m2p_private", "grep-private")
        os.environ["AIRFLOW_CONN_WAREHOUSE"] = sql_connection(make_url(f"sqlite:///{HOME}/warehouse.db"))
        shutil.copytree(DAGS, HOME / "dags")
        shutil.copy(Path(__file__).parent / "secrets_dags.py", HOME / "dags")
        self.dags = DagBag(HOME / "dags").dags
        for dag in self.dags.values():
            for task in dag.tasks:
                task.retries = 0
                task.on_failure_callback = [lambda context: self.describe(context["exception"])]

    def connection(self, client_id: str, **change: Any) -> str:
        fields = {"url": self.sandbox.url, "client_id": client_id, "tenant_id": CLIENTS[client_id][0], **change}
        secret = change.pop("password", None) or SECRETS[fields["client_id"]]
        return m2p_connection(**{"token_cache": "disk", **fields, "password": secret})

    def connect(self, conn_id: str, client_id: str, **change: Any) -> None:
        os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = self.connection(client_id, **change)

    def dag(self, dag_id: str, state: str = "success") -> None:
        run = self.dags[dag_id].test()
        assert run.state == state, (dag_id, [(ti.task_id, ti.state) for ti in run.get_task_instances()])

    def describe(self, error: BaseException | None) -> None:
        """Take down an error, its causes, and what our objects in its frames say of themselves."""
        while error is not None:
            print(repr(error), vars(error), "".join(traceback.format_exception(error)), file=self.said)
            for frame, _ in traceback.walk_tb(error.__traceback__):
                print([repr(value) for value in frame.f_locals.values() if is_ours(value)], file=self.said)
            error = error.__cause__ or error.__context__

    def describe_objects(self) -> None:
        """Take down what every object of ours says of itself."""
        for value in gc.get_objects():
            with suppress(ReferenceError):
                if is_ours(value):
                    print(repr(value), file=self.said)

    def everything(self) -> None:
        for dag_id in ("sync", "multi_tenant", "dataframe", "history", "analytics", "watch"):
            self.dag(f"m2p_products_{dag_id}")
        self.dag("m2p_products_snapshot", "failed")  # the history does not reach back
        self.connect("m2p_default", "grep-viewer", credentials_issued_on="2026-01-01")
        self.dag("m2p_credentials_rotation", "failed")
        self.connect("m2p_default", "grep-viewer")
        with nobody_answers(self.dags["m2p_products_reviewed"].get_task("ask_a_checker")):
            self.dag("m2p_products_reviewed", "failed")
        self.describe_objects()
        self.dag("private")
        self.dag("private_refused", "failed")
        for change, faults, arguments in FAILURES:
            self.fail(change, faults, arguments)
        self.connect("m2p_default", "grep-viewer")
        asyncio.run(self.watch())
        self.command_line()

    def fail(self, change: dict[str, Any], faults: tuple[str, ...], arguments: dict[str, Any]) -> None:
        """Let a load fail, and the connection's test."""
        self.connect("m2p_default", **{"client_id": "grep-viewer", **change})
        self.sandbox.set_faults(*faults)
        load: dict[str, Any] = {"task_id": "load", "sql_conn_id": "warehouse", "table": "failing"}
        try:
            M2PToSqlOperator(**{**load, **arguments}).execute({})
        except M2PError as error:
            self.describe(error)
        else:
            raise AssertionError((change, faults, arguments))
        if change or faults:
            hook = M2PHook()
            print(hook.test_connection(), repr(hook), file=self.said)
            if "password" in change or faults in [("wrong-shape",), ("token-revoked",)]:
                self.dag("m2p_products_sync", "failed")
        self.sandbox.set_faults()

    async def watch(self) -> None:
        """Look at the list: the first look fails, then there is a change."""
        trigger = M2PCatalogueTrigger(poll_interval=0.05)
        print(repr(trigger), trigger.serialize(), file=self.said)
        self.connect("m2p_default", "grep-viewer", password=SECRETS["wrong"])
        changing = asyncio.create_task(self.change_after_some_looks())
        async for event in trigger.run():
            print(repr(event), event.payload, file=self.said)
            break
        await changing

    async def change_after_some_looks(self) -> None:
        await self.one_more("/auth/token")
        self.connect("m2p_default", "grep-viewer")
        await self.one_more("/v1/products/")
        await self.one_more("/v1/products/")
        self.sandbox.evolve()

    async def one_more(self, path: str) -> None:
        before = self.sandbox.count(path)
        while self.sandbox.count(path) == before:
            await asyncio.sleep(0.01)

    def command_line(self) -> None:
        """Keep connections in the metadata database, and test them there."""
        for name, change in {"good": {}, "wrong": {"password": SECRETS["wrong"]}}.items():
            airflow("connections", "add", f"m2p_{name}", "--conn-json", self.connection("grep-viewer", **change))
            airflow("connections", "test", f"m2p_{name}")


def is_ours(value: object) -> bool:
    module = getattr(type(value), "__module__", None)
    return isinstance(module, str) and module.startswith("airflow_provider_m2p") and ".sandbox" not in module


@contextmanager
def nobody_answers(question: Any) -> Iterator[None]:
    """Let a question wait for an answer for no time at all."""
    question.response_timeout = timedelta(microseconds=1)
    with pytest.MonkeyPatch.context() as patch:
        if AIRFLOW_3_3:
            patch.setattr("time.sleep", lambda _: scheduler_looks_for_overdue_answers())
        else:
            pass_questions_on(patch)
        yield


def airflow(*arguments: str) -> None:
    args = get_parser().parse_args(arguments)
    with suppress(SystemExit):
        args.func(args)


def main(out: str) -> None:
    warnings.simplefilter("ignore")  # what Airflow's parts say of each other
    provider = TracerProvider()
    with (HOME / "spans.json").open("w") as spans, (HOME / "said.txt").open("w") as said:
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=spans)))
        trace.set_tracer_provider(provider)
        with SandboxServer(products=80) as sandbox:
            run = Run(sandbox, said)
            run.everything()
    needles = {"secrets": [*SECRETS.values()], "tokens": run.tokens, "private": [EXCLUDED, HASHED], "loaded": LOADED}
    Path(out).write_text(json.dumps(needles))


if __name__ == "__main__":
    main(sys.argv[1])
