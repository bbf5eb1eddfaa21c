"""The catalogue watcher in Airflow's own triggerer."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.connections import m2p_connection
from tests.system.conftest import AIRFLOW_3_3, DAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_m2p.sandbox.server import SandboxServer

# A look at several pages, between which the list changes, would see a list that never was: one more change.
ONE_PAGE = 500


class Airflow:
    """An Airflow home with the watching DAG, looking often, and a triggerer to be started and stopped."""

    def __init__(self, home: Path, sandbox: SandboxServer) -> None:
        self.home = home
        self.sandbox = sandbox
        (home / "dags").mkdir()
        dag = (DAGS / "m2p_products_watch.py").read_text()
        (home / "dags" / "watch.py").write_text(dag.replace("poll_interval=300", "poll_interval=0.2"))
        self._environment = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW_CONN_M2P_DEFAULT": m2p_connection(sandbox.url, page_size=ONE_PAGE),
        }
        self._airflow("dags", "reserialize").wait()

    def _airflow(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.home / "output").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "airflow", *arguments],
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @contextmanager
    def triggerer(self) -> Iterator[None]:
        process = self._airflow("triggerer", "--skip-serve-logs")
        try:
            yield
            assert process.poll() is None
        finally:
            process.terminate()
            process.wait()

    def events(self) -> int:
        """How many events the asset has."""
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=30)) as connection:
            return int(connection.execute("SELECT count(*) FROM asset_event").fetchone()[0])

    def looks(self) -> int:
        return sum("pageNo=0" in record.query for record in self.sandbox.requests)

    def look(self, times: int = 3) -> None:
        """Wait until the triggerer has looked at the list so many times from now on, the one under way aside."""
        start = self.looks()
        self.wait(lambda: self.looks() > start + times)

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 150
        while not condition():
            assert time.monotonic() < deadline, (self.home / "output").read_text()[-5000:]
            time.sleep(0.05)


@pytest.fixture
def airflow(airflow_db: Path, sandbox: SandboxServer, tmp_path: Path) -> Airflow:
    shutil.copy(airflow_db, tmp_path / "airflow.db")
    return Airflow(tmp_path, sandbox)


@pytest.mark.timeout(400)
def test_one_event_for_every_change_and_none_for_a_restart(airflow: Airflow) -> None:
    sandbox = airflow.sandbox
    before = airflow.events()
    with airflow.triggerer():
        airflow.look()
        assert airflow.events() == before
        sandbox.evolve(add=1, change=1, remove=1)
        airflow.wait(lambda: airflow.events() == before + 1)
        airflow.look()
        assert airflow.events() == before + 1
    with airflow.triggerer():
        airflow.look()
        assert airflow.events() == before + 1


if AIRFLOW_3_3:

    def test_watchers_of_one_connection_share_a_poll(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
        import asyncio

        import structlog
        from airflow.triggers.shared_stream import SharedStreamManager

        from airflow_provider_m2p.triggers.m2p import M2PCatalogueTrigger

        monkeypatch.setenv("AIRFLOW_CONN_M2P_DEFAULT", m2p_connection(sandbox.url, page_size=ONE_PAGE))
        fired: list[str] = []

        async def watch(manager: SharedStreamManager, number: int) -> None:
            trigger = M2PCatalogueTrigger(poll_interval=0.05)
            stream = manager.subscribe(trigger_id=number, trigger=trigger, key=trigger.shared_stream_key())
            async for event in trigger.filter_shared_stream(stream):
                fired.append(event.payload["content_hash"])  # noqa: PERF401 - main() looks at it meanwhile

        def looks() -> int:
            return sum("pageNo=0" in record.query for record in sandbox.requests)

        async def main() -> None:
            manager = SharedStreamManager(log=structlog.get_logger())
            tasks = [asyncio.create_task(watch(manager, number)) for number in range(5)]
            while looks() < 3:
                await asyncio.sleep(0.01)
            sandbox.evolve(add=1, change=0, remove=0)
            while len(fired) < 5:
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await manager.stop_all()

        asyncio.run(main())
        assert len(fired) == 5
        assert len(set(fired)) == 1
        tokens = {record.token for record in sandbox.requests if record.token}
        assert len(tokens) == 1
