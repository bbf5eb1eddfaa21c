"""PostgreSQL: the first load's rows go straight into what becomes the table, within one transaction."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from itertools import count
from types import FrameType
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_m2p.client.page import Page
from airflow_provider_m2p.exceptions import M2PLoadError, M2PSchemaError
from airflow_provider_m2p.warehouse import copy, postgres
from tests.integration.warehouse.streams import Pages, Warehouse
from tests.integration.warehouse.test_concurrency import Gated, in_thread
from tools.postgres import database_url, postgres_server

MODES = ["append", "replace", "upsert", "history"]
# A tenant with all that a literal may trip over, and fields named like the columns of a stage.
TENANT = "AC'ME\\%s:x\"é"
PAGES: list[list[dict[str, Any]]] = [
    [{"id": f"p{n}", "c1": n, "ord": "x", "row_hash": None, "_m2p_c0": n % 2 == 0, "at": "2025-01-01T00:00:00Z"} for n in range(60)],
    [{"id": "p60", "c1": Decimal("1.50"), "ord": 7, "row_hash": [1], "limits": {"daily": 1}}, {"id": "p60", "c1": 2, "ord": "last"}],
]


@pytest.fixture(params=["psycopg", "psycopg2"])
def direct(request: pytest.FixtureRequest, postgres_url: sa.URL) -> Iterator[Warehouse]:
    warehouse = Warehouse(request.param, postgres_url.set(drivername=f"postgresql+{request.param}"))
    yield warehouse
    warehouse.close()


def statements(warehouse: Warehouse) -> list[str]:
    seen: list[str] = []
    sa.event.listen(warehouse.engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: seen.append(statement))
    return seen


def by_a_stage(warehouse: Warehouse, setting: str = "idle_in_transaction_session_timeout=1h") -> Warehouse:
    return Warehouse(warehouse.way, warehouse.url, connect_args={"options": f"-c {setting}"})


def form(warehouse: Warehouse, table: str) -> tuple[Any, ...]:
    """Return all there is to know of a table but the order of its columns."""
    inspector = sa.inspect(warehouse.engine)
    columns = [{**column, "type": repr(column["type"])} for column in inspector.get_columns(table)]
    indexes = [(index["column_names"], index["unique"]) for index in inspector.get_indexes(table)]
    key = inspector.get_pk_constraint(table)["constrained_columns"]
    return sorted(columns, key=lambda column: str(column["name"])), indexes, key


@pytest.mark.parametrize("mode", MODES)
def test_the_table_is_the_one_that_a_stage_would_have_filled(direct: Warehouse, mode: str) -> None:
    others = by_a_stage(direct)
    said = {}
    for warehouse, table in ((direct, "in_place"), (others, "by_stage")):
        seen = statements(warehouse)
        result = warehouse.load(*PAGES, table=table, write_mode=mode, load_id="first", tenant_id=TENANT)
        assert any("CREATE TEMPORARY TABLE" in statement for statement in seen) == (table == "by_stage")
        assert any("INSERT INTO by_stage" in statement for statement in seen) == (table == "by_stage")
        del result["table"], result["seconds"]
        rows = [
            {name: value for name, value in row.items() if name not in ("_m2p_loaded_at", "_m2p_valid_from")}
            for row in warehouse.read(table, meta=True)
        ]
        said[table] = result, form(warehouse, table), rows, warehouse.fields(table)
        assert len(rows) == result["inserted"] == 61
        assert result["duplicates"] == 1
    assert said["in_place"] == said["by_stage"]
    moments = {row["_m2p_loaded_at"] for row in direct.read("in_place", meta=True)}
    assert moments == {row["finished_at"] for row in direct.read("_m2p_loads", meta=True) if row["table_name"] == "in_place"}
    # And the next load finds it as the first one left it.
    again = direct.load(*PAGES, table="in_place", write_mode=mode, load_id="first", tenant_id=TENANT)
    assert (again["inserted"], again["updated"], again["unchanged"]) == ((61, 0, 0) if mode == "append" else (0, 0, 61))
    assert not [name for name in direct.tables() if "stage_" in name]
    others.close()


@pytest.mark.parametrize("setting", ["idle_in_transaction_session_timeout=1h", "transaction_timeout=1h"])
def test_no_transaction_is_held_open_where_they_are_limited(direct: Warehouse, setting: str) -> None:
    limited = by_a_stage(direct, setting)
    seen = statements(limited)
    assert limited.load(*PAGES)["inserted"] == 61
    assert any("CREATE TEMPORARY TABLE" in statement for statement in seen)
    limited.close()


def test_who_decodes_the_log_sees_no_table_by_a_stages_name() -> None:
    with postgres_server("-c wal_level=logical") as port:
        decoded = Warehouse("psycopg", sa.make_url(database_url(port)))
        seen = statements(decoded)
        assert decoded.load(*PAGES)["inserted"] == 61
        assert any("CREATE TEMPORARY TABLE" in statement for statement in seen)
        decoded.close()


@pytest.mark.parametrize("mode", MODES)
# If the table has just the same columns, the list need not be read again.
@pytest.mark.parametrize(("tenant", "other"), [("ACME_CORP", {"w": "x"}), ("GLOBEX", {"v": -1})])
def test_a_table_that_another_load_made_meanwhile_takes_the_rows(
    direct: Warehouse, mode: str, tenant: str, other: dict[str, Any]
) -> None:
    slow = Gated([{"id": f"p{n}", "v": n} for n in range(5)])
    future = in_thread(lambda: direct.loader(write_mode=mode).run(slow))
    assert slow.read.wait(60)
    direct.load([{"id": f"p{n}", **other} for n in range(3)], write_mode=mode, tenant_id=tenant)
    slow.gate.set()
    result = future.result(60)
    assert (slow.read_again is None) == (tenant == "GLOBEX")
    updated = 3 if tenant == "ACME_CORP" and mode != "append" else 0
    assert (result.inserted, result.updated) == (5 - updated, updated)
    live = {"_m2p_valid_to": None} if mode == "history" else {}
    rows = direct.read(meta=True, _m2p_tenant_id="ACME_CORP", _m2p_load_id="load-1", **live)
    assert [(row["id"], row["v"]) for row in rows] == [(f"p{n}", n) for n in range(5)]
    assert not [name for name in direct.tables() if "stage_" in name]


def test_a_table_may_have_as_many_columns_as_the_database_takes(direct: Warehouse) -> None:
    row = {"id": "a"} | {f"f{n}": True for n in range(1593)}
    assert direct.load([row], write_mode="upsert")["inserted"] == 1
    assert len(sa.inspect(direct.engine).get_columns("products")) == 1600
    assert direct.read() == [row]
    assert not [name for name in direct.tables() if "stage_" in name]


def test_a_new_table_is_no_larger_than_its_rows_and_ready_for_the_next_load(direct: Warehouse) -> None:
    pages = [[{"id": f"p{page}-{n}", "text": "x" * 200} for n in range(1000)] for page in range(20)]
    assert direct.load(*pages, write_mode="upsert")["inserted"] == 20_000
    with direct.engine.connect() as connection:
        used, all_pages, known_rows, key = connection.execute(sa.text("""
            SELECT (SELECT count(DISTINCT (ctid::text::point)[0]) FROM products),
                pg_relation_size('products') / current_setting('block_size')::int,
                (SELECT reltuples FROM pg_class WHERE relname = 'products'),
                (SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'products'::regclass AND contype = 'p')
        """)).one()
    assert all_pages < 1.15 * used
    assert 18_000 < known_rows < 22_000
    assert key.startswith("PRIMARY KEY (_m2p_tenant_id, id) INCLUDE (_m2p_deleted_at, _m2p_raw_hash, _m2p_row_hash)")
    # A table whose key has nothing else with it, such as one that somebody made by hand, is loaded all the same.
    direct.execute("ALTER TABLE products DROP CONSTRAINT products_pkey, ADD PRIMARY KEY (_m2p_tenant_id, id)")
    again = direct.load(*pages[1:], [{"id": "p0-0", "text": "y"}], write_mode="upsert")
    assert (again["updated"], again["unchanged"], again["deleted"]) == (1, 19_000, 999)


def test_no_statement_takes_as_long_as_the_platform_where_statements_are_limited(direct: Warehouse) -> None:
    class Slow(Pages):
        def __iter__(self) -> Iterator[Page]:
            for page in super().__iter__():
                yield page
                time.sleep(0.7)

    limited = by_a_stage(direct, "statement_timeout=400")
    seen = statements(limited)
    result = limited.loader().run(Slow([[{"id": f"p{page}-{n}"} for n in range(1000)] for page in range(3)]))
    assert result.inserted == 3000
    assert not any("CREATE TEMPORARY TABLE" in statement for statement in seen)
    limited.close()


def test_rows_that_the_server_refuses_on_their_way_end_the_load(direct: Warehouse) -> None:
    class Broken(Pages):
        def __iter__(self) -> Iterator[Page]:
            for page in super().__iter__():
                yield page
                if page.number == 1:
                    # Nobody else sees the stage yet: only who ends its connection can disturb it.
                    others = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%'"
                    direct.execute(f"SELECT pg_terminate_backend(pid) {others}")

    before = direct.tables()
    with pytest.raises(M2PLoadError):
        direct.loader().run(Broken([[{"id": f"p{page}-{n}"} for n in range(1000)] for page in range(30)]))
    assert direct.tables() == before | {"_m2p_loads", "_m2p_columns", "_m2p_staged"}


class Interrupt:
    """Raises KeyboardInterrupt once, before some line of what feeds a COPY is run, as a signal may."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __call__(self, frame: FrameType, event: str, _: Any) -> Interrupt | None:
        code = frame.f_code
        feeds = code.co_filename == postgres.__file__ and code.co_name in ("write_lines", "settle", "stop")
        if not (feeds or code.co_filename == copy.__file__):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def test_a_signal_at_any_line_ends_the_load(direct: Warehouse) -> None:
    pages = [[{"id": f"p{page}-{n}"} for n in range(1000)] for page in range(2)]
    direct.load([{"id": "a"}], table="other")
    before = direct.tables()

    def load(line: int) -> bool:
        interrupt = Interrupt(line)
        sys.settrace(interrupt)
        try:
            direct.load(*pages)
        except KeyboardInterrupt:
            return False
        finally:
            sys.settrace(None)
        return interrupt.left > 0

    for line in count(1):
        if in_thread(lambda line=line: load(line)).result(30):
            break
        for thread in [thread for thread in threading.enumerate() if thread.name.startswith("m2p-copy")]:
            gc.collect()  # a thread that nobody told to end goes with its pool
            thread.join(30)
            assert not thread.is_alive()
        if direct.tables() != before:
            assert len(direct.read()) == 2000
            direct.execute("DROP TABLE products; DELETE FROM _m2p_columns WHERE table_name = 'products'")
            direct.execute("DELETE FROM _m2p_loads WHERE table_name = 'products'")
    assert line > 40
    assert len(direct.read()) == 2000


@pytest.mark.parametrize("mode", MODES)
def test_a_key_may_have_as_many_columns_as_an_index(direct: Warehouse, mode: str) -> None:
    keys = tuple(f"k{n}" for n in range(30))
    row = dict.fromkeys(keys, "x")
    assert direct.load([row], key_columns=keys, write_mode=mode)["inserted"] == 1
    assert direct.load([row], key_columns=keys, write_mode=mode, load_id="load-1")["unchanged"] == (mode != "append")


def test_a_key_that_went_with_one_of_its_columns_can_be_made_again(direct: Warehouse) -> None:
    direct.load([{"id": "a"}, {"id": "b"}], write_mode="upsert")
    direct.execute("ALTER TABLE products DROP COLUMN _m2p_deleted_at")
    with pytest.raises(M2PSchemaError, match=r"\(_m2p_tenant_id, id\), the table has no unique key. Add that key"):
        direct.load([{"id": "a"}], write_mode="upsert")
    direct.execute("ALTER TABLE products ADD PRIMARY KEY (_m2p_tenant_id, id)")
    assert direct.load([{"id": "a"}], write_mode="upsert")["deleted"] == 1


def test_a_load_that_fails_leaves_nothing(direct: Warehouse) -> None:
    before = direct.tables()
    with pytest.raises(Exception, match="NUL characters"):
        direct.load(PAGES[0], [{"id": "p61", "ord": "\0"}])
    assert direct.tables() == before | {"_m2p_loads", "_m2p_columns", "_m2p_staged"}
    assert direct.load(*PAGES)["inserted"] == 61
