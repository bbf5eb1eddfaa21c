"""
A loading process is killed at random moments. Each time the table must be in its old or its new state, and the retry right.

``EFFORT=20`` kills hundreds of times.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from tests.integration.warehouse import catalogues
from tests.integration.warehouse.effort import EFFORT
from tests.integration.warehouse.streams import Warehouse

ROOT = Path(__file__).parents[3]
KILLS = {"sqlite": 4, "psycopg": 4, "portable": 2, "mariadb": 2}


class Victim:
    """The process of ``victim.py``."""

    def __init__(self, warehouse: Warehouse) -> None:
        url = warehouse.url.render_as_string(hide_password=False)
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.integration.warehouse.victim", warehouse.way, url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _ask(self, line: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def kill(self, mode: str, turn: int, seconds: float) -> None:
        """Let it load from a turn on, and kill it after some seconds."""
        pid = self._ask(f"start {mode} {turn}")
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        assert self._ask("wait") == -signal.SIGKILL, "the loading process failed by itself"

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


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


def applied(warehouse: Warehouse) -> int:
    """Return the last turn that was applied, -1 for none."""
    if "_m2p_loads" not in warehouse.tables():
        return -1
    turns = [int(row["load_id"].removeprefix("turn-")) for row in warehouse.loads()]
    assert sorted(set(turns)) == list(range(len(set(turns))))
    return max(turns, default=-1)


@pytest.mark.parametrize("mode", ["append", "replace", "upsert", "history"])
@pytest.mark.parametrize("way", KILLS)
def test_a_killed_load_leaves_the_old_or_the_new_state(way: str, mode: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue({"sqlite": "sqlite_url", "mariadb": "mariadb_url"}.get(way, "postgres_url"))
    url = url.update_query_dict({"timeout": "60"}) if way == "sqlite" else url
    chance = random.Random(f"{way} {mode} {os.environ.get('SEED', 0)}")
    warehouse = Warehouse(way, url, poolclass=sa.pool.NullPool)
    victim = Victim(warehouse)
    try:
        done = -1
        victim.kill(mode, 0, 0.01)
        for kill in range(KILLS[way] * EFFORT):
            victim.kill(mode, done + 1, chance.uniform(0.02, 0.6))
            others(warehouse)
            done = applied(warehouse)
            assert catalogues.found(warehouse, mode, done) == (catalogues.expected(mode, done) if done >= 0 else []), (kill, done)
            if way != "portable":
                assert not [name for name in warehouse.tables() if "stage_" in name]
            done += 1
            result = catalogues.load(warehouse, mode, done, attempt=2)
            assert result["rows_read"] == len(catalogues.catalogue(done))
            assert catalogues.found(warehouse, mode, done) == catalogues.expected(mode, done), (kill, done)
            again = catalogues.load(warehouse, mode, done, attempt=3)
            assert mode == "append" or again["unchanged"] == again["rows_read"]
            assert catalogues.found(warehouse, mode, done) == catalogues.expected(mode, done), (kill, done)
    finally:
        victim.close()
        warehouse.close()


@pytest.mark.parametrize("mode", ["append", "replace", "upsert", "history"])
@pytest.mark.parametrize("way", ["psycopg", "psycopg2"])
def test_a_first_load_that_is_killed_leaves_all_or_nothing(way: str, mode: str, postgres_url: sa.URL) -> None:
    chance = random.Random(f"first {way} {mode} {os.environ.get('SEED', 0)}")
    warehouse = Warehouse(way, postgres_url.set(drivername=f"postgresql+{way}"), poolclass=sa.pool.NullPool)
    victim = Victim(warehouse)
    try:
        for kill in range(4 * EFFORT):
            warehouse.execute("DROP SCHEMA public CASCADE")
            warehouse.execute("CREATE SCHEMA public")
            victim.kill(mode, 0, chance.uniform(0.02, 0.3))
            others(warehouse)
            done = applied(warehouse)
            assert catalogues.found(warehouse, mode, done) == (catalogues.expected(mode, done) if done >= 0 else []), (kill, done)
            assert done >= 0 or warehouse.tables() <= {"_m2p_loads", "_m2p_columns", "_m2p_staged"}
            assert not [name for name in warehouse.tables() if "stage_" in name]
            catalogues.load(warehouse, mode, done + 1, attempt=2)
            assert catalogues.found(warehouse, mode, done + 1) == catalogues.expected(mode, done + 1), (kill, done)
    finally:
        victim.close()
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
