"""The connection is lost at every statement of a load: the tables are in the old or the new state, and the retry is exact.

``EFFORT=20`` loses it at each statement, less at every few.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import pytest
import sqlalchemy as sa
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from airflow_provider_m2p.exceptions import M2PLoadError
from airflow_provider_m2p.retries import HOPELESS
from tests.integration.warehouse.effort import EFFORT
from tests.integration.warehouse.proxy import MARIADB, POSTGRES, Proxy
from tests.integration.warehouse.streams import Warehouse

#: A table takes so many loads, so that it does not grow without end.
TURNS: Final = 4
_CHANGES: Final = re.compile(rb"\b(INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|COPY|COMMIT|SET)\b")

State = list[Any]


def changes(statement: bytes) -> object:
    """Of other statements it is the same to the database, and to the client, whether they arrive."""
    return _CHANGES.search(statement)


def is_commit(statement: bytes) -> object:
    return b"COMMIT" in statement


def catalogue(turn: int) -> list[dict[str, Any]]:
    """Some rows change, come and go with each turn, as do elements of their arrays; one field is new."""
    return [
        {"id": f"p{n}", "v": (turn + n) // 2, "fees": [{"amount": turn}] * (1 + (turn + n) % 2), f"f{turn}": turn}
        for n in range(6)
        if (n + turn) % 4
    ]


def load(warehouse: Warehouse, table: str, turn: int, **spec: Any) -> None:
    rows = catalogue(turn)
    warehouse.load(rows[:3], rows[3:], table=table, load_id=f"turn-{turn}", max_delete_ratio=1, **spec)


def state(warehouse: Warehouse, table: str) -> State:
    """Return all that a table, the tables of its arrays and the books hold; a load's moment as its id."""
    with warehouse.engine.connect() as connection:
        present = set(sa.inspect(connection).get_table_names())

        def rows(name: str, where: str = "") -> list[dict[str, Any]]:
            found = connection.exec_driver_sql(f"SELECT * FROM {name} {where}").mappings() if name in present else ()
            return [dict(row) for row in found]

        loads = rows("_m2p_loads", f"WHERE table_name = '{table}'")
        moments = {row["finished_at"]: row["load_id"] for row in loads}
        tables = [
            sorted(
                [
                    sorted((k, moments[v] if isinstance(v, datetime) else str(v)) for k, v in row.items() if v is not None)
                    for row in rows(name)
                ]
            )
            for name in (table, f"{table}__fees")
        ]
    return [sorted({row["load_id"] for row in loads}), *tables]


@retry(retry=retry_if_result(bool), stop=stop_after_delay(120), wait=wait_fixed(0.05))
def stages(warehouse: Warehouse) -> list[str]:
    """Return the stages that are left once the server has noticed which clients are gone."""
    query = "SELECT relname FROM pg_class WHERE relname LIKE '_m2p_stage|_%%' ESCAPE '|'"
    with warehouse.engine.connect() as connection:
        return list(connection.exec_driver_sql(query).scalars()) if warehouse.is_postgres else []


def lose_each(
    warehouse: Warehouse, *, first: int, step: int, delivered: bool, counts: Callable[[bytes], object], **spec: Any
) -> int:
    """
    Load again and again through a connection that is lost a step later each time, and return how many statements a load has.

    :param first: the first turn that is loaded so; 0 loses the connection while the table is created.
    """
    protocol = MARIADB if warehouse.way == "mariadb" else POSTGRES
    states: list[State] = [[[], [], []]]
    for turn in range(TURNS):
        load(warehouse, "control", turn, **spec)
        states.append(state(warehouse, "control"))
    turn, table = TURNS, ""
    for tries, cut in enumerate(range(1, 1000, step), start=1):
        if turn == TURNS or (turn and not first):
            table = f"t{cut}"
            for turn in range(first):
                load(warehouse, table, turn, **spec)
            turn = first
        with Proxy(warehouse.url.port or 0, cut, delivered=delivered, counts=counts, protocol=protocol) as proxy:
            broken = Warehouse(warehouse.way, warehouse.url.set(port=proxy.port), poolclass=sa.pool.NullPool)
            error = None
            try:
                load(broken, table, turn, attempt=cut, **spec)
            except M2PLoadError as caught:
                error = caught
        found = state(warehouse, table)
        assert found in (states[turn], states[turn + 1]), (cut, str(error))
        if error is None:
            assert found == states[turn + 1], cut
        else:
            assert table in str(error)
            assert "Run the task again" in str(error) or "Nothing was written" in str(error)
            assert "Nothing was written" not in str(error) or found == states[turn], (cut, str(error))
            assert not isinstance(error, HOPELESS)
        if not proxy.fired:
            assert error is None
            assert not stages(warehouse)
            return proxy.statements
        if found == states[turn + 1] or tries % 8 == 0:
            load(warehouse, table, turn, attempt=1000, **spec)
            assert state(warehouse, table) == states[turn + 1], cut
            turn += 1
    raise AssertionError("a load that never ends")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(("delivered", "counts"), [(False, bool), (True, changes)])
def test_a_connection_lost_at_any_statement(
    postgres: Warehouse, first: int, delivered: bool, counts: Callable[[bytes], object]
) -> None:
    spec = {"write_mode": "history", "child_tables": True}
    assert lose_each(postgres, first=first, step=max(1, 4 // EFFORT), delivered=delivered, counts=counts, **spec) > 20


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_a_connection_lost_after_any_commit(postgres: Warehouse, mode: str) -> None:
    """It was applied, and nobody was told: the error must not claim what it cannot know."""
    assert lose_each(postgres, first=1, step=1, delivered=True, counts=is_commit, write_mode=mode) > 3


@pytest.mark.parametrize("delivered", [True, False])
@pytest.mark.parametrize("way", ["psycopg2", "mariadb"])
def test_a_connection_lost_at_some_statements(way: str, delivered: bool, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("mariadb_url" if way == "mariadb" else "postgres_url")
    warehouse = Warehouse(way, url if way == "mariadb" else url.set(drivername="postgresql+psycopg2"))
    step = max(1, 11 // EFFORT)
    lose_each(warehouse, first=1, step=step, delivered=delivered, counts=bool, write_mode="upsert", child_tables=True)
    warehouse.close()
