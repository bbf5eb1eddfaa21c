"""What people do to the tables by hand, and what the next load makes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.exceptions import M2PLoadError, M2PSchemaError
from airflow_provider_m2p.warehouse import column_types
from airflow_provider_m2p.warehouse.dialect import Dialect
from tests.integration.warehouse.streams import Pages, Warehouse, in_utc

MODES = ["replace", "upsert", "history"]


def rows(count: int = 6, **more: Any) -> list[dict[str, Any]]:
    return [{"id": f"p{n}", "v": 1, "x": n, **more} for n in range(count)]


def counts(result: dict[str, Any]) -> tuple[int, int, int, int]:
    return tuple(result[name] for name in ("inserted", "updated", "unchanged", "deleted"))  # type: ignore[return-value]


def live(warehouse: Warehouse, column: str, tenant: str = "ACME_CORP", table: str = "products") -> list[Any]:
    """Return a column of the rows that stand for a product as it is now."""
    read = warehouse.read(table, meta=True, _m2p_tenant_id=tenant)
    return [row[column] for row in read if not row.get("_m2p_deleted_at") and not row.get("_m2p_valid_to")]


class Meanwhile(Pages):
    """
    Pages between which something is done.

    :param what: done once the first page was looked up.
    """

    def __init__(self, pages: list[Any], what: Any) -> None:
        super().__init__(pages)
        self._what = what

    def __iter__(self) -> Any:
        for number, page in enumerate(super().__iter__()):
            if number == len(self._pages) - 1:
                self._what()
            yield page


def load_slowly(warehouse: Warehouse, rows: list[dict[str, Any]], **spec: Any) -> None:
    """Load as one does who began before all others."""
    warehouse.load(rows, **spec)
    warehouse.execute("UPDATE _m2p_loads SET started_at = '2000-01-01 00:00:00.000000'")


@pytest.mark.parametrize("mode", MODES)
def test_a_column_dropped_while_a_load_reads_comes_back_filled(warehouse: Warehouse, mode: str) -> None:
    warehouse.load(rows(), write_mode=mode)
    drop = "ALTER TABLE products DROP COLUMN x"
    pages = [rows(), [], [{"id": "new", "v": 1, "x": 7}]]
    loader = warehouse.loader(write_mode=mode)
    if warehouse.way in ("portable", "sqlite"):  # there a page is looked up before the next one is asked for
        pages = [rows(), [{"id": "new", "v": 1, "x": 7}]]
    loader.run(Meanwhile(pages, lambda: warehouse.execute(drop)))
    assert live(warehouse, "id") == ["new", *(f"p{n}" for n in range(6))]
    warehouse.load(*pages, write_mode=mode)
    assert live(warehouse, "x") == [7, *range(6)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("child_tables", [True, False])
def test_a_column_that_another_load_fills_meanwhile_holds_nothing_else(warehouse: Warehouse, mode: str, child_tables: bool) -> None:
    def catalogue(version: int, **more: int) -> list[dict[str, Any]]:
        return [{"id": f"p{n}", "v": version, **more, "fees": [{"a": version, **more}]} for n in range(3)]

    spec = {"child_tables": child_tables, "write_mode": mode}
    warehouse.load(catalogue(1), **spec)
    pages = Meanwhile([catalogue(2), [], []], lambda: load_slowly(warehouse, catalogue(3, new=4), **spec))
    warehouse.loader(**spec).run(pages)
    for _ in range(2):
        assert live(warehouse, "v") == [2] * 3
        assert live(warehouse, "new") == [None] * 3
        if child_tables:
            assert live(warehouse, "a", table="products__fees") == [2] * 3
            assert live(warehouse, "new", table="products__fees") == [None] * 3
        assert counts(warehouse.load(catalogue(2), **spec)) == (0, 0, 3, 0)


@pytest.mark.parametrize("mode", ["upsert", "replace", "history"])
def test_arrays_that_get_a_table_meanwhile_hold_nothing_else(warehouse: Warehouse, mode: str) -> None:
    spec = {"child_tables": True, "write_mode": mode}
    warehouse.load(rows(), **spec)
    newer = rows(v=3, fees=[{"a": 1}])
    warehouse.loader(**spec).run(Meanwhile([rows(v=2), [], []], lambda: load_slowly(warehouse, newer, **spec)))
    assert live(warehouse, "v") == [2] * 6
    assert live(warehouse, "a", table="products__fees") == []


@pytest.mark.parametrize("mode", MODES)
def test_a_dropped_column_comes_back_in_rows_that_the_next_load_did_not_read(warehouse: Warehouse, mode: str) -> None:
    warehouse.load(rows(), write_mode=mode)
    warehouse.load(rows(), write_mode=mode, tenant_id="GLOBEX")
    warehouse.execute("ALTER TABLE products DROP COLUMN x")
    warehouse.load(rows(2), write_mode=mode, complete=False)
    assert live(warehouse, "x") == [0, 1, None, None, None, None]
    warehouse.load(rows(), write_mode=mode)
    warehouse.load(rows(), write_mode=mode, tenant_id="GLOBEX")
    assert live(warehouse, "x") == live(warehouse, "x", "GLOBEX") == list(range(6))
    assert counts(warehouse.load(rows(), write_mode=mode)) == (0, 0, 6, 0)


@pytest.mark.parametrize("complete", [True, False], ids=["whole", "partial"])
@pytest.mark.parametrize("mode", MODES)
def test_a_column_dropped_from_a_child_table_comes_back_for_all(warehouse: Warehouse, mode: str, complete: bool) -> None:
    catalogue = [{"id": f"p{n}", "fees": [{"a": n, "b": n}]} for n in range(6)]
    for tenant in ("ACME_CORP", "GLOBEX"):
        warehouse.load(catalogue, child_tables=True, write_mode=mode, tenant_id=tenant)
    warehouse.execute("ALTER TABLE products__fees DROP COLUMN b")
    if not complete:
        warehouse.load(catalogue[:2], child_tables=True, write_mode=mode, complete=False)
    for tenant in ("ACME_CORP", "GLOBEX"):
        warehouse.load(catalogue, child_tables=True, write_mode=mode, tenant_id=tenant)
        assert live(warehouse, "b", tenant, "products__fees") == list(range(6))
        again = warehouse.load(catalogue, child_tables=True, write_mode=mode, tenant_id=tenant)
        assert counts(again) == (0, 0, 6, 0)


@pytest.mark.parametrize("what", ["DROP TABLE products__fees", "DELETE FROM products__fees"])
@pytest.mark.parametrize("mode", MODES)
def test_a_child_table_that_was_dropped_or_emptied_is_filled_again(warehouse: Warehouse, mode: str, what: str) -> None:
    catalogue = [{"id": f"p{n}", "fees": [{"a": n}]} for n in range(6)]
    for tenant in ("ACME_CORP", "GLOBEX"):
        warehouse.load(catalogue, child_tables=True, write_mode=mode, tenant_id=tenant)
    warehouse.execute(what)
    for tenant in ("ACME_CORP", "GLOBEX"):
        result = warehouse.load(catalogue, child_tables=True, write_mode=mode, tenant_id=tenant)
        assert counts(result) == (0, 0, 6, 0)
        assert live(warehouse, "a", tenant, "products__fees") == list(range(6))


@pytest.mark.parametrize("mode", MODES)
def test_a_column_dropped_from_a_child_table_and_then_ignored_comes_back(warehouse: Warehouse, mode: str) -> None:
    catalogue = [{"id": f"p{n}", "fees": [{"a": n, "b": n}]} for n in range(6)]
    warehouse.load(catalogue, child_tables=True, write_mode=mode)
    warehouse.execute("ALTER TABLE products__fees DROP COLUMN b")
    for _ in range(2):
        warehouse.load(catalogue, child_tables=True, write_mode=mode, schema_policy="ignore")
        assert "b" not in warehouse.table("products__fees").c
    for _ in range(2):
        assert counts(warehouse.load(catalogue, child_tables=True, write_mode=mode)) == (0, 0, 6, 0)
        assert live(warehouse, "b", table="products__fees") == list(range(6))


@pytest.mark.parametrize("what", ["DROP TABLE products__fees", "DELETE FROM products__fees"])
@pytest.mark.parametrize("mode", MODES)
def test_a_child_table_that_is_refilled_in_part_is_filled_by_the_next_load(warehouse: Warehouse, mode: str, what: str) -> None:
    catalogue = [{"id": f"p{n}", "fees": [{"a": n}]} for n in range(6)]
    for tenant in ("ACME_CORP", "GLOBEX"):
        warehouse.load(catalogue, child_tables=True, write_mode=mode, tenant_id=tenant)
    warehouse.execute(what)
    warehouse.load(catalogue[:2], child_tables=True, write_mode=mode, complete=False)
    for tenant in ("ACME_CORP", "GLOBEX"):
        warehouse.load(catalogue, child_tables=True, write_mode=mode, tenant_id=tenant)
        assert live(warehouse, "a", tenant, "products__fees") == list(range(6))
        again = warehouse.load(catalogue, child_tables=True, write_mode=mode, tenant_id=tenant)
        assert counts(again) == (0, 0, 6, 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_child_table_dropped_while_a_load_reads_is_filled_by_the_next(first_class: Warehouse, mode: str) -> None:
    catalogue = [{"id": f"p{n}", "fees": [{"a": n}]} for n in range(6)]
    more = [*catalogue, {"id": "q", "fees": [{"a": 6}]}]
    first_class.load(catalogue, child_tables=True, write_mode=mode)
    pages = Meanwhile([catalogue, [], more[6:]], lambda: first_class.execute("DROP TABLE products__fees"))
    first_class.loader(child_tables=True, write_mode=mode).run(pages)
    first_class.load(more, child_tables=True, write_mode=mode)
    assert live(first_class, "a", table="products__fees") == list(range(7))


@pytest.mark.parametrize("mode", [*MODES, "append"])
def test_a_table_that_was_dropped_starts_anew(warehouse: Warehouse, mode: str) -> None:
    warehouse.load([{"id": "1", "a": 1, "b": [2]}], write_mode=mode)
    warehouse.execute("DROP TABLE products")
    assert warehouse.load([{"id": "1", "a": "x"}], write_mode=mode)["inserted"] == 1
    assert set(warehouse.fields()) == {("id",), ("a",)}
    if mode != "append":
        assert counts(warehouse.load([{"id": "1", "a": "x"}], write_mode=mode)) == (0, 0, 1, 0)
    assert warehouse.read() == [{"id": "1", "a": "x"}]


def test_a_table_with_child_tables_that_was_dropped_may_do_without_them(warehouse: Warehouse) -> None:
    warehouse.load([{"id": "1", "fees": [{"a": 1}]}], child_tables=True)
    warehouse.execute("DROP TABLE products")
    warehouse.load([{"id": "1"}], child_tables=True)
    warehouse.load([{"id": "1", "fees": [1]}])
    assert warehouse.read() == [{"id": "1", "fees": "[1]"}]


@pytest.mark.parametrize("mode", MODES)
def test_a_table_that_is_no_longer_in_the_books_is_entered_again(warehouse: Warehouse, mode: str) -> None:
    """As one is that a database's administrator made beforehand."""
    all_kinds = {"yes": True, "day": "2024-01-01", "at": "2024-01-01T00:00:00Z", "price": Decimal("1.5"), "tags": [1], "name": "x"}
    warehouse.load([{"id": "a", "v": 1, **all_kinds}, {"id": "b", "v": 2, **all_kinds}], write_mode=mode)
    before = {name: str(column.type) for name, column in warehouse.table().c.items()}
    warehouse.execute("DELETE FROM _m2p_columns")
    changed = [{"id": "a", "v": 1, **all_kinds}, {"id": "b", "v": 3, **all_kinds}]
    assert counts(warehouse.load(changed, write_mode=mode)) == (0, 1, 1, 0)
    assert live(warehouse, "v") == [1, 3]
    assert set(warehouse.fields()) == {("id",), ("v",), *((name,) for name in all_kinds)}
    assert {name: str(column.type) for name, column in warehouse.table().c.items()} == before
    assert counts(warehouse.load([*changed, {"id": 5, "v": 3, **all_kinds}], write_mode=mode)) == (1, 0, 2, 0)


def test_a_child_table_that_was_left_behind_is_to_be_dropped_too(warehouse: Warehouse) -> None:
    catalogue = [{"id": "1", "fees": [{"a": 1, "b": 2}]}]
    warehouse.load(catalogue, child_tables=True)
    warehouse.execute("DROP TABLE products")
    with pytest.raises(M2PSchemaError, match="'fees' of 'products' belong into table 'products__fees', but that was made .* Drop it, too"):
        warehouse.load([{"id": "1", "fees": [{"b": 2, "a": 3}]}], child_tables=True)
    warehouse.execute("DROP TABLE products__fees")
    warehouse.load(catalogue, child_tables=True)
    assert warehouse.read("products__fees") == [{"id": "1", "a": 1, "b": 2}]


def test_columns_that_the_database_fills_itself_are_left_alone(warehouse: Warehouse) -> None:
    warehouse.load([{"id": "1", "v": 1}])
    if warehouse.is_postgres:
        warehouse.execute("ALTER TABLE products ADD COLUMN sk bigint GENERATED ALWAYS AS IDENTITY")
        warehouse.execute("ALTER TABLE products ADD COLUMN twice bigint GENERATED ALWAYS AS (v * 2) STORED")
    else:
        warehouse.execute("ALTER TABLE products ADD COLUMN twice bigint GENERATED ALWAYS AS (v * 2) VIRTUAL")
    assert counts(warehouse.load([{"id": "1", "v": 2}, {"id": "2", "v": 3}])) == (1, 1, 0, 0)
    assert [row["twice"] for row in warehouse.read()] == [4, 6]
    # A field of that name gets another one.
    new = {"twice": "x", "sk": "y"}
    assert counts(warehouse.load([{"id": "1", "v": 2}, {"id": "2", "v": 3, **new}])) == (0, 1, 1, 0)
    fields = warehouse.fields()
    changed = warehouse.read()[1]
    assert {name: changed[fields[name,]] for name in new} == new
    assert changed["twice"] == 6


@pytest.mark.parametrize("policy", ["evolve", "freeze"])
@pytest.mark.parametrize(
    ("value", "later", "text"),
    [(1, 2, "2"), (1, 2.5, "2.5"), (1, "x", "x"), (True, False, "false"), ("2024-01-01", "x", "x"), ([1], [2], "[2]")]
    + [("2024-01-01T00:00:00Z", later, later) for later in ("2024-01-01T05:30:00+05:30", "x")],
)
def test_a_column_that_somebody_made_a_text_takes_all(postgres: Warehouse, value: Any, later: Any, text: str, policy: str) -> None:
    postgres.load([{"id": 1, "v": value}, {"id": 2, "v": value}])
    postgres.execute("ALTER TABLE products ALTER v TYPE text, ALTER id TYPE text")
    again = [{"id": 1, "v": value}, {"id": 2, "v": later}]
    assert counts(postgres.load(again, schema_policy=policy)) == (0, 1, 1, 0)
    assert postgres.read()[1] == {"id": "2", "v": text}
    assert counts(postgres.load(again, schema_policy=policy)) == (0, 0, 2, 0)
    postgres.load([*again, {"id": "a"}], schema_policy=policy)


@pytest.mark.parametrize(
    ("value", "kept_as"),
    [
        *((1.5, kept_as) for kept_as in ("numeric(10,2)", "bigint", "float8")),
        *((1.5, kept_as) for kept_as in ("money", "amount", "price")),
        *((1, kept_as) for kept_as in ("float8", "numeric(4,-2)", "numeric(9,2)", "money")),
        *(("2024-01-01T00:00:00Z", kept_as) for kept_as in ("date", "timestamptz(0)", "timestamp", "time", "timetz")),
        *(("abc", kept_as) for kept_as in ("char(10)", "varchar(3)", '"char"', "name")),
        ("2024-01-01", "timestamptz"),
        *((True, kept_as) for kept_as in ("char(5)", "integer")),
    ],
)
def test_a_column_that_would_change_values_now_is_refused(postgres: Warehouse, value: Any, kept_as: str) -> None:
    postgres.load([{"id": "1", "v": value}])
    postgres.execute("CREATE DOMAIN amount AS numeric(10,2)")
    postgres.execute("CREATE DOMAIN price AS amount")
    postgres.execute(f"ALTER TABLE products ALTER v TYPE {kept_as} USING CAST(NULL AS {kept_as})")
    with pytest.raises(M2PSchemaError, match="Column 'v' of table 'products' has the type .* by now, which cannot hold"):
        postgres.loader().check()
    with pytest.raises(M2PSchemaError, match="Column 'v' of table 'products' has the type .* by now, which cannot hold"):
        postgres.load([{"id": "1", "v": value}])


@pytest.mark.parametrize("kept_as", ["timestamp", "timestamptz(0)"])
@pytest.mark.parametrize(("mode", "column"), [("history", "_m2p_valid_from"), ("upsert", "_m2p_loaded_at")])
def test_a_column_that_would_change_the_time_of_a_load_is_refused(postgres: Warehouse, mode: str, column: str, kept_as: str) -> None:
    postgres.load([{"id": "1", "v": 1}], write_mode=mode)
    postgres.execute(f"ALTER TABLE products ALTER {column} TYPE {kept_as}")
    with pytest.raises(M2PSchemaError, match=f"Column '{column}' of table 'products' has the type .* cannot hold its times"):
        postgres.load([{"id": "1", "v": 2}], write_mode=mode)


@pytest.mark.parametrize(
    ("value", "later", "kept_as"),
    [
        (1, 2, "integer"),
        (1, 2, "numeric(12,0)"),
        (1, 2, "amount"),
        (Decimal("1.50"), Decimal("2.123456789012345678901"), "price"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00.123456Z", "moment"),
        *(("a", "b" * 99, kept_as) for kept_as in ("words", "title", "varchar")),
        (True, False, "boolean"),
    ],
)
def test_a_column_that_keeps_its_values_in_another_type_is_loaded(postgres: Warehouse, value: Any, later: Any, kept_as: str) -> None:
    postgres.load([{"id": "1", "v": value}])
    postgres.execute("CREATE DOMAIN amount AS bigint CHECK (VALUE > 0)")
    postgres.execute("CREATE DOMAIN words AS text")
    postgres.execute("CREATE DOMAIN title AS varchar")
    postgres.execute("CREATE DOMAIN number AS numeric CHECK (VALUE > 0)")
    postgres.execute("CREATE DOMAIN price AS number")
    postgres.execute("CREATE DOMAIN moment AS timestamptz")
    postgres.execute("CREATE SCHEMA other")
    postgres.execute("CREATE DOMAIN other.title AS varchar(5)")
    postgres.execute(f"ALTER TABLE products ALTER v TYPE {kept_as} USING v::{kept_as}")
    assert counts(postgres.load([{"id": "1", "v": later}])) == (0, 1, 0, 0)
    (row,) = postgres.read()
    assert row["v"] == (datetime.fromisoformat(later) if kept_as == "moment" else later)


@pytest.mark.parametrize(
    ("value", "kept_as"),
    [
        *(("2024-01-01T00:00:00.5Z", kept_as) for kept_as in ("DATETIME", "DATETIME(3)", "TIMESTAMP NULL", "TIMESTAMP(6) NULL", "DATE")),
        *(("007", kept_as) for kept_as in ("BIGINT", "DOUBLE", "DECIMAL(65,30)", "ENUM('007')", "TIME")),
        *(("007", kept_as) for kept_as in ("CHAR(10)", "VARCHAR(3)", "VARCHAR(255)", "BINARY(10)")),
        *(("007", kept_as) for kept_as in ("TINYTEXT", "TEXT", "MEDIUMTEXT")),
        (1.5, "DECIMAL(10,2)"),
        *((1, kept_as) for kept_as in ("DOUBLE", "YEAR", "DECIMAL(9,2)", "BIGINT ZEROFILL", "INT(3) ZEROFILL")),
        (1.5, "DECIMAL(65,30) ZEROFILL"),
    ],
)
def test_a_column_that_would_change_values_in_mariadb_is_refused(mariadb: Warehouse, value: Any, kept_as: str) -> None:
    mariadb.load([{"id": "1", "v": value}])
    mariadb.execute(f"ALTER TABLE products MODIFY v {kept_as}")
    with pytest.raises(M2PSchemaError, match="Column 'v' of table 'products' has the type .* by now, which cannot hold"):
        mariadb.load([{"id": "1", "v": value}])


def test_the_times_of_a_load_in_a_sqlite_table_that_somebody_made(sqlite: Warehouse) -> None:
    own = "_m2p_load_id TEXT NOT NULL, _m2p_loaded_at TEXT NOT NULL, _m2p_row_hash TEXT NOT NULL, _m2p_raw_hash TEXT NOT NULL"
    key = "_m2p_tenant_id TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (_m2p_tenant_id, id)"
    sqlite.execute(f"CREATE TABLE products ({own}, _m2p_deleted_at VARCHAR(40), {key})")
    for result in ((2, 0, 0, 0), (0, 0, 2, 0)):
        assert counts(sqlite.load([{"id": "a"}, {"id": "b"}])) == result
    assert counts(sqlite.load([{"id": "a"}])) == (0, 0, 1, 1)
    (deleted_at,) = [row["_m2p_deleted_at"] for row in sqlite.read(meta=True) if row["id"] == "b"]
    assert datetime.fromisoformat(deleted_at).microsecond


class TimeOfItsOwn(sa.types.TypeEngine[Any]):
    """As some databases' dialects have it."""


@pytest.mark.parametrize(
    ("column_type", "keeps_it"),
    [(TimeOfItsOwn(), True), (sa.TIMESTAMP(timezone=True), True), (sa.DateTime(), True), (sa.Date(), False), (sa.Time(), False)],
)
def test_instants_in_other_databases(postgres: Warehouse, column_type: Any, keeps_it: bool) -> None:
    with postgres.engine.connect() as connection, pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection.dialect, "name", "snowflake")
        assert column_types.keeps(column_type, Kind.INSTANT, Dialect(connection), key=False) is keeps_it


@pytest.mark.parametrize("kept_as", ["BOOLEAN", "JSON", "TIME", "DATE", "TIMESTAMP", "NUMERIC", "STRING"])
@pytest.mark.parametrize("value", ["007", Decimal("12345678901234567890.10")])
def test_a_column_that_makes_numbers_of_texts_in_sqlite_is_refused(sqlite: Warehouse, value: Any, kept_as: str) -> None:
    rows = [{"id": "1", "v": value}]
    sqlite.load(rows)
    with sqlite.engine.connect() as connection:
        ddl = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'products'").scalar_one()
    sqlite.execute("DROP TABLE products")
    sqlite.execute(ddl.replace("v TEXT", f"v {kept_as}"))
    with pytest.raises(M2PSchemaError, match="Column 'v' of table 'products' has the type .* by now, which cannot hold"):
        sqlite.load(rows)


def test_appended_rows_keep_their_hashes_when_a_column_is_dropped(warehouse: Warehouse) -> None:
    warehouse.load([{"id": "a", "v": 1, "fees": [{"a": 1, "b": 1}]}], write_mode="append", child_tables=True)
    before = {table: warehouse.read(table, meta=True)[0]["_m2p_row_hash"] for table in ("products", "products__fees")}
    for table, column in (("products", "v"), ("products__fees", "b")):
        warehouse.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    warehouse.load([{"id": "b", "v": 1, "fees": [{"a": 1, "b": 1}]}], write_mode="append", child_tables=True)
    for table, row_hash in before.items():
        assert warehouse.read(table, meta=True)[0]["_m2p_row_hash"] == row_hash


def test_closed_intervals_keep_their_hashes_when_a_column_is_dropped(first_class: Warehouse) -> None:
    def closed() -> list[str]:
        return [row["_m2p_row_hash"] for row in first_class.read(meta=True, id="p0") if row["_m2p_valid_to"] is not None]

    for version in range(3):
        first_class.load(rows(2, v=version), write_mode="history")
    before = closed()
    first_class.execute("ALTER TABLE products DROP COLUMN x")
    first_class.load(rows(2)[1:], write_mode="history", complete=False)
    assert closed() == before
    assert all(before)


def test_an_append_table_may_be_renamed(warehouse: Warehouse) -> None:
    warehouse.load(rows(2), write_mode="append")
    warehouse.execute("ALTER TABLE products RENAME TO products_2024")
    warehouse.load(rows(3), write_mode="append")
    assert len(warehouse.read("products_2024")) == 2
    assert len(warehouse.read()) == 3


def test_append_tables_with_much_the_same_name(warehouse: Warehouse) -> None:
    for end in "ab":
        warehouse.load(rows(2), write_mode="append", table="t" * 62 + end)
        assert len(warehouse.read("t" * 62 + end)) == 2


@pytest.mark.parametrize("mode", ["upsert", "history"])
def test_a_table_made_by_hand_with_the_right_key_is_taken(postgres: Warehouse, mode: str) -> None:
    other = "_m2p_valid_from timestamptz, _m2p_valid_to timestamptz" if mode == "history" else "_m2p_deleted_at timestamptz"
    key = "_m2p_tenant_id, id" + (", _m2p_valid_from" if mode == "history" else "")
    postgres.execute(
        "CREATE TABLE products (id text, v bigint, _m2p_tenant_id text NOT NULL, _m2p_load_id text NOT NULL, "
        "_m2p_loaded_at timestamptz NOT NULL, _m2p_row_hash varchar(32) NOT NULL, _m2p_raw_hash varchar(32) NOT NULL, "
        f"{other}, PRIMARY KEY ({key}))"
    )
    assert counts(postgres.load([{"id": 1, "v": 1}], write_mode=mode)) == (1, 0, 0, 0)
    assert counts(postgres.load([{"id": 1, "v": 1}, {"id": "b", "v": "x"}], write_mode=mode)) == (1, 0, 1, 0)
    assert postgres.read() == [{"id": "1", "v": "1"}, {"id": "b", "v": "x"}]


def test_a_key_made_by_hand_in_mariadb_is_taken_again_and_again_where_rows_are_appended(mariadb: Warehouse) -> None:
    mariadb.load([{"n": 1, "id": "a"}], write_mode="append")
    mariadb.execute("ALTER TABLE products DROP id, ADD id VARCHAR(255) COLLATE utf8mb4_nopad_bin")
    mariadb.execute("DELETE FROM _m2p_columns")
    for n in (2, 3):
        assert counts(mariadb.load([{"n": n, "id": "a"}], write_mode="append")) == (1, 0, 0, 0)


@pytest.mark.parametrize("default", ["", "DEFAULT CURRENT_TIMESTAMP(6)"])
def test_a_time_that_mariadb_fills_itself_is_left_to_it(mariadb: Warehouse, default: str) -> None:
    mariadb.load([{"id": 1}, {"id": 2}])
    mariadb.execute(f"ALTER TABLE products ADD v DATETIME(6) {default} ON UPDATE CURRENT_TIMESTAMP(6)")
    mariadb.load([{"id": 1, "v": "2024-01-01T00:00:00Z"}, {"id": 2}])
    mariadb.load([{"id": 2}])
    name = mariadb.fields()["v",]
    assert [in_utc(row[name]) for row in mariadb.read()] == [datetime(2024, 1, 1, tzinfo=UTC), None]


def test_an_old_stage_of_somebody_else_does_not_end_a_load(postgres: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    role = f"owner_{postgres.url.database}"
    stage = "_m2p_stage_review_5f000000_00000000"
    postgres.execute(f'CREATE ROLE "{role}" LOGIN')
    postgres.execute(f'GRANT ALL ON SCHEMA public TO "{role}"')
    postgres.execute(f"CREATE TABLE {stage} (n int)")
    other = Warehouse("psycopg", postgres.url.set(username=role))
    try:
        assert counts(other.load(rows())) == (6, 0, 0, 0)
        assert counts(other.load(rows())) == (0, 0, 6, 0)
    finally:
        other.close()
        postgres.execute(f'DROP OWNED BY "{role}"')
        postgres.execute(f'DROP ROLE "{role}"')
    assert f"The old stage {stage} stays: InsufficientPrivilege." in caplog.text
    postgres.load(rows(), table="others")
    assert stage not in postgres.tables()


def test_a_mark_of_deletion_that_a_table_gets_is_a_change_like_others(warehouse: Warehouse) -> None:
    warehouse.load(rows(), write_mode="replace")
    with pytest.raises(M2PSchemaError, match="add _m2p_deleted_at instant"):
        warehouse.load(rows(), write_mode="upsert", schema_policy="freeze")
    assert "_m2p_deleted_at" not in warehouse.table().c
    result = warehouse.load(rows(), write_mode="upsert")
    assert result["schema_changes"] == [
        {"change": "add", "column": "_m2p_deleted_at", "field": None, "type": "instant"}
    ]
    assert "_m2p_deleted_at" in warehouse.loads()[-1]["schema_changes"]


def test_frozen_tables_list_all_changes_those_of_child_tables_too(warehouse: Warehouse) -> None:
    warehouse.load([{"id": "1", "fees": [{"a": 1}]}], child_tables=True)
    with pytest.raises(M2PSchemaError) as refusal:
        warehouse.load([{"id": "1", "new": 1, "fees": [{"a": "x", "b": 2}]}], child_tables=True, schema_policy="freeze")
    for change in ("add new int", "widen products__fees.a from int to text", "add products__fees.b int"):
        assert change in str(refusal.value)


def test_a_field_called_like_one_that_is_being_widened(warehouse: Warehouse) -> None:
    catalogue = [{"id": "a", "n": {"wider": 5}}, {"id": "b", "n": 1}, {"id": "c", "n": {"wider": 7}}]
    warehouse.load(catalogue)
    warehouse.load([catalogue[0], {"id": "b", "n": "x"}], complete=False)
    assert [(row["n"], row["n__wider"]) for row in warehouse.read()] == [(None, 5), ("x", None), (None, 7)]


def test_a_table_name_that_is_too_long_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(Exception, match=r"The table name 'u+' is longer than the \d+ bytes"):
        warehouse.load(rows(), table="u" * 129)


def test_as_many_rows_may_go_as_the_ratio_says(warehouse: Warehouse) -> None:
    warehouse.load(rows(100))
    with pytest.raises(M2PLoadError, match="lacks 30 of the 100 rows"):
        warehouse.load(rows(70), max_delete_ratio=0.29)
    assert counts(warehouse.load(rows(71), max_delete_ratio=0.29)) == (0, 0, 71, 29)


def test_a_list_that_lost_its_rows_does_not_take_back_what_an_attempt_before_appended(warehouse: Warehouse) -> None:
    warehouse.load(rows(), write_mode="append", load_id="x")
    for left in ([], rows(2)):
        with pytest.raises(M2PLoadError, match=r"lacks \d of the 6 rows that earlier attempts of this load wrote of tenant"):
            warehouse.load(left, write_mode="append", load_id="x")
    warehouse.load(rows(2), write_mode="append", load_id="x", complete=False)
    assert len(warehouse.read()) == 6
    warehouse.load(rows(1), write_mode="append", load_id="y")
    assert counts(warehouse.load(rows(4), write_mode="append", load_id="x")) == (4, 0, 0, 2)
    assert len(warehouse.read()) == 5
    warehouse.execute("DELETE FROM products WHERE _m2p_load_id = 'y'")
    warehouse.load([], write_mode="append", load_id="y")
    warehouse.load([], write_mode="append", load_id="x", max_delete_ratio=1)
    assert warehouse.read() == []


@pytest.mark.parametrize("threshold", [0, 1, None])
def test_every_way_to_prepare_statements(postgres: Warehouse, threshold: int | None) -> None:
    other = Warehouse("psycopg", postgres.url, connect_args={"prepare_threshold": threshold})
    try:
        for version in range(3):
            other.load(rows(v=version))
            assert live(other, "v") == [version] * 6
    finally:
        other.close()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_an_encoding_that_lacks_characters_is_refused(postgres: Warehouse, driver: str) -> None:
    url = postgres.url.set(drivername=f"postgresql+{driver}")
    other = Warehouse(driver, url, connect_args={"options": "-c client_encoding=LATIN1"} if driver == "psycopg2" else {"client_encoding": "LATIN1"})
    try:
        with pytest.raises(Exception, match="client_encoding is LATIN1"):
            other.load(rows())
    finally:
        other.close()
    assert sa.inspect(postgres.engine).get_table_names() == []


@pytest.mark.parametrize("mode", MODES)
def test_a_key_that_becomes_text_while_a_load_reads_whole_numbers_is_compared_as_text(warehouse: Warehouse, mode: str) -> None:
    warehouse.load([{"id": 5, "v": 1}], write_mode=mode)
    texts = [{"id": 5, "v": 1}, {"id": "05", "v": 1}]
    if warehouse.way == "portable":
        with pytest.raises(M2PSchemaError, match="'id' would have to change from int to text, which postgresql cannot do in place"):
            warehouse.load(texts, write_mode=mode)
        return
    pages = Meanwhile([[{"id": 5, "v": 2}], []], lambda: load_slowly(warehouse, texts, write_mode=mode))
    pages.complete = False
    warehouse.loader(write_mode=mode).run(pages)
    assert sorted(zip(live(warehouse, "id"), live(warehouse, "v"), strict=True)) == [("05", 1), ("5", 2)]


@pytest.mark.parametrize("child_tables", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_what_was_read_earlier_does_not_replace_what_was_read_later(warehouse: Warehouse, mode: str, child_tables: bool) -> None:
    def catalogue(version: int, ids: str) -> list[dict[str, Any]]:
        # Where arrays have tables of their own, only their elements differ.
        return [{"id": name, **({"fees": [{"a": version}]} if child_tables else {"v": version})} for name in ids]

    spec = {"write_mode": mode, "child_tables": child_tables}
    warehouse.load(catalogue(1, "ab"), **spec)
    pages = Meanwhile([catalogue(2, "ab"), [], []], lambda: warehouse.load(catalogue(3, "abc"), **spec))
    pages._second = [catalogue(4, "abc")]
    result = warehouse.loader(**spec).run(pages)
    assert pages.read_again is not None
    assert (result.inserted, result.updated + result.unchanged, result.deleted) == (0, 3, 0)
    live_in = live(warehouse, "a", table="products__fees") if child_tables else live(warehouse, "v")
    assert live_in == [4] * 3
    if mode == "history":
        assert len(warehouse.read("products__fees" if child_tables else "products")) == 8


@pytest.mark.parametrize("mode", MODES)
def test_what_was_read_earlier_deletes_nothing_that_was_read_later(first_class: Warehouse, mode: str) -> None:
    first_class.load(rows(2), write_mode=mode)
    pages = Meanwhile([rows(2), [], []], lambda: first_class.load(rows(3), write_mode=mode))
    pages._second = [rows(3)]
    assert counts(first_class.loader(write_mode=mode).run(pages).as_dict()) == (0, 0, 3, 0)
    assert pages.read_again is not None
    assert live(first_class, "x") == [0, 1, 2]


@pytest.mark.parametrize("mode", ["append", *MODES])
def test_two_that_overlap_and_read_the_same_do_not_read_again(warehouse: Warehouse, mode: str) -> None:
    warehouse.load(rows(), write_mode=mode)
    pages = Meanwhile([rows(v=2), [], []], lambda: warehouse.load(rows(v=2), write_mode=mode))
    result = warehouse.loader(write_mode=mode).run(pages)
    assert (result.inserted, result.unchanged) == ((6, 0) if mode == "append" else (0, 6))
    assert pages.read_again is None


@pytest.mark.parametrize("child_tables", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_ignored_fields_are_filled_once_they_have_a_column(warehouse: Warehouse, mode: str, child_tables: bool) -> None:
    def row(name: str) -> dict[str, Any]:
        return {"id": name, "fees": [{"a": 1, "g": name}]} if child_tables else {"id": name, "g": name}

    spec = {"write_mode": mode, "child_tables": child_tables}
    ignoring = spec | {"schema_policy": "ignore"}
    warehouse.load([{"id": "a", "fees": [{"a": 1}]} if child_tables else {"id": "a"}], **spec)
    warehouse.load([row("a"), row("b")], **ignoring)
    assert counts(warehouse.load([row("a"), row("b")], **ignoring)) == (0, 0, 2, 0)
    warehouse.load([row("z")], tenant_id="other", **spec)
    warehouse.load([row("a"), row("b"), row("c")], **ignoring)
    assert live(warehouse, "g", table="products__fees" if child_tables else "products") == ["a", "b", "c"]
    assert counts(warehouse.load([row("a"), row("b"), row("c")], **ignoring)) == (0, 0, 3, 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_first_element_in_a_partial_read_changes_no_other_row(warehouse: Warehouse, mode: str) -> None:
    spec = {"write_mode": mode, "child_tables": True}
    warehouse.load([{"id": "1", "fees": [1]}], tenant_id="other", **spec)
    catalogue: list[dict[str, Any]] = [{"id": str(n), "fees": []} for n in range(1, 5)]
    warehouse.load(catalogue, **spec)
    catalogue[0]["fees"] = [5]
    warehouse.load(catalogue[:2], complete=False, **spec)
    before = warehouse.read(meta=True)
    assert counts(warehouse.load(catalogue, **spec)) == (0, 0, 4, 0)
    without = [{name: value for name, value in row.items() if name != "_m2p_raw_hash"} for row in before]
    assert [{name: row[name] for name in without[0]} for row in warehouse.read(meta=True)] == without


@pytest.mark.parametrize("replicated", ["ALL TABLES", "TABLES IN SCHEMA public"])
@pytest.mark.parametrize("mode", ["append", *MODES])
def test_where_all_tables_are_replicated(postgres: Warehouse, mode: str, replicated: str) -> None:
    postgres.execute(f"CREATE PUBLICATION everything FOR {replicated}")
    for value in (1, 2):
        twice = [{"id": "a", "v": 0}, {"id": "a", "v": value}, {"id": "b", "v": 1}]
        assert postgres.load(twice, write_mode=mode)["duplicates"] == 1
        assert postgres.read()[-1] == {"id": "b", "v": 1}
    if mode == "append":
        with pytest.raises(M2PLoadError, match="Nothing was written. A replicated table without a key .* REPLICA IDENTITY FULL"):
            postgres.load(twice, write_mode=mode, load_id="load-2")
        postgres.execute("ALTER TABLE products REPLICA IDENTITY FULL")
        assert counts(postgres.load(twice, write_mode=mode, load_id="load-2")) == (2, 0, 0, 0)
    loader = postgres.loader(load_id="reviewed", table="reviewed", write_mode=mode, child_tables=True)
    loader.stage(Pages([[{"id": "a", "fees": [1]}, {"id": "a", "fees": [1, 2]}]]))
    with postgres.engine.connect() as connection:  # a replica, which does not have the stage, would stand still
        published = connection.execute(sa.text("SELECT tablename FROM pg_publication_tables")).scalars().all()
    assert not [name for name in published if name.startswith("_m2p_stage_")]
    assert counts(loader.publish().as_dict()) == (1, 0, 0, 0)
    assert [row["value"] for row in postgres.read("reviewed__fees")] == [1, 2]


def test_a_publication_that_leaves_out_what_tells_rows_apart(postgres: Warehouse) -> None:
    postgres.load([{"id": "a", "v": 1}])
    postgres.execute("CREATE PUBLICATION dear FOR TABLE products WHERE (v > 0)")
    with pytest.raises(M2PLoadError, match="cannot update table .* Nothing was written. The table is replicated in parts"):
        postgres.load([{"id": "a", "v": 2}])
    assert postgres.read() == [{"id": "a", "v": 1}]


def test_a_trigger_that_misses_its_own_table(postgres: Warehouse) -> None:
    postgres.load([{"id": "a", "v": 1}])
    postgres.execute(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO audit VALUES (1); RETURN new; END$$"
    )
    postgres.execute("CREATE TRIGGER t BEFORE UPDATE ON products FOR EACH ROW EXECUTE FUNCTION note()")
    with pytest.raises(M2PLoadError, match="audit.*does not exist. Nothing was written. .*somebody else's trigger"):
        postgres.load([{"id": "a", "v": 2}])
