"""Loads at the same time, locks, clocks, and connections that are lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_m2p.client.page import Page
from airflow_provider_m2p.exceptions import M2PLoadError, M2PSchemaError
from tests.integration.warehouse.streams import Pages, Rows, Warehouse, counts, in_utc

MODES = ["append", "replace", "upsert", "history"]
TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Gated(Pages):
    """A list whose end is told only once a gate is opened."""

    def __init__(self, *pages: Rows) -> None:
        super().__init__(pages)
        self.read = threading.Event()
        self.gate = threading.Event()

    def __iter__(self) -> Iterator[Page]:
        yield from super().__iter__()
        self.read.set()
        assert self.gate.wait(60)


def in_thread(run: Callable[[], Any]) -> Future[Any]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(run)
    pool.shutdown(wait=False)
    return future


def rows(value: Any, count: int = 30) -> list[dict[str, Any]]:
    return [{"id": f"p{n}", "v": value} for n in range(count)]


def live(warehouse: Warehouse, tenant: str = "ACME_CORP") -> list[Any]:
    found = warehouse.read(meta=True, _m2p_tenant_id=tenant)
    return [row["v"] for row in found if row.get("_m2p_deleted_at") is None and row.get("_m2p_valid_to") is None]


@pytest.mark.parametrize("mode", MODES)
def test_many_tenants_load_at_once_into_a_table_that_is_missing(warehouse: Warehouse, mode: str) -> None:
    tenants = [f"T{n}" for n in range(5)]

    def run(tenant: str) -> list[dict[str, Any]]:
        shuffled = [dict(sorted(row.items(), reverse=hash(tenant + row["id"]) % 2 == 0)) for row in rows(tenant)]
        shuffled[0][f"only_{tenant}"] = 1
        return [warehouse.load(shuffled, tenant_id=tenant, write_mode=mode, load_id=f"{tenant}-{n}") for n in range(2)]

    with ThreadPoolExecutor(len(tenants)) as pool:
        results = list(pool.map(run, tenants))
    for tenant, (first, second) in zip(tenants, results, strict=True):
        assert counts(first) == (30, 0, 0, 0)
        assert counts(second) == ((30, 0, 0, 0) if mode == "append" else (0, 0, 30, 0))
        assert live(warehouse, tenant) == [tenant] * (60 if mode == "append" else 30)
    assert len([row for row in warehouse.loads() if row["tenant_id"] in tenants]) == 10


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("turn", range(2))
def test_one_task_run_twice_at_once(warehouse: Warehouse, mode: str, turn: int) -> None:
    """A zombie and its retry: both have read the platform before either writes."""
    if turn:
        warehouse.load(rows(0), write_mode=mode)
    one, two = Gated(rows(1)), Gated(rows(1))
    futures = [in_thread(lambda s=s: warehouse.loader(write_mode=mode, load_id="same").run(s)) for s in (one, two)]  # type: ignore[misc]
    assert one.read.wait(60)
    assert two.read.wait(60)
    one.gate.set()
    two.gate.set()
    done = [future.result(60).as_dict() for future in futures]
    assert sorted(live(warehouse)) == [0] * (30 if turn and mode == "append" else 0) + [1] * 30
    if mode == "history":
        assert len(warehouse.read()) == 30 * (turn + 1)
    written = [row["inserted"] + row["updated"] for row in done]
    assert sorted(written) == ([30, 30] if mode == "append" else [0, 30])


@pytest.mark.parametrize("warehouse", ["psycopg", "psycopg2", "mariadb"], indirect=True)
@pytest.mark.parametrize("mode", MODES)
def test_a_table_is_the_same_whether_its_schema_is_named_or_not(warehouse: Warehouse, mode: str) -> None:
    named = sa.inspect(warehouse.engine).default_schema_name
    one, two = Gated(rows(1)), Gated(rows(1))
    loads = zip((one, two), (None, named), strict=True)
    futures = [
        in_thread(lambda s=s, n=n: warehouse.loader(write_mode=mode, load_id="same", schema=n).run(s))  # type: ignore[misc]
        for s, n in loads
    ]
    assert one.read.wait(60)
    assert two.read.wait(60)
    one.gate.set()
    two.gate.set()
    written = sorted(future.result(60).inserted for future in futures)
    assert written == ([30, 30] if mode == "append" else [0, 30])
    assert len(warehouse.read()) == 30


# SQLite looks at one snapshot, and MariaDB under its lock.
@pytest.mark.parametrize("warehouse", ["psycopg", "psycopg2", "portable"], indirect=True)
@pytest.mark.parametrize("mode", MODES)
def test_a_table_that_comes_into_being_while_a_load_looks_at_it(warehouse: Warehouse, mode: str) -> None:
    looked = False

    @sa.event.listens_for(warehouse.engine, "after_cursor_execute")
    def meanwhile(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal looked
        if statement.startswith("SELECT _m2p_columns.column_name") and not looked:
            looked = True
            in_thread(lambda: warehouse.load(rows(1), tenant_id="GLOBEX", write_mode=mode)).result(60)

    assert counts(warehouse.load(rows(1), write_mode=mode)) == (30, 0, 0, 0)
    assert looked
    assert live(warehouse) == live(warehouse, "GLOBEX") == [1] * 30


def test_a_table_that_another_load_makes_for_another_write_mode_meanwhile(first_class: Warehouse) -> None:
    slow = Gated(rows(1))
    future = in_thread(lambda: first_class.loader(write_mode="upsert").run(slow))
    assert slow.read.wait(60)
    first_class.load(rows(2), write_mode="append", tenant_id="GLOBEX")
    slow.gate.set()
    with pytest.raises(M2PSchemaError, match="exists with an incompatible key: write_mode='upsert'"):
        future.result(60)
    assert live(first_class) == []
    assert live(first_class, "GLOBEX") == [2] * 30


@pytest.mark.parametrize("mode", ["replace", "upsert", "history"])
def test_a_load_that_skipped_rows_which_changed_meanwhile_is_refused(warehouse: Warehouse, mode: str) -> None:
    warehouse.load(rows(1), write_mode=mode)
    slow = Gated(rows(1))
    future = in_thread(lambda: warehouse.loader(write_mode=mode).run(slow))
    assert slow.read.wait(60)
    warehouse.load(rows(2), write_mode=mode)
    slow.gate.set()
    with pytest.raises(M2PLoadError, match="Another load of tenant 'ACME_CORP' changed products while this one read"):
        future.result(60)
    assert live(warehouse) == [2] * 30


@pytest.mark.parametrize("mode", ["replace", "upsert", "history"])
def test_a_load_of_another_tenant_meanwhile_does_no_harm(warehouse: Warehouse, mode: str) -> None:
    warehouse.load(rows(1), write_mode=mode)
    slow = Gated(rows(1))
    future = in_thread(lambda: warehouse.loader(write_mode=mode).run(slow))
    assert slow.read.wait(60)
    # It even changes the table under the slow one: a new column, a wider one.
    warehouse.load([{"id": "x", "w": 1, "v": "text"}], write_mode=mode, tenant_id="GLOBEX")
    slow.gate.set()
    assert counts(future.result(60).as_dict()) == (0, 0, 30, 0)
    assert live(warehouse) == ["1"] * 30


@pytest.mark.parametrize("mode", ["replace", "upsert", "history"])
@pytest.mark.parametrize("is_new", [False, True], ids=["later", "first"])
def test_columns_that_two_loads_add_at_once(warehouse: Warehouse, mode: str, is_new: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    if not is_new:
        warehouse.load([{"id": "a"}], write_mode=mode)
    slow = Gated([{"id": "a", "x": 1}])
    future = in_thread(lambda: warehouse.loader(write_mode=mode).run(slow))
    assert slow.read.wait(60)
    warehouse.load([{"id": "a", "z": 1}], write_mode=mode, tenant_id="GLOBEX")
    slow.gate.set()
    future.result(60)
    assert "changed while this load read the platform. Reading the list once more." in caplog.text
    # The hash tells a value in one column from the same in another.
    assert counts(warehouse.load([{"id": "a", "x": 1}], write_mode=mode)) == (0, 0, 1, 0)
    assert counts(warehouse.load([{"id": "a", "z": 1}], write_mode=mode)) == (0, 1, 0, 0)
    own = warehouse.read(meta=True, _m2p_tenant_id="ACME_CORP")
    assert [(row["x"], row["z"]) for row in own if not row.get("_m2p_valid_to")] == [(None, 1)]


class Restless(Pages):
    """A list during each reading of which another tenant's load adds a column."""

    def __init__(self, warehouse: Warehouse, count: int = 0) -> None:
        super().__init__([[{"id": "a", "own": 1}]])
        self._warehouse = warehouse
        self.count = count

    def __iter__(self) -> Iterator[Page]:
        yield from super().__iter__()
        self._warehouse.load([{"id": "a", f"z{self.count}": 1}], tenant_id="GLOBEX")

    def again(self) -> Pages:
        return Restless(self._warehouse, self.count + 1)


def test_a_list_is_not_read_again_for_ever(first_class: Warehouse) -> None:
    first_class.load([{"id": "a"}])
    with pytest.raises(M2PLoadError, match=r"columns of 'products' changed while this load read the platform\. Nothing was written; run the task again"):
        in_thread(lambda: first_class.loader().run(Restless(first_class))).result(60)
    assert "own" not in first_class.table().c
    assert counts(first_class.load([{"id": "a", "own": 1}])) == (0, 1, 0, 0)


@pytest.mark.parametrize("mode", ["replace", "upsert", "history"])
def test_a_table_emptied_while_a_load_reads_is_not_left_empty(warehouse: Warehouse, mode: str) -> None:
    warehouse.load(rows(1), write_mode=mode)
    slow = Gated(rows(1), [{"id": "new", "v": 1}])  # the first page is looked up for certain when the second is taken in
    future = in_thread(lambda: warehouse.loader(write_mode=mode).run(slow))
    assert slow.read.wait(60)
    warehouse.execute("DELETE FROM products")
    slow.gate.set()
    with pytest.raises(M2PLoadError, match="changed products while this one read"):
        future.result(60)
    assert counts(warehouse.load(rows(1), write_mode=mode)) == (30, 0, 0, 0)


def test_two_loads_add_different_columns(warehouse: Warehouse) -> None:
    warehouse.load(rows(1))
    one, two = Gated([row | {"one": 1} for row in rows(1)]), Gated([row | {"two": 2} for row in rows(1)], [{"id": "new", "one": "x"}])
    futures = [in_thread(lambda s=s, t=t: warehouse.loader(tenant_id=t).run(s)) for s, t in ((one, "A"), (two, "B"))]  # type: ignore[misc]
    for stream, future in zip((one, two), futures, strict=True):
        assert stream.read.wait(60)
        stream.gate.set()
        future.result(60)
    assert {(row["v"], row["one"], row["two"]) for row in warehouse.read(_m2p_tenant_id="A")} == {(1, "1", None)}
    assert {(row["v"], row["one"], row["two"]) for row in warehouse.read(_m2p_tenant_id="B")} == {(1, None, 2), (None, "x", None)}
    again = warehouse.load([row | {"two": 2} for row in rows(1)], [{"id": "new", "one": "x"}], tenant_id="B")
    assert counts(again) == (0, 0, 31, 0)


def test_a_load_waits_no_longer_than_it_was_told(warehouse: Warehouse) -> None:
    warehouse.load(rows(1))
    if warehouse.way == "portable":  # its locks are the database's own, and so is the time to wait for them
        warehouse.execute(f"ALTER DATABASE {warehouse.url.database} SET lock_timeout = '300ms'")
        warehouse.engine.dispose()
    message = {"sqlite": "The database stayed locked by another process for more than 1 s", "portable": "lock timeout"}
    with warehouse.engine.connect() as holder:
        dialect = warehouse.loader()._dialect(holder)
        holder.rollback()
        name = f"{dialect.default_schema}.products"
        with dialect.transaction(name, 5):
            holder.execute(sa.text("UPDATE _m2p_columns SET load_id = load_id"))
            second = Gated(rows(2))
            with warehouse.engine.connect() as other:  # what a load does once all pages are read
                waiting = warehouse.loader()._dialect(other)
                other.rollback()
                with pytest.raises((M2PLoadError, sa.exc.DBAPIError), match=message.get(warehouse.way, r"Another load held \w+\.products")):
                    with waiting.transaction(name, 1):
                        other.execute(sa.text("UPDATE _m2p_columns SET load_id = load_id"))
                if other.in_transaction():
                    other.rollback()
                waiting.close()
            future = in_thread(lambda: warehouse.loader(lock_seconds=1).run(second))
            if warehouse.way != "mariadb":  # which does not even look at a table that is being changed
                assert second.read.wait(60)
                second.gate.set()
                with pytest.raises(M2PLoadError, match=message.get(warehouse.way, r"Another load held \w+\.products for more than 1 s")):
                    future.result(60)
        dialect.close()
    second.gate.set()
    if warehouse.way == "mariadb":
        assert counts(future.result(60).as_dict()) == (0, 30, 0, 0)
    else:
        assert counts(warehouse.load(rows(2), lock_seconds=1)) == (0, 30, 0, 0)


def test_a_statement_timeout_of_the_server_is_a_clear_error(postgres: Warehouse) -> None:
    postgres.load(rows(1))
    postgres.execute(f"ALTER DATABASE {postgres.url.database} SET statement_timeout = '200ms'")
    postgres.engine.dispose()
    with postgres.engine.connect() as holder:
        holder.execute(sa.text("UPDATE products SET v = v"))
        with pytest.raises(M2PLoadError, match=r"QueryCanceled \(57014\): canceling statement due to statement timeout"):
            postgres.load(rows(2))
    assert live(postgres) == [1] * 30
    assert counts(postgres.load(rows(2))) == (0, 30, 0, 0)


def test_a_reader_is_never_in_the_way_of_sqlite(sqlite: Warehouse) -> None:
    sqlite.load(rows(1))
    with sqlite.engine.connect() as reader:
        found = reader.execute(sa.text("SELECT v FROM products"))
        assert found.fetchone() is not None
        with pytest.raises(M2PLoadError, match="locked"):
            sqlite.load(rows(2), lock_seconds=0.3)
        found.close()
    assert counts(sqlite.load(rows(2))) == (0, 30, 0, 0)


def test_history_stays_in_order_though_the_clock_goes_backwards(warehouse: Warehouse) -> None:
    warehouse.load(rows(1), write_mode="history")
    # As if the first load had run on a host whose clock is a day ahead.
    (books,) = warehouse.loads()
    ahead = books["finished_at"] + timedelta(days=1)
    warehouse.execute("UPDATE _m2p_loads SET finished_at = :ahead", ahead=_bound(warehouse, ahead))
    warehouse.execute("UPDATE products SET _m2p_valid_from = :ahead", ahead=_bound(warehouse, ahead))
    for value in (2, 3):
        assert counts(warehouse.load(rows(value), write_mode="history")) == (0, 30, 0, 0)
    intervals: dict[str, list[tuple[Any, Any, Any]]] = {}
    for row in warehouse.read(meta=True):
        intervals.setdefault(row["id"], []).append((in_utc(row["_m2p_valid_from"]), in_utc(row["_m2p_valid_to"]), row["v"]))
    for states in intervals.values():
        (a, b, _), (c, d, _), (e, f, _) = sorted(states, key=lambda s: s[0])
        assert a < b == c < d == e
        assert f is None
        assert [state[2] for state in sorted(states, key=lambda s: s[0])] == [1, 2, 3]


def _bound(warehouse: Warehouse, moment: Any) -> Any:
    return moment.isoformat(" ", "microseconds") if warehouse.way == "sqlite" else moment


def test_a_backend_that_is_terminated_while_a_load_reads(postgres: Warehouse) -> None:
    postgres.load(rows(1))
    slow = Gated(rows(2))
    future = in_thread(lambda: postgres.loader(load_id="x").run(slow))
    assert slow.read.wait(60)
    with postgres.engine.connect() as connection:
        assert connection.exec_driver_sql(TERMINATE).scalars().all() == [True]
    slow.gate.set()
    with pytest.raises(M2PLoadError, match="The connection was lost during the load into products"):
        future.result(60)
    assert slow.closed
    assert live(postgres) == [1] * 30
    assert counts(postgres.load(rows(2), load_id="x", attempt=2)) == (0, 30, 0, 0)


class Ending(Pages):
    """Pages before the last of which every other connection to the database is ended."""

    def __init__(self, pages: Sequence[Rows], engine: sa.Engine) -> None:
        super().__init__(pages)
        self._engine = engine

    def __iter__(self) -> Iterator[Page]:
        for page in super().__iter__():
            if page.number == len(self._pages) - 1:
                with self._engine.connect() as connection:
                    assert connection.exec_driver_sql(TERMINATE).scalars().all() == [True]
            yield page


@pytest.mark.parametrize("mode", ["upsert", "history", "append"])
@pytest.mark.parametrize("pages", [1, 2, 3, 4])
def test_a_connection_that_is_gone_is_called_that(postgres: Warehouse, mode: str, pages: int) -> None:
    postgres.load(rows(1), write_mode=mode)
    before = postgres.read(meta=True)
    # Another engine: of one, a load would get the ended connection.
    other = sa.create_engine(postgres.url, poolclass=sa.pool.NullPool)
    stream = Ending([rows(n) for n in range(pages)], other)
    with pytest.raises(M2PLoadError, match="The connection was lost during the load into products"):
        postgres.loader(write_mode=mode).run(stream)
    assert postgres.read(meta=True) == before


def test_an_attempt_that_read_earlier_reads_again_before_it_appends(first_class: Warehouse) -> None:
    slow = Gated([{"id": "a", "v": 1}, {"id": "b", "v": 1}])
    slow._second = newer = [[{"id": "a", "v": 2}, {"id": "b", "v": 2}, {"id": "c", "v": 2}]]
    late = in_thread(lambda: first_class.loader(write_mode="append", load_id="x").run(slow))
    assert slow.read.wait(60)
    first_class.load([{"id": "z", "v": 1}], write_mode="append", load_id="y")
    assert counts(first_class.load(*newer, write_mode="append", load_id="x", attempt=2)) == (3, 0, 0, 0)
    slow.gate.set()
    assert counts(late.result(60).as_dict()) == (3, 0, 0, 0)
    assert slow.read_again is not None
    assert first_class.read() == [*newer[0], {"id": "z", "v": 1}]


def test_a_limit_of_the_connection_on_waiting_for_locks_holds(postgres: Warehouse) -> None:
    postgres.load(rows(1))
    impatient = Warehouse("psycopg", postgres.url, connect_args={"options": "-c lock_timeout=200ms"})
    with postgres.engine.connect() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM products")
        with pytest.raises(M2PLoadError, match="Another session holds the table for long"):
            impatient.load([{"id": "new", "field": 1}])
    assert counts(impatient.load(rows(2))) == (0, 30, 0, 0)
    impatient.close()


@pytest.mark.parametrize("mode", ["upsert", "history", "replace"])
def test_a_field_that_was_left_out_while_another_load_made_its_column(first_class: Warehouse, mode: str) -> None:
    for tenant in ("ACME_CORP", "GLOBEX"):
        first_class.load([{"id": "a", "v": 1}], tenant_id=tenant, write_mode=mode)
    list_ = [{"id": "a", "v": 2, "f": 5}]
    slow = Gated(list_)
    late = in_thread(lambda: first_class.loader(schema_policy="ignore", write_mode=mode).run(slow))
    assert slow.read.wait(60)
    first_class.load([{"id": "a", "v": 1, "f": 1}], tenant_id="GLOBEX", write_mode=mode)
    slow.gate.set()
    assert late.result(60).schema_changes[0]["change"] == "ignore"
    first_class.load(list_, schema_policy="ignore", write_mode=mode)
    assert {"id": "a", "v": 2, "f": 5} in first_class.read(_m2p_tenant_id="ACME_CORP")
