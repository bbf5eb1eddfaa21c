"""MariaDB commits changes of tables by themselves. Loads die between them, and the next ones finish and tell what they did."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_m2p.exceptions import M2PLoadError
from tests.integration.warehouse.effort import EFFORT, PATIENCE
from tests.integration.warehouse.streams import Warehouse, counts

pytestmark = PATIENCE
MODES = ["upsert", "replace", "history"]


class Died(Exception):
    """What ends a load at once."""


@contextlib.contextmanager
def dying(warehouse: Warehouse, at: int) -> Iterator[list[int]]:
    """Have a load die at so many statements on its tables and books; what is yielded tells how many there were."""
    seen = [0]

    def count(connection: sa.Connection, cursor: object, statement: str, *_: object) -> None:
        if re.match(r"(ALTER|CREATE|DROP|INSERT|UPDATE|DELETE)\b", statement):
            seen[0] += 1
            if seen[0] == at:
                if re.match(r"(ALTER|CREATE|DROP) TABLE", statement):  # which commits first, and may fail then
                    connection.connection.commit()
                raise Died

    sa.event.listen(warehouse.engine, "before_cursor_execute", count)
    try:
        with contextlib.suppress(Died):
            yield seen
    finally:
        sa.event.remove(warehouse.engine, "before_cursor_execute", count)


OLD = b'[{"id":1,"b":true,"n":5,"m":7,"t":"2025-01-01T00:00:00Z","fees":[{"f":5,"g":true}]},{"id":9007199254740993,"b":false,"n":6,"m":8}]'
NEW = b'[{"id":1,"b":"x","n":1.5,"m":"y","t":"z","new":1,"fees":[{"f":1.50,"g":"x","h":1}],"more":[1]},{"id":"k"},{"id":9007199254740993}]'
NEXT = {
    "the same rows": NEW,
    "rows as before": b'[{"id":1,"b":false,"n":4,"m":6,"t":"2026-01-01T00:00:00Z","fees":[{"f":4,"g":false}]},{"id":9007199254740992,"n":9}]',
    "texts": b'[{"id":1,"b":"x","n":"x","m":"x","t":"x","fees":[{"f":"x","g":"x"}]},{"id":"9007199254740992","n":"9"}]',
}


#: What may stand in the tables: the values as they were sent, or as MariaDB spells them.
ALLOWED = {
    "": {
        "id": ("1", "k", "9007199254740993", "9007199254740992"),
        "b": ("true", "false", "x"),
        "n": ("5", "6", "1.5", "4", "9", "x"),
        "m": ("7", "8", "6", "x", "y"),
        "t": ("2025-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00Z", "x", "z"),
    },
    "__fees": {"f": ("5", "1.5", "1.50", "4", "x"), "g": ("true", "false", "x")},
}


@pytest.mark.parametrize("following", NEXT)
def test_what_a_load_changed_that_died_in_mariadb_is_told_by_the_next_once(mariadb: Warehouse, following: str) -> None:
    for died_at in itertools.count(1 + list(NEXT).index(following), max(1, 7 // EFFORT)):
        table = f"t{died_at}"
        spec: dict[str, Any] = {"table": table, "child_tables": True, "write_mode": "history"}
        mariadb.load(OLD, **spec)
        with dying(mariadb, died_at) as seen:
            mariadb.load(NEW, load_id="died", complete=False, **spec)
        for page in (NEXT[following], NEXT["rows as before"], NEXT["texts"], NEW):
            result = mariadb.load(page, load_id="died", complete=False, **spec)
            assert json.loads(mariadb.loads()[-1]["schema_changes"]) == result["schema_changes"]
            assert "_m2p_wider" not in {*mariadb.table(table).c.keys(), *mariadb.table(f"{table}__fees").c.keys()}
        made = [json.loads(load["schema_changes"]) for load in mariadb.loads() if load["table_name"] == table]
        kinds: dict[tuple[str, str], str] = {}
        for change in itertools.chain(*made):
            where = (change.get("table", table), change["column"])
            assert change.get("from") == kinds.get(where), (died_at, change)
            kinds[where] = change["type"]
        with mariadb.engine.connect() as connection:
            books = connection.exec_driver_sql(f"SELECT table_name, column_name, kind FROM _m2p_columns WHERE table_name REGEXP '^{table}(_|$)'")
            assert {(of, column): kind for of, column, kind in books} == kinds
        live = {row["id"]: row for row in mariadb.read(table, meta=True) if row["_m2p_valid_to"] is None}
        assert (live["1"]["b"], live["1"]["n"]) == ("x", "1.5")
        for of, allowed in ALLOWED.items():
            for row in mariadb.read(f"{table}{of}"):
                assert all(row[column] is None or row[column] in values for column, values in allowed.items()), (died_at, row)
        if seen[0] < died_at:  # it did not die
            break


@pytest.mark.parametrize("child_tables", [False, True])
def test_the_mark_of_deletion_that_a_dead_load_added_is_told_by_the_next_once(mariadb: Warehouse, child_tables: bool) -> None:
    page = b'[{"id":1,"fees":[{"f":1}]}]'
    for died_at in itertools.count(1):
        table = f"t{died_at}"
        spec: dict[str, Any] = {"table": table, "child_tables": child_tables}
        mariadb.load(page, **spec, write_mode="replace")
        with dying(mariadb, died_at) as seen:
            mariadb.load(page, load_id="died", **spec, write_mode="upsert")
        tables = [table, f"{table}__fees"][: 1 + child_tables]
        before = [of for of in tables if "_m2p_deleted_at" in mariadb.table(of).c]
        mariadb.execute("DELETE FROM _m2p_loads")  # as people do with old rows
        loads = [mariadb.load(page, load_id="died", **spec, write_mode="upsert")["schema_changes"] for _ in range(2)]
        if seen[0] >= died_at:
            assert loads == [
                [
                    {**({"table": of} if of != table else {}), "change": "add", "column": "_m2p_deleted_at", "field": None, "type": "instant"}
                    for of in sorted(tables, key=lambda of: of not in before)
                ],
                [],
            ]
        else:  # it did not die
            assert loads == [[], []]
            break


def test_what_a_dead_load_changed_is_told_where_the_clock_goes_back(mariadb: Warehouse) -> None:
    mariadb.load([{"id": 1}])
    mariadb.execute("UPDATE _m2p_loads SET finished_at = '2999-01-01'")  # by a host whose clock is ahead
    for died_at in itertools.count(1):
        with dying(mariadb, died_at):
            mariadb.load([{"id": 1, "v": 1}], load_id="died", tenant_id="other")
        if "v" in mariadb.table().c:
            break
    assert len(mariadb.loads()) == 1
    expected = {"change": "add", "column": "v", "field": "v", "type": "int"}
    assert [mariadb.load([{"id": 1}])["schema_changes"] for _ in range(2)] == [[expected], []]


@pytest.mark.parametrize("mode", MODES)
def test_a_load_that_dies_in_mariadb_changes_no_row(mariadb: Warehouse, mode: str) -> None:
    for died_at in itertools.count(1, max(1, 5 // EFFORT)):
        table = f"t{died_at}"
        spec: dict[str, Any] = {"table": table, "child_tables": True, "write_mode": mode}
        for tenant in ("ACME_CORP", "other"):
            mariadb.load(OLD, tenant_id=tenant, **spec)
        before = {of: len(mariadb.read(of)) for of in (table, f"{table}__fees")}
        with dying(mariadb, died_at) as seen:
            mariadb.load(NEW, complete=False, **spec)
        if seen[0] < died_at:
            break
        for tenant in ("ACME_CORP", "other"):
            assert counts(mariadb.load(OLD, tenant_id=tenant, **spec)) == (0, 0, 2, 0), (died_at, tenant)
        assert {of: len(mariadb.read(of)) for of in (table, f"{table}__fees")} == before, died_at


def test_a_table_in_mariadb_is_loaded_as_before_after_a_load_otherwise_was_refused(mariadb: Warehouse) -> None:
    rows = [{"id": 1, "a": 1}, {"id": 2, "a": 2}]
    mariadb.load(rows, write_mode="replace")
    for row, other in (({}, {"write_mode": "upsert"}), ({"fees": [{"f": 1}]}, {"write_mode": "replace", "child_tables": True})):
        with pytest.raises(M2PLoadError, match="more than max_delete_ratio"):
            mariadb.load([rows[0] | row], max_delete_ratio=0.1, **other)
        result = mariadb.load(rows, write_mode="replace")
        assert (counts(result), result["schema_changes"]) == ((0, 0, 2, 0), [])
        assert {"_m2p_deleted_at", "fees"}.isdisjoint(mariadb.table().c.keys())
    with mariadb.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM _m2p_columns WHERE table_name = 'products' AND load_id = ''").scalar() == 0
    mariadb.execute("DROP TABLE products")
    mariadb.load(rows)
    assert mariadb.load(rows)["schema_changes"] == []


def test_the_copy_of_a_key_that_a_dead_load_left_in_mariadb_goes(mariadb: Warehouse) -> None:
    rows = [{"id": 10**25 + 1}]
    mariadb.load(rows)
    for died_at in itertools.count(1):
        with dying(mariadb, died_at) as seen:
            mariadb.load([*rows, {"id": "x"}])
        left = [column.name for column in mariadb.table().c if column.name.startswith("_m2p_wider")]
        if left and not isinstance(mariadb.table().c.id.type, sa.String):
            break
        assert seen[0] >= died_at
    assert counts(mariadb.load([*rows, {"id": 10**25 + 2}])) == (1, 0, 1, 0)
    assert not [column.name for column in mariadb.table().c if column.name.startswith("_m2p_wider")]
    mariadb.load([*rows, {"id": 10**25 + 2}, {"id": "x"}])
    assert sorted(row["id"] for row in mariadb.read()) == [str(10**25 + 1), str(10**25 + 2), "x"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("child_table", [False, True])
def test_a_dropped_column_is_filled_in_mariadb_whenever_the_load_dies_that_brings_it_back(mariadb: Warehouse, mode: str, child_table: bool) -> None:
    rows = [{"id": n, "x": n, "fees": [{"f": n, "x": n}]} for n in range(3)]
    for died_at in itertools.count(1 + MODES.index(mode), max(1, 5 // EFFORT)):
        table = f"t{died_at}"
        spec: dict[str, Any] = {"table": table, "child_tables": True, "write_mode": mode}
        for tenant in ("ACME_CORP", "other"):
            mariadb.load(rows, tenant_id=tenant, **spec)
        of = f"{table}__fees" if child_table else table
        mariadb.execute(f"ALTER TABLE {of} DROP COLUMN x")
        with dying(mariadb, died_at) as seen:
            mariadb.load(rows[:1], complete=False, **spec)
        for tenant in ("ACME_CORP", "other"):
            mariadb.load(rows, tenant_id=tenant, **spec)
            live = [row["x"] for row in mariadb.read(of, meta=True, _m2p_tenant_id=tenant) if not row.get("_m2p_valid_to")]
            assert sorted(live, key=str) == [0, 1, 2], (died_at, tenant)
        if seen[0] < died_at:
            break
