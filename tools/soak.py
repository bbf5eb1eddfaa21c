"""
Load a changing catalogue hundreds of times while the platform fails and loading processes are killed, then compare.

``python -m tools.soak --loads 500 --seed 1``: tenants on SQLite and PostgreSQL, in upsert and history, with and without
child tables, two loads at a time. At the end each table has to be what the sandbox served at each applied load, and
nothing may have grown: file descriptors, threads, connections, stages, token files, temporary files.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import sqlalchemy as sa

from airflow_provider_m2p.client import ClientSettings, M2PClient
from airflow_provider_m2p.exceptions import M2PError
from airflow_provider_m2p.sandbox.server import SandboxServer
from airflow_provider_m2p.warehouse import Loader
from airflow_provider_m2p.warehouse.spec import LoadSpec, WriteMode
from tools.postgres import database_url, postgres_server
from tools.record import Record, Served

TENANTS = tuple(f"SOAK_{number:02}" for number in range(12))
ARRAYS = ("fees", "binRanges", "notification")
#: What the tenants load into, in turn.
TABLES: tuple[tuple[str, WriteMode, tuple[str, ...]], ...] = (
    ("products", "upsert", ()),
    ("products_history", "history", ()),
    ("products_parts", "upsert", ARRAYS),
)
#: All kinds but those that serve other data, of which the record would have to know.
FAULTS = (
    "503~0.3", "500~0.2", "429=1~0.2", "html=200~0.1", "html~0.2", "empty~0.1", "problem-200~0.1", "wrong-shape~0.1",
    "wrong-rows~0.1", "nan~0.1", "duplicate-page~0.2", "repeated-row~0.2", "row-moves", "row-moves~0.3", "shuffled",
    "redirect~0.1", "content-type", "gzip-truncated~0.2", "gzip-corrupt~0.2", "gzip-bomb=5~0.2", "hangx1",
    "latency=0.1~0.3", "drip=0.2~0.3", "reset-before-headers~0.2", "reset-after-headers~0.2", "reset-in-body~0.2",
    "truncated~0.2", "close~0.5", "token-revoked~0.3", "token-ttl=1", "clock-skew=-7200x1", "clock-skew=30",
    "expires-in=0", "503@tokenx2", "401@tokenx1", "reset-in-body@tokenx1", "gzip-truncated@tokenx1",
)  # fmt: skip
#: What the processes that load need, imported once.
PRELOADED = [
    "airflow_provider_m2p.client.client",
    "airflow_provider_m2p.sandbox.server",
    "airflow_provider_m2p.warehouse.loader",
    "cryptography.hazmat.primitives.ciphers.aead",
    "filelock",
    "psycopg",
    "tools.record",
]
#: No load takes longer, or it hangs.
HANGS = 120.0


@dataclass(frozen=True)
class Job:
    """One load, as the process that runs it is told."""

    base_url: str
    warehouse: str
    client_id: str
    spec: LoadSpec


def work(pipe: Any, home: Path) -> None:
    """
    Run jobs until the pipe ends; answer each with how it ended, and with the descriptors and threads there are then.

    :param pipe: where the jobs come from.
    :param home: directory for token and temporary files.
    """
    os.environ.update(M2P_CACHE_DIR=str(home / "cache"), TMPDIR=str(home / "tmp"), SQLITE_TMPDIR=str(home / "tmp"))
    logging.getLogger().addHandler(logging.NullHandler())
    with contextlib.suppress(EOFError):
        while True:
            try:
                load(pipe.recv())
                end = "applied"
            except M2PError as error:
                end = type(error).__name__
            except EOFError:
                raise
            except BaseException:
                end = traceback.format_exc()
            pipe.send((end, len(os.listdir("/proc/self/fd")), threading.active_count()))


def load(job: Job) -> None:
    """Load once, as a task does."""
    settings = ClientSettings.from_connection(
        conn_id="soak",
        host=job.base_url,
        login=job.client_id,
        password=f"{job.client_id}-secret",
        extra={"tenant_id": job.spec.tenant_id, "page_size": 5, "read_timeout": 1},
    )
    engine = sa.create_engine(job.warehouse)
    try:
        with M2PClient(settings, sleep=lambda seconds, stop: stop.sleep(min(seconds, 0.01))) as client:
            Loader(engine, job.spec).run(client.pages())
    finally:
        engine.dispose()


class Worker:
    """
    The process that loads, made anew after it was killed.

    :param home: directory for token and temporary files.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        self._process: Any = None
        #: Descriptors and threads after each load, of each process.
        self.footprints: list[list[tuple[int, int]]] = []

    def run(self, job: Job, kill_after: float | None) -> str:
        """
        Run a job and return how it ended: ``applied``, an error's name, or ``killed``.

        :param kill_after: seconds after which the process is killed, if it is still at it.
        """
        if self._process is None:
            self._pipe, theirs = self._context.Pipe()
            self._process = self._context.Process(target=work, args=(theirs, self._home), daemon=True)
            self._process.start()
            theirs.close()
            self.footprints.append([])
        self._pipe.send(job)
        if not self._pipe.poll(HANGS if kill_after is None else kill_after):
            self._process.kill()
            self.close()
            if kill_after is None:
                raise AssertionError(f"load {job.spec.load_id} hangs")
            return "killed"
        end, *footprint = self._pipe.recv()
        self.footprints[-1].append(tuple(footprint))
        return str(end)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._pipe.close()
            self._process.join(HANGS)
            self._process.close()
            self._process = None


class Tenant:
    """
    One tenant, with the record of what was applied to its table.

    :param number: its place in :data:`TENANTS`; decides table and database.
    :param warehouses: URLs of the databases.
    """

    def __init__(self, number: int, warehouses: tuple[str, ...], box: SandboxServer) -> None:
        self.id = TENANTS[number]
        self._box = box
        self._client_id = f"{self.id.lower().replace('_', '-')}-viewer"
        name, self._mode, arrays = TABLES[number // 2 % len(TABLES)]
        self._url = sa.make_url(warehouses[number % len(warehouses)])
        self.record = Record(self.id, name, self._mode, [], arrays)
        self._turn = self._attempt = 0
        self._again = False

    def load(self, worker: Worker, chance: Random, kill_after: float | None = None) -> str:
        """Load once: the catalogue as it has become, or as at the failed attempt before. Return how it ended."""
        if self._again and chance.random() < 0.5:
            self._attempt += 1
        else:
            self._box.evolve(self.id, add=2, change=4, remove=2)
            self._turn, self._attempt = self._turn + 1, 1
        load_id = f"{self.id}-{self._turn}"
        spec = LoadSpec(
            table=self.record.table,
            tenant_id=self.id,
            load_id=load_id,
            attempt=self._attempt,
            write_mode=self._mode,
            child_tables=bool(self.record.arrays),
            max_delete_ratio=1,
        )
        url = self._url.update_query_dict({"application_name": self.id} if self._is_postgres else {"timeout": "60"})
        end = worker.run(Job(self._box.url, url.render_as_string(False), self._client_id, spec), kill_after)
        applied = self._is_applied(load_id)
        if end != "killed" and applied != (end == "applied"):
            raise AssertionError(f"{load_id} ended as {end}, but _m2p_loads says {applied}")
        if applied:
            self.record.served.append(Served(load_id, self._box.catalogue(self.id)))
        self._again = not applied
        return f"killed, {'applied' if applied else 'not applied'}" if end == "killed" else end

    @property
    def _is_postgres(self) -> bool:
        return self._url.get_backend_name() == "postgresql"

    def _is_applied(self, load_id: str) -> bool:
        """Ask the books, once the server is done with what a killed process sent."""
        with _connect(self._url) as connection:
            if self._is_postgres:
                _await_end(connection, f"application_name = '{self.id}'")
            if not sa.inspect(connection).has_table("_m2p_loads"):
                return False
            found = connection.execute(
                sa.text("SELECT count(*) FROM _m2p_loads WHERE load_id = :load_id"), {"load_id": load_id}
            )
            return bool(found.scalar())

    def differences(self) -> list[str]:
        """Say in what the table differs from the record."""
        plain = self._url.set(drivername=self._url.get_backend_name())
        return [f"{self.id}: {text}" for text in self.record.differences(plain.render_as_string(False))]


@contextlib.contextmanager
def _connect(url: sa.URL) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection


def _await_end(connection: sa.Connection, where: str) -> None:
    """Wait until the PostgreSQL server has no such connections to this database."""
    query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {where}"
    deadline = time.monotonic() + HANGS
    while connection.exec_driver_sql(query).scalar():
        if time.monotonic() > deadline:
            raise AssertionError(f"connections are left open: {where}")
        time.sleep(0.01)


@dataclass
class Soak:
    """
    All of it.

    :param loads: how many loads to start.
    :param seed: of catalogues, faults and kills.
    :param postgres: URL of an empty PostgreSQL database.
    :param home: empty directory for everything else.
    """

    loads: int
    seed: int
    postgres: str
    home: Path
    ends: Counter[str] = field(default_factory=Counter)
    _tenants: list[Tenant] = field(default_factory=list)

    def run(self) -> list[str]:
        """Run it, and return what is not as it should be."""
        for name in ("cache", "tmp", "warehouse"):
            (self.home / name).mkdir()
        warehouses = f"sqlite:///{self.home / 'warehouse' / 'soak.db'}", self.postgres
        with SandboxServer(products=12, seed=self.seed, tenants=TENANTS) as box:
            tenants = self._tenants = [Tenant(number, warehouses, box) for number in range(len(TENANTS))]
            workers = [Worker(self.home) for _ in range(2)]
            try:
                # Of four neighbours two share a database: each worker has tenants of every table on both.
                shares = [[t for n, t in enumerate(tenants) if n // 2 % 2 == k] for k in range(2)]
                with ThreadPoolExecutor(2) as hands:
                    list(hands.map(self._load, [box] * 2, workers, shares, range(2)))
                box.set_faults()
                for tenant in tenants:
                    if tenant.load(workers[1], Random(self.seed)) != "applied":  # noqa: S311
                        raise AssertionError(f"{tenant.id}: a load without faults failed")
            finally:
                for worker in workers:
                    worker.close()
        return self.differences() + self._grown(warehouses, workers[1].footprints)

    def differences(self) -> list[str]:
        """Say in what the tables differ from what was served."""
        return [text for tenant in self._tenants for text in tenant.differences()]

    def _load(self, box: SandboxServer, worker: Worker, tenants: list[Tenant], hand: int) -> None:
        """Load tenants in turn under random faults. The first worker is killed often, the second never."""
        chance = Random(f"{self.seed}/{hand}")  # noqa: S311
        typical = 0.5
        for number in range(self.loads // 2 + (self.loads % 2 if hand == 0 else 0)):
            box.set_faults(*([chance.choice(FAULTS)] if chance.random() < 0.6 else []))
            kill_after = chance.uniform(0.0, 1.3 * typical) if hand == 0 and chance.random() < 0.6 else None
            started = time.monotonic()
            end = tenants[number % len(tenants)].load(worker, chance, kill_after)
            if end == "applied":
                typical = time.monotonic() - started
            self.ends[end] += 1
            if "Traceback" in end:
                raise AssertionError(end)

    def _grown(self, warehouses: tuple[str, ...], footprints: list[list[tuple[int, int]]]) -> list[str]:
        """Say what there is more of than there should be."""
        found = []
        (life,) = footprints
        settled = life[: len(life) // 2]
        for name, half, last in zip(
            ("descriptors", "threads"),
            map(max, zip(*settled, strict=True)),
            map(max, zip(*life, strict=True)),
            strict=True,
        ):
            if last > half:
                found.append(f"{name} of a process: {half} in the first half, {last} in the second")
        for url in warehouses:
            with _connect(sa.make_url(url)) as connection:
                if url == self.postgres:
                    _await_end(connection, "pid <> pg_backend_pid()")
                left = [
                    name
                    for name in sa.inspect(connection).get_table_names()
                    if "stage" in name and name != "_m2p_staged"
                ]
                found += [f"stage {name} is left" for name in left]
        kinds = Counter(file.suffix for file in (self.home / "cache").rglob("*.*"))
        found += [
            f"{count} files {kind} for {len(TENANTS)} tokens" for kind, count in kinds.items() if count > len(TENANTS)
        ]
        found += [f"temporary file {file.name} is left" for file in (self.home / "tmp").iterdir()]
        found += [f"{file.name} is left" for file in (self.home / "warehouse").iterdir() if file.name != "soak.db"]
        return found


def main() -> int:
    """Run the command."""
    arguments = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__.partition("\n\n")[0])
    arguments.add_argument("--loads", type=int, default=500, metavar="N", help="loads to start (default %(default)s)")
    arguments.add_argument(
        "--seed", type=int, default=1, metavar="S", help="of all that is random (default %(default)s)"
    )
    options = arguments.parse_args()
    started = time.monotonic()
    with postgres_server() as port, tempfile.TemporaryDirectory(prefix="m2p-soak-") as home:
        soak = Soak(options.loads, options.seed, database_url(port), Path(home))
        differences = soak.run()
    for end, count in soak.ends.most_common():
        print(f"{count:5} {end}")
    for text in differences[:50]:
        print(f"WRONG: {text}")
    print(
        f"{options.loads} loads, seed {options.seed}, {len(TENANTS)} tenants, {time.monotonic() - started:.0f} s: ",
        end="",
    )
    print(f"{len(differences)} differences" if differences else "every table is exact, and nothing has grown")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
