"""
A loading process is killed at random moments. Each time the tables must be in their old or their new state, and the retry,
which reads other rows, right.

``EFFORT=20`` kills thousands of times, ``SEED=n`` at other moments.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from tests.integration.warehouse import catalogues
from tests.integration.warehouse.catalogues import Load
from tests.integration.warehouse.effort import EFFORT, PATIENCE
from tests.integration.warehouse.streams import Warehouse

ROOT = Path(__file__).parents[3]
MODES = ["append", "replace", "upsert", "history"]
#: How often a load is killed in each write mode, and how often a first load.
KILLS = {"sqlite": 16, "psycopg": 16, "psycopg2": 10, "portable": 6, "mariadb": 6}
FIRST_KILLS = {"psycopg": 6, "psycopg2": 4}

pytestmark = PATIENCE


class Victim:
    """The process of ``victim.py``."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.integration.warehouse.victim"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _ask(self, *words: object) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(*words, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def _start(self, warehouse: Warehouse, mode: str, turn: int, loads: int) -> int:
        url = warehouse.url.render_as_string(hide_password=False)
        return self._ask("start", warehouse.way, url, mode, turn, loads)

    def load(self, warehouse: Warehouse, mode: str, turn: int) -> float:
        """Let it load a turn, and return how long that took."""
        begun = time.monotonic()
        self._start(warehouse, mode, turn, loads=1)
        assert self._ask("wait") == 0
        return time.monotonic() - begun

    def kill(self, warehouse: Warehouse, mode: str, turn: int, seconds: float) -> None:
        """Let it load from a turn on, and kill it after some seconds."""
        pid = self._start(warehouse, mode, turn, sys.maxsize)
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        assert self._ask("wait") == -signal.SIGKILL, "the loading process failed by itself"
        others(warehouse)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    victim = Victim()
    yield victim
    victim.close()


@retry(retry=retry_if_result(bool), stop=stop_after_delay(30), wait=wait_fixed(0.01))
def others(warehouse: Warehouse) -> int:
    """Wait until the server has noticed that the killed client is gone, and return how many connections are left."""
    query = {
        "sqlite": "SELECT 0",
        "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()",
    }.get(
        warehouse.way,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    with warehouse.engine.connect() as connection:
        return int(connection.exec_driver_sql(query).scalar() or 0)


def applied(warehouse: Warehouse) -> list[Load]:
    """Return the loads in the books."""
    if "_m2p_loads" not in warehouse.tables():
        return []
    with warehouse.engine.connect() as connection:
        books = connection.exec_driver_sql("SELECT load_id, attempt FROM _m2p_loads ORDER BY finished_at").all()
    return [(int(load_id.removeprefix("turn-")), attempt) for load_id, attempt in books]


def check(warehouse: Warehouse, mode: str, turn: int, loads: list[Load]) -> None:
    """See that the turn's table, and that of its arrays, hold what these loads left."""
    assert catalogues.found(warehouse, mode, turn) == catalogues.expected(mode, turn, loads), loads


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", KILLS)
def test_a_killed_load_leaves_the_old_or_the_new_state(
    way: str, mode: str, victim: Victim, request: pytest.FixtureRequest
) -> None:
    url: sa.URL = request.getfixturevalue({"sqlite": "sqlite_url", "mariadb": "mariadb_url"}.get(way, "postgres_url"))
    if way == "sqlite":
        url = url.update_query_dict({"timeout": "60"})
    elif way == "psycopg2":
        url = url.set(drivername="postgresql+psycopg2")
    chance = random.Random(f"{way} {mode} {os.environ.get('SEED', 0)}")
    warehouse = Warehouse(way, url, poolclass=sa.pool.NullPool)
    seconds = min(victim.load(warehouse, mode, turn) for turn in (0, 1))
    loads = [(0, 1), (1, 1)]
    for _ in range(KILLS[way] * EFFORT):
        turn = loads[-1][0] + 1
        victim.kill(warehouse, mode, turn, chance.uniform(0, 2 * seconds))
        after = applied(warehouse)
        done = len(after) - len(loads)
        assert after == loads + [(turn + n, 1) for n in range(done)]
        loads = after
        check(warehouse, mode, turn + done - 1, loads)
        check(warehouse, mode, turn + done, loads)
        if way != "portable":
            assert not [name for name in warehouse.tables() if "stage_" in name]
        # The retry of a load that was killed half-way, or before it could say that it was done.
        turn += done if not done or chance.random() < 0.5 else done - 1
        for attempt in (2, 3):
            result = catalogues.load(warehouse, mode, turn, attempt)
            loads.append((turn, attempt))
            assert result["rows_read"] == len(catalogues.catalogue(turn, attempt))
            assert attempt == 2 or mode == "append" or result["unchanged"] == result["rows_read"]
            check(warehouse, mode, turn, loads)
    assert applied(warehouse) == loads
    warehouse.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", FIRST_KILLS)
def test_a_first_load_that_is_killed_leaves_all_or_nothing(
    way: str, mode: str, victim: Victim, postgres_url: sa.URL
) -> None:
    chance = random.Random(f"first {way} {mode} {os.environ.get('SEED', 0)}")
    warehouse = Warehouse(way, postgres_url.set(drivername=f"postgresql+{way}"), poolclass=sa.pool.NullPool)
    seconds = victim.load(warehouse, mode, 0)
    for kill in range(FIRST_KILLS[way] * EFFORT):
        turn = kill % 2 * catalogues.TURNS_PER_TABLE  # a table without, and one with tables of its arrays
        warehouse.execute("DROP SCHEMA public CASCADE")
        warehouse.execute("CREATE SCHEMA public")
        victim.kill(warehouse, mode, turn, chance.uniform(0, seconds))
        loads = applied(warehouse)
        assert loads == [(turn + n, 1) for n in range(len(loads))]
        assert loads or warehouse.tables() <= {"_m2p_loads", "_m2p_columns", "_m2p_staged"}
        assert not [name for name in warehouse.tables() if "stage_" in name]
        check(warehouse, mode, turn, loads)
        turn += len(loads)
        catalogues.load(warehouse, mode, turn, attempt=2)
        check(warehouse, mode, turn, [*loads, (turn, 2)])
    warehouse.close()


def test_stages_of_dead_loads_are_swept_but_not_those_of_living_ones(warehouse: Warehouse) -> None:
    warehouse.load([{"id": "a"}])
    day_ago, now = int(time.time()) - 90_000, int(time.time())
    names = {
        f"_m2p_stage_load_{day_ago:x}_0123abcd": True,
        f"_m2p_stage_load_{now:x}_0123abcd": False,
        f"_m2p_stage_review_{day_ago:x}_0123abcd": False,
        f"_m2p_stage_review_{day_ago - 7 * 86400:x}_0123abcd": True,
        "_m2p_stage_mine": False,
        "_m2p_stage_load_notime_x": False,
        "my_m2p_stage_load_1_x": False,
    }
    for name in names:
        warehouse.execute(f"CREATE TABLE {name} (x INTEGER)")
    warehouse.load([{"id": "a"}])
    assert {name for name, gone in names.items() if not gone} == warehouse.tables() & set(names)
