"""What SQLite's users set on their connections and add to their tables, and what a load leaves of it: all."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_m2p.exceptions import M2PConfigError, M2PLoadError, M2PResponseError, M2PSchemaError
from airflow_provider_m2p.warehouse.sqlite import SQLite
from tests.integration.warehouse.streams import Warehouse, counts

WIDER = [{"id": "a", "n": "x"}, {"id": "b", "n": 2}]


def on_connect(warehouse: Warehouse, *statements: str) -> None:
    """Have every connection of the engine begin with statements."""

    @sa.event.listens_for(warehouse.engine, "connect")
    def run(connection: sqlite3.Connection, _: object) -> None:
        for statement in statements:
            connection.execute(statement)


def ask(warehouse: Warehouse, query: str) -> list[Any]:
    with warehouse.engine.connect() as connection:
        return [tuple(row) if len(row) > 1 else row[0] for row in connection.exec_driver_sql(query)]


def assert_sound(warehouse: Warehouse) -> None:
    assert ask(warehouse, "PRAGMA integrity_check") == ["ok"]
    assert ask(warehouse, "PRAGMA foreign_key_check") == []


@pytest.fixture
def enforcing(sqlite: Warehouse) -> Warehouse:
    """A database whose foreign keys are enforced."""
    on_connect(sqlite, "PRAGMA foreign_keys = ON")
    return sqlite


# -- widening ----------------------------------------------------------------------------------------------------------


def refer(
    warehouse: Warehouse, clause: str = "", type_name: str = "TEXT", to: str = "products (_m2p_tenant_id, id)"
) -> None:
    warehouse.execute(
        f"CREATE TABLE notes (t TEXT, pid {type_name}, note TEXT, FOREIGN KEY (t, pid) REFERENCES {to} {clause})"
    )
    warehouse.execute("INSERT INTO notes SELECT _m2p_tenant_id, id, 'mine' FROM products")


@pytest.mark.parametrize("clause", ["", "ON DELETE CASCADE", "ON DELETE SET NULL", "ON DELETE RESTRICT ON UPDATE SET NULL"])
@pytest.mark.parametrize("mode", ["upsert", "replace"])
def test_rows_that_refer_to_the_table_stay_when_a_column_widens(enforcing: Warehouse, mode: str, clause: str) -> None:
    enforcing.load([{"id": "a", "n": 1}, {"id": "b", "n": 2}], write_mode=mode)
    refer(enforcing, clause)
    before = ask(enforcing, "SELECT sql FROM sqlite_master WHERE name = 'notes'")
    enforcing.load(WIDER, write_mode=mode)
    assert ask(enforcing, "SELECT t, pid, note FROM notes ORDER BY pid") == [("ACME_CORP", "a", "mine"), ("ACME_CORP", "b", "mine")]
    assert ask(enforcing, "SELECT sql FROM sqlite_master WHERE name = 'notes'") == before
    assert ask(enforcing, "PRAGMA foreign_keys") == [1]
    assert_sound(enforcing)


def test_foreign_keys_are_enforced_by_the_load_that_widens_too(enforcing: Warehouse) -> None:
    enforcing.load([{"id": "a", "n": 1}, {"id": "b", "n": 2}], write_mode="replace")
    refer(enforcing, "ON DELETE CASCADE")
    enforcing.load(WIDER[:1], write_mode="replace")
    assert ask(enforcing, "SELECT pid FROM notes") == ["a"]
    enforcing.execute("DROP TABLE notes")
    refer(enforcing)
    with pytest.raises(M2PLoadError, match="FOREIGN KEY constraint failed. Nothing was written"):
        enforcing.load([{"id": "c", "n": {"x": 1}}], write_mode="replace", max_delete_ratio=1)
    assert enforcing.read() == WIDER[:1]


@pytest.mark.parametrize("clause", ["", "ON UPDATE CASCADE"])
@pytest.mark.parametrize("type_name", ["BIGINT", "TEXT"])
def test_rows_that_refer_to_the_table_stay_when_its_key_widens(enforcing: Warehouse, type_name: str, clause: str) -> None:
    enforcing.load([{"id": 1}, {"id": 20}])
    refer(enforcing, clause, type_name)
    enforcing.load([{"id": 1}, {"id": 20}, {"id": "x"}])
    assert ask(enforcing, "SELECT id FROM products JOIN notes ON id = pid AND note = 'mine' ORDER BY id") == ["1", "20"]
    assert_sound(enforcing)


def test_rows_that_refer_to_a_unique_column_stay_when_that_widens(enforcing: Warehouse) -> None:
    enforcing.load([{"id": "a", "n": 1}, {"id": "b", "n": 2}])
    enforcing.execute("CREATE UNIQUE INDEX mine ON products (n)")
    enforcing.execute("CREATE TABLE notes (n BIGINT REFERENCES products (n))")
    enforcing.execute("INSERT INTO notes VALUES (2)")
    enforcing.load(WIDER)
    assert ask(enforcing, "SELECT id FROM products NATURAL JOIN notes") == ["b"]
    assert ask(enforcing, "SELECT id FROM products INDEXED BY mine WHERE n = 'x'") == ["a"]
    assert_sound(enforcing)


@pytest.mark.parametrize("to", ["products (_m2p_tenant_id, id)", "PRODUCTS (_M2P_TENANT_ID, ID)"])
@pytest.mark.parametrize("action", ["SET NULL", "RESTRICT"])
def test_a_key_does_not_widen_if_that_would_undo_references(enforcing: Warehouse, action: str, to: str) -> None:
    enforcing.load([{"id": 1}])
    refer(enforcing, f"ON UPDATE {action}", to=to)
    with pytest.raises(M2PSchemaError, match=f"'id' .* from int to text, and table 'notes' refers to it with ON UPDATE {action}"):
        enforcing.load([{"id": 1}, {"id": "x"}])
    assert ask(enforcing, "SELECT pid FROM notes") == ["1"]
    assert enforcing.read() == [{"id": 1}]


def test_a_key_widens_where_references_are_not_enforced(sqlite: Warehouse) -> None:
    sqlite.load([{"id": 1}])
    refer(sqlite, "ON UPDATE SET NULL")
    sqlite.load([{"id": 1}, {"id": "x"}])
    assert ask(sqlite, "SELECT pid FROM notes") == ["1"]
    assert_sound(sqlite)


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
@pytest.mark.parametrize("name", ["products", "PRODUCTS", '"Products"'])
def test_indexes_and_triggers_survive_whatever_the_spelling_of_the_table(sqlite: Warehouse, name: str) -> None:
    sqlite.load([{"id": "a", "n": 1}, {"id": "b", "n": 2}])
    sqlite.execute(f"create unique index mine on {name} (n) where n > 1")
    sqlite.execute(f"CREATE UNIQUE INDEX same ON {name} (n + 0)")
    sqlite.execute(f'CREATE INDEX IF NOT EXISTS main."on n" ON {name} (n + 1, id)')
    sqlite.execute("CREATE TABLE seen (id TEXT, what TEXT)")
    for event in ("INSERT", "UPDATE"):
        sqlite.execute(f"create trigger if not exists main.on_{event} after {event} ON {name} begin insert into seen values (new.id, '{event}'); end")
    query = "SELECT type, name, sql FROM sqlite_master WHERE name IN ('mine', 'same', 'on n', 'on_INSERT', 'on_UPDATE') ORDER BY name"
    before = ask(sqlite, query)
    sqlite.load([*WIDER, {"id": "c", "n": 3}])
    assert ask(sqlite, query) == before
    assert len(before) == 5
    assert ask(sqlite, "SELECT id, what FROM seen ORDER BY id") == [("a", "UPDATE"), ("c", "INSERT")]
    assert_sound(sqlite)


def test_nothing_of_the_table_but_the_type_changes_when_a_column_widens(sqlite: Warehouse) -> None:
    sqlite.load([{"id": "a"}])
    sqlite.execute("ALTER TABLE products ADD COLUMN n /* ( */ BIGINT COLLATE NOCASE DEFAULT 5 CHECK (n <> 99)")
    sqlite.execute("ALTER TABLE products ADD COLUMN twice AS (n || ', ' || n)")
    sqlite.execute("ALTER TABLE products ADD COLUMN remark VARCHAR(20) COLLATE RTRIM NOT NULL DEFAULT 'n BIGINT'")
    sqlite.load([{"id": "a", "n": 1}, {"id": "b", "n": 2}])
    (before,) = ask(sqlite, "SELECT sql FROM sqlite_master WHERE name = 'products'")
    sqlite.load(WIDER)
    (after,) = ask(sqlite, "SELECT sql FROM sqlite_master WHERE name = 'products'")
    assert after == before.replace("n /* ( */ BIGINT COLLATE", "n TEXT COLLATE")
    assert ask(sqlite, "SELECT n, twice, remark FROM products ORDER BY id") == [("x", "x, x", "n BIGINT"), ("2", "2, 2", "n BIGINT")]
    assert_sound(sqlite)


@pytest.mark.filterwarnings("ignore:Could not instantiate type .* with reflected arguments")
def test_a_table_that_somebody_made_anew_keeps_its_definition(sqlite: Warehouse) -> None:
    sqlite.load([{"id": "a", "n": 1}])
    meta = [name for name in ask(sqlite, "SELECT name FROM pragma_table_info('products')") if name.startswith("_m2p_")]
    ddl = f"""CREATE TABLE products([id]text, {", ".join(meta)}, price DECIMAL(10, 2), -- the key, (n BIGINT
        'n'BIGINT(8 /*)*/),num INTEGER PRIMARY KEY AUTOINCREMENT, half AS (n), stored INT AS (n + 1) STORED,
        UNIQUE(_m2p_tenant_id, id))"""
    sqlite.execute("DROP TABLE products")
    sqlite.execute(ddl)
    sqlite.load([{"id": "a", "n": 1}, {"id": "b", "n": 2}, {"id": "c", "n": 3}])
    sqlite.execute("DELETE FROM products WHERE id = 'c'")
    sqlite.load([*WIDER, {"id": "d", "n": None}])
    assert ask(sqlite, "SELECT sql FROM sqlite_master WHERE name = 'products'") == [ddl.replace("'n'BIGINT(8 /*)*/)", "'n' TEXT")]
    rows = [("a", 1, "x", "x", 1), ("b", 2, "2", "2", 3), ("d", 4, None, None, None)]
    assert ask(sqlite, "SELECT id, num, n, half, stored FROM products ORDER BY num") == rows
    assert_sound(sqlite)


def test_a_key_by_which_a_table_keeps_its_rows_does_not_widen(sqlite: Warehouse) -> None:
    rows = [{"id": 5, "n": 1}, {"id": 10, "n": 2}]
    sqlite.load(rows)
    [ddl] = ask(sqlite, "SELECT sql FROM sqlite_master WHERE name = 'products'")
    sqlite.execute("DROP TABLE products")
    sqlite.execute(f"{ddl} WITHOUT ROWID")
    sqlite.load(rows)
    with pytest.raises(M2PSchemaError, match="The key column 'id' would have to change from int to text, which sqlite cannot do in place"):
        sqlite.load([*rows, {"id": "x", "n": 3}])
    assert sqlite.read() == [rows[1], rows[0]]
    sqlite.load([rows[0], {"id": 10, "n": "x"}])
    assert sqlite.read() == [{"id": 10, "n": "x"}, {"id": 5, "n": "1"}]
    assert_sound(sqlite)


@pytest.mark.parametrize("name", ["a b", 'with "quotes"', "ünï😀code", "select", "it's", "100%", "a[b]", ":n"])
def test_columns_and_tables_of_any_name_widen(sqlite: Warehouse, name: str) -> None:
    table = name.replace("[", "(").replace("]", ")")
    sqlite.load([{"id": 1, name: True, "m": 1}], table=table)
    sqlite.load([{"id": "a", name: "x", "m": 1.5}, {"id": 1, name: True, "m": 1}], table=table)
    columns = sqlite.fields(table)
    assert [(row[columns[(name,)]], row["m"]) for row in sqlite.read(table)] == [("true", "1"), ("x", "1.5")]
    assert_sound(sqlite)


def test_other_connections_see_the_wider_type(sqlite: Warehouse) -> None:
    sqlite.load([{"id": "a", "n": 1}])
    with sqlite.engine.connect() as other:
        assert other.exec_driver_sql("SELECT n FROM products").scalar() == 1
        other.rollback()
        sqlite.load([{"id": "a", "n": "x"}])
        other.exec_driver_sql("UPDATE products SET n = '007'")
        assert other.exec_driver_sql("SELECT n FROM products WHERE n = '007'").scalar() == "007"


@pytest.mark.parametrize("own_index", [False, True])
@pytest.mark.parametrize("collation", ["NOCASE", "RTRIM"])
def test_a_key_that_takes_different_texts_for_the_same_is_refused_rather_than_mixed_up(
    sqlite: Warehouse, collation: str, own_index: bool
) -> None:
    sqlite.load([{"id": "a", "n": 1}])
    (ddl,) = ask(sqlite, "SELECT sql FROM sqlite_master WHERE name = 'products'")
    sqlite.execute("DROP TABLE products")
    ddl = ddl.replace("\tid TEXT NOT NULL", f"\tid TEXT COLLATE {collation} NOT NULL")
    sqlite.execute(ddl.replace("PRIMARY KEY (_m2p_tenant_id, id)", "CHECK (true)") if own_index else ddl)
    if own_index:
        sqlite.execute("CREATE UNIQUE INDEX own ON products (_m2p_tenant_id, id COLLATE BINARY)")
    with pytest.raises(M2PSchemaError, match=f"of table 'products' has the collation {collation}, which takes different texts for the same"):
        sqlite.load([{"id": {"NOCASE": "A", "RTRIM": "a "}[collation], "n": 2}], max_delete_ratio=1)
    assert sqlite.read() == []


@pytest.mark.parametrize(
    "index",
    ["UNIQUE INDEX mine ON products (n, id COLLATE NOCASE)", "UNIQUE INDEX mine ON products (id COLLATE NOCASE) WHERE n > 9", "INDEX mine ON products (id COLLATE NOCASE)"],
)
def test_an_index_of_others_that_takes_different_texts_for_the_same_is_no_key(sqlite: Warehouse, index: str) -> None:
    sqlite.load([{"id": "a", "n": 1}])
    sqlite.execute(f"CREATE {index}")
    assert counts(sqlite.load([{"id": "a", "n": 2}, {"id": "A", "n": 3}])) == (1, 1, 0, 0)


def test_a_binary_collation_in_lower_case_is_no_other(sqlite: Warehouse) -> None:
    sqlite.load([{"id": "a", "n": 1}])
    sqlite.execute("CREATE UNIQUE INDEX mine ON products (_m2p_tenant_id, id COLLATE binary)")
    assert counts(sqlite.load([{"id": "a", "n": 2}])) == (0, 1, 0, 0)


# -- databases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["append", "upsert", "history"])
def test_an_attached_database(sqlite: Warehouse, tmp_path: Path, mode: str) -> None:
    on_connect(sqlite, f"ATTACH '{tmp_path / 'other.db'}' AS other")
    sqlite.load([{"id": "a", "n": 1}], schema="other", write_mode=mode)
    sqlite.execute("CREATE TABLE other.seen (id TEXT)")
    sqlite.execute("CREATE TRIGGER other.watch AFTER INSERT ON products BEGIN INSERT INTO seen VALUES (new.id); END")
    sqlite.execute("CREATE INDEX other.mine ON products (n)")
    before = ask(sqlite, "SELECT type, name FROM other.sqlite_master WHERE type <> 'table' ORDER BY rowid")
    assert sqlite.load([{"id": "a", "n": "x"}], schema="other", write_mode=mode)["schema_changes"][0]["change"] == "widen"
    assert sorted(ask(sqlite, "SELECT type, name FROM other.sqlite_master WHERE type <> 'table'")) == sorted(before)
    assert ask(sqlite, "SELECT n FROM other.products WHERE n = 'x'") == ["x"]
    assert ask(sqlite, "SELECT name FROM main.sqlite_master") == []
    assert_sound(sqlite)


@pytest.mark.parametrize("kind", ["TABLE", "VIEW"])
def test_a_table_in_another_spelling_is_a_clear_refusal(sqlite: Warehouse, kind: str) -> None:
    sqlite.load([{"id": "a"}], table="it")
    sqlite.execute(f"CREATE {kind} \"Products\" AS SELECT * FROM it")
    for run in (lambda: sqlite.loader().check(), lambda: sqlite.load([{"id": "b"}]), lambda: sqlite.load([{"id": "b"}], schema="main")):
        with pytest.raises(M2PConfigError, match="There is 'Products' already, and SQLite takes 'products' for the same name. Load into 'Products'"):
            run()
    assert ask(sqlite, 'SELECT id FROM "Products"') == ["a"]


# -- connections -------------------------------------------------------------------------------------------------------


def test_temporary_tables_can_be_rolled_back_after_a_load(sqlite: Warehouse) -> None:
    (before,) = ask(sqlite, "PRAGMA temp.journal_mode")
    sqlite.load([{"id": "a"}])
    assert ask(sqlite, "PRAGMA temp.journal_mode") == [before]
    with sqlite.engine.connect() as connection:
        connection.exec_driver_sql("CREATE TEMPORARY TABLE mine (n)")
        connection.exec_driver_sql("INSERT INTO mine VALUES (1)")
        connection.commit()
        connection.exec_driver_sql("DELETE FROM mine")
        connection.rollback()
        assert connection.exec_driver_sql("SELECT n FROM mine").all() == [(1,)]


def begins(how: str) -> Callable[[Warehouse], None]:
    """The recipe of SQLAlchemy's documentation: the driver never begins a transaction, the engine always does."""

    def set_up(warehouse: Warehouse) -> None:
        @sa.event.listens_for(warehouse.engine, "connect")
        def connect(connection: sqlite3.Connection, _: object) -> None:
            connection.isolation_level = None

        @sa.event.listens_for(warehouse.engine, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql(how)

    return set_up


RECIPES = {how: begins(how) for how in ("BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE")}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_an_engine_that_begins_transactions_itself(sqlite: Warehouse, mode: str, recipe: str) -> None:
    RECIPES[recipe](sqlite)
    sqlite.loader(write_mode=mode).check()
    assert counts(sqlite.load([{"id": "a", "n": 1}, {"id": "b", "n": 2}], write_mode=mode)) == (2, 0, 0, 0)
    with pytest.raises(M2PSchemaError):
        sqlite.load(WIDER, [{}], write_mode=mode)
    expected = (2, 0, 0, 0) if mode == "append" else (0, 1, 1, 0)
    assert counts(sqlite.load(WIDER, write_mode=mode)) == expected
    with sqlite.engine.connect() as connection:
        connection.exec_driver_sql("DELETE FROM products")
        connection.rollback()
    assert len(sqlite.read()) == (4 if mode == "append" else 2)


# None is a driver that is told nothing; it can be told from Python 3.12 on.
AUTOCOMMIT = [None, True, False] if sys.version_info >= (3, 12) else [None]


@pytest.mark.parametrize("autocommit", AUTOCOMMIT)
def test_a_driver_that_is_told_when_to_commit(sqlite_url: sa.URL, autocommit: bool | None) -> None:
    told = {} if autocommit is None else {"autocommit": autocommit}
    warehouse = Warehouse("sqlite", sqlite_url, connect_args=told)
    warehouse.loader().check()
    warehouse.load([{"id": "a", "n": 1}, {"id": "b", "n": 2}])
    assert counts(warehouse.load(WIDER)) == (0, 1, 1, 0)
    with warehouse.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert {name: getattr(driver, name) for name in told} == told


@pytest.mark.parametrize("recipe", [None, *RECIPES])
def test_a_load_keeps_other_writers_out_from_the_first_statement(sqlite: Warehouse, recipe: str | None) -> None:
    sqlite.load([{"id": "a"}])
    if recipe:
        RECIPES[recipe](sqlite)
    with closing(sqlite3.connect(str(sqlite.url.database), timeout=0, isolation_level=None)) as other:
        with sqlite.engine.connect() as connection:
            dialect = SQLite(connection)
            with dialect.transaction("products", 0.1):
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    other.execute("BEGIN IMMEDIATE")
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(M2PLoadError, match="The database stayed locked .* Nothing was written to products; run the task again"):
                with dialect.transaction("products", 0.1):
                    pass
            other.execute("ROLLBACK")
            with dialect.transaction("products", 0.1):
                connection.exec_driver_sql("UPDATE products SET id = 'b'")
            dialect.close()
    assert sqlite.read() == [{"id": "b"}]


def test_a_page_is_written_in_parts_and_known_as_a_whole(sqlite: Warehouse) -> None:
    page: list[dict[str, Any]] = [{"id": f"p{n:03}", "v": n} for n in range(250)]
    page[10]["late"] = True
    page[170] |= {"v": 1.5, "new": "x"}
    page[240]["v"] = "text"
    assert sqlite.load(page)["inserted"] == 250
    assert [row["v"] for row in sqlite.read()] == [str(row["v"]) for row in page]
    assert [row["id"] for row in sqlite.read() if row["late"] or row["new"]] == ["p010", "p170"]
    del page[130]["id"], page[240]["id"]
    with pytest.raises(M2PSchemaError, match="2 of 250 rows of page 0 lack a value of the key"):
        sqlite.load(page)
    with pytest.raises(M2PResponseError, match="Page 0, row 222 is not an object"):
        sqlite.load([*page[:100], *page[131:222], *page[:31], 5])
