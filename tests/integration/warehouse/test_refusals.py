"""What is refused: clearly, without a value of a row in the message, and with the table as it was."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from airflow_provider_m2p.client.page import Page
from airflow_provider_m2p.exceptions import M2PConfigError, M2PError, M2PLoadError, M2PResponseError, M2PSchemaError
from airflow_provider_m2p.warehouse import Loader
from airflow_provider_m2p.warehouse.spec import LoadSpec
from tests.integration.warehouse.conftest import mariadb_server
from tests.integration.warehouse.streams import Pages, Rows, Warehouse, counts

SECRET = "4111-1111-1111-1111"
ROWS = [{"id": "a", "n": 1}]


class Unreadable(Pages):
    """Pages after which a row comes that is no JSON, which only its reader finds out."""

    def __init__(self, pages: Sequence[Rows], raw: bytes) -> None:
        super().__init__(pages)
        self._raw = raw

    def __iter__(self) -> Iterator[Page]:
        yield from super().__iter__()
        yield Page(len(self._pages), [msgspec.Raw(self._raw)], None, None, "request", True)


def refused(run: Callable[[], Any], error: type[M2PError], message: str) -> str:
    """Run, expect the refusal, and return all that a log could show of it."""
    with pytest.raises(error, match=message) as caught:
        run()
    return "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"write_mode": "merge"}, "write_mode='merge' is none of append, replace, upsert, history"),
        ({"schema_policy": "strict"}, "schema_policy='strict' is none of evolve, freeze, ignore"),
        ({"key_columns": ()}, "key_columns is empty"),
        ({"key_columns": ("id", "")}, "key_columns is empty"),
        ({"key_columns": ("id", "code", "id")}, r"key_columns=\['id', 'code', 'id'\] names a field twice"),
        ({"max_delete_ratio": 1.5}, "max_delete_ratio=1.5 is not between 0 and 1"),
        ({"max_delete_ratio": -0.1}, "max_delete_ratio=-0.1 is not between 0 and 1"),
        ({"key_columns": "id"}, r"key_columns is one text, and should be a list of fields: \('id',\)"),
        ({"exclude_columns": "pan"}, r"exclude_columns is one text, and should be a list of fields: \('pan',\)"),
        ({"hash_columns": "pan"}, r"hash_columns is one text, and should be a list of fields: \('pan',\)"),
        ({"max_delete_ratio": "0.5"}, "max_delete_ratio has a wrong type. Expected `float`, got `str`"),
        ({"max_depth": "3"}, "max_depth has a wrong type. Expected `int`, got `str`"),
        ({"child_tables": "false"}, "child_tables has a wrong type. Expected `bool`, got `str`"),
        ({"key_columns": ("id", 5)}, r"key_columns\[1\] has a wrong type. Expected `str`, got `int`"),
        ({"hash_columns": None}, "hash_columns has a wrong type. Expected `array`, got `null`"),
        ({"table": 5}, "table has a wrong type. Expected `str`, got `int`"),
        ({"table": ""}, "needs a table and a tenant id"),
        ({"tenant_id": ""}, "needs a table and a tenant id"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_done(sqlite: Warehouse, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(M2PConfigError, match=message):
        sqlite.loader(**spec).check()
    with pytest.raises(M2PConfigError, match=message):
        sqlite.load(ROWS, **spec)
    assert sqlite.tables() == set()


@pytest.mark.parametrize("key", ['"a\xff"', '"a\\ud800"', '"a'])
def test_a_key_that_is_no_text_is_refused(first_class: Warehouse, key: str) -> None:
    first_class.load(ROWS)
    raw = f'{{"id":{key},"n":2}}'.encode("latin-1")
    refused(lambda: first_class.loader().run(Unreadable([ROWS], raw)), M2PResponseError, "Page 1")
    assert first_class.read() == ROWS


@pytest.mark.parametrize("mode", ["append", "replace", "upsert", "history"])
def test_rows_without_the_key_are_refused(warehouse: Warehouse, mode: str) -> None:
    warehouse.load(ROWS, write_mode=mode)
    before = warehouse.read(meta=True)
    for rows in ([{"n": 2}], [{"id": None}], [{"id": {}}], [{"id": "b"}, {"n": 2}]):
        with pytest.raises(M2PSchemaError, match="key"):
            warehouse.load([{"id": "c"}], rows, write_mode=mode, max_delete_ratio=1)
    assert warehouse.read(meta=True) == before
    assert len(warehouse.loads()) == 1


def test_rows_that_are_no_objects_are_refused(warehouse: Warehouse) -> None:
    warehouse.load(ROWS)
    for page in (b"[1]", b'["%s"]' % SECRET.encode(), b"[null]", b"[[]]"):
        shown = refused(lambda page=page: warehouse.load(ROWS, page), M2PResponseError, "Page 1, row 0 is not an object")  # type: ignore[misc]
        assert SECRET not in shown
    assert warehouse.read() == ROWS


MODES = ["append", "replace", "upsert", "history"]


@pytest.mark.parametrize("made", MODES)
@pytest.mark.parametrize("mode", MODES)
def test_a_table_made_by_another_write_mode(warehouse: Warehouse, made: str, mode: str) -> None:
    warehouse.load(ROWS, write_mode=made)
    if mode == made or (made, mode) == ("replace", "upsert"):
        assert warehouse.load(ROWS, write_mode=mode)["rows_read"] == 1
        return
    with pytest.raises(M2PSchemaError, match="Table 'products'.*(write_mode|write mode).*"):
        warehouse.loader(write_mode=mode).check()
    before = warehouse.read(meta=True)
    with pytest.raises(M2PSchemaError):
        warehouse.load([{"id": "b"}], write_mode=mode, max_delete_ratio=1)
    assert warehouse.read(meta=True) == before


def test_a_table_with_another_key(warehouse: Warehouse) -> None:
    warehouse.load([{"id": "a", "code": "x"}])
    message = r"incompatible key.*key_columns=\['code'\] needs a unique key on \(_m2p_tenant_id, code\), the table has \(_m2p_tenant_id, id\)"
    with pytest.raises(M2PSchemaError, match=message):
        warehouse.loader(key_columns=("code",)).check()
    for keys in (("id", "code"), ("nothing",)):
        with pytest.raises(M2PSchemaError, match="incompatible key"):
            warehouse.load([{"id": "a", "code": "x", "nothing": 1}], key_columns=keys)


@pytest.mark.parametrize("mode", ["upsert", "replace"])
def test_an_index_on_some_rows_is_no_key(first_class: Warehouse, mode: str) -> None:
    for n in range(2):
        first_class.load([{"id": "a", "n": n}], write_mode="history")
    first_class.execute("CREATE UNIQUE INDEX live ON products (_m2p_tenant_id, id) WHERE _m2p_valid_to IS NULL")
    with pytest.raises(M2PSchemaError, match="exists with an incompatible key"):
        first_class.load([{"id": "a", "n": 2}], write_mode=mode)
    assert sorted(row["n"] for row in first_class.read()) == [0, 1]


def test_a_table_that_somebody_else_made(warehouse: Warehouse) -> None:
    warehouse.execute("CREATE TABLE products (id VARCHAR(9) PRIMARY KEY, n INTEGER)")
    warehouse.execute("INSERT INTO products VALUES ('x', 1)")
    for mode in MODES:
        with pytest.raises(M2PSchemaError, match=r"exists but was not made for write_mode='\w+': it lacks _m2p_tenant_id, _m2p_load_id"):
            warehouse.load(ROWS, write_mode=mode)
    assert warehouse.read() == [{"id": "x", "n": 1}]


def test_a_child_table_that_somebody_else_made(first_class: Warehouse) -> None:
    first_class.execute("CREATE TABLE products__fees (id VARCHAR(9) PRIMARY KEY, n INTEGER)")
    with pytest.raises(M2PSchemaError, match=r"Table 'products__fees' exists but was not made for write_mode='upsert': it lacks"):
        first_class.load([{"id": "a", "fees": [1]}], child_tables=True)
    assert list(first_class.table("products__fees").columns.keys()) == ["id", "n"]


def test_a_column_that_must_not_be_null_and_is_nobodys(warehouse: Warehouse) -> None:
    warehouse.load(ROWS)
    if warehouse.way == "sqlite":
        warehouse.execute("CREATE TRIGGER t BEFORE INSERT ON products BEGIN SELECT RAISE(ABORT, 'no'); END")
    else:
        warehouse.execute("ALTER TABLE products ADD COLUMN must INTEGER DEFAULT 1 NOT NULL")
        warehouse.execute("ALTER TABLE products ALTER COLUMN must DROP DEFAULT")
    with pytest.raises(M2PLoadError, match="The warehouse refused the load into products.*Nothing was written"):
        warehouse.load([*ROWS, {"id": SECRET}])
    assert [row["id"] for row in warehouse.read()] == ["a"]


@pytest.mark.parametrize("secret", [SECRET, f"it's {SECRET}", f'"{SECRET}"', f"x\n{SECRET}", f"'{SECRET}', '{SECRET}"])
def test_no_message_has_a_value(warehouse: Warehouse, secret: str, caplog: pytest.LogCaptureFixture) -> None:
    warehouse.load([{"id": "a", "v": "x", "n": 1}])
    unique = "CREATE UNIQUE INDEX one ON products (n)"
    warehouse.execute(unique if warehouse.way != "mariadb" else "CREATE UNIQUE INDEX one ON products (v(100))")
    rows = [{"id": "a", "v": "x", "n": 1}, {"id": secret, "v": secret, "n": 2}, {"id": f"{secret}2", "v": secret, "n": 2}]
    shown = refused(lambda: warehouse.load(rows), M2PLoadError, "The warehouse refused the load")
    assert SECRET not in shown
    noise = "".join(sha256(bytes([n])).hexdigest() for n in range(250))  # which no index can compress
    too_long = {"id": secret + noise, "v": "x"}
    if warehouse.way != "sqlite":
        message = "The warehouse refused the load|holds a key with more than 255 characters"
        shown += refused(lambda: warehouse.load([rows[0], too_long]), M2PError, message)
    assert SECRET not in shown + caplog.text
    assert len(warehouse.read()) == 1


def test_a_check_constraint_of_others_shows_no_value(warehouse: Warehouse) -> None:
    price = int("4" + "1" * 9)
    warehouse.load(ROWS)
    if warehouse.way == "sqlite":
        warehouse.execute("CREATE TRIGGER t BEFORE INSERT ON products WHEN new.n > 5 BEGIN SELECT RAISE(ABORT, 'too much'); END")
    else:
        warehouse.execute("ALTER TABLE products ADD CONSTRAINT small CHECK (n < 5)")
    shown = refused(
        lambda: warehouse.load([*ROWS, {"id": SECRET, "n": price}]), M2PLoadError, "(small|raised by a trigger).*Somebody else's constraint"
    )
    assert SECRET not in shown
    assert str(price) not in shown


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("RAISE EXCEPTION 'customer % is wrong', new.id", "P0001"),
        ("RAISE EXCEPTION 'customer % is wrong', new.id USING ERRCODE = 'check_violation'", "23514"),
        ("RAISE EXCEPTION 'customer % is wrong', new.id USING ERRCODE = 'M2P01'", "M2P01"),
        ("ASSERT new.id > '8', 'customer ' || new.id || ' is wrong'", "P0004"),
    ],
)
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_trigger_of_others_shows_no_value(postgres: Warehouse, driver: str, body: str, code: str) -> None:
    postgres = Warehouse(driver, postgres.url.set(drivername=f"postgresql+{driver}"))
    postgres.load(ROWS)
    postgres.execute(
        f"CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body}; RETURN new; END$$"
    )
    postgres.execute("CREATE TRIGGER t BEFORE INSERT ON products FOR EACH ROW EXECUTE FUNCTION no()")
    shown = refused(
        lambda: postgres.load([*ROWS, {"id": SECRET}]), M2PLoadError, rf"{code}\): raised by a trigger.*trigger does not"
    )
    postgres.close()
    assert SECRET not in shown


@pytest.mark.parametrize("state", ["45000", "23000", "02000"])
@pytest.mark.parametrize("number", ["", "MYSQL_ERRNO = 1062,", "MYSQL_ERRNO = 31001,"])
def test_a_trigger_of_others_in_mariadb_shows_no_value(mariadb: Warehouse, state: str, number: str) -> None:
    rows = [{"id": f"{n:03}", "n": n / 7, "at": "2024-01-01T00:00:00.123456Z", "day": "2024-01-01", "is": True} for n in range(100)]
    mariadb.load(rows[:1])
    mariadb.execute(
        "CREATE TRIGGER t BEFORE INSERT ON products FOR EACH ROW BEGIN DECLARE words TEXT DEFAULT CONCAT('not ', new.id); "
        f"IF new.id > '2' THEN SIGNAL SQLSTATE '{state}' SET {number} MESSAGE_TEXT = words; END IF; END"
    )
    silent = Warehouse("mariadb", mariadb.url, connect_args={"init_command": "SET sql_notes = 0, max_error_count = 0"})
    message = r"\(\d+\): raised by a trigger. Nothing.*trigger does not take"
    shown = refused(lambda: silent.load([*rows, {"id": SECRET}]), M2PLoadError, message)
    silent.close()
    assert SECRET not in shown
    assert len(mariadb.read()) == 1


def test_a_row_that_is_too_wide_and_a_column_that_is_too_narrow(postgres: Warehouse) -> None:
    refused(lambda: postgres.load([{"id": "a"} | {f"f{n}": "x" * 20 for n in range(600)}]), M2PLoadError, "flatten less.*max_depth")
    postgres.load(ROWS)
    postgres.execute("ALTER TABLE products ALTER n TYPE integer")
    refused(lambda: postgres.load([{"id": "a", "n": 3 * 10**9}]), M2PLoadError, "change back what somebody else made smaller")
    assert postgres.read() == ROWS


class Failing(Pages):
    """A list whose second page does not come."""

    def __iter__(self) -> Iterator[Page]:
        yield next(super().__iter__())
        raise M2PResponseError("the platform went away")


def test_an_error_of_the_platform_writes_nothing_and_is_shown_as_it_is(warehouse: Warehouse) -> None:
    warehouse.load(ROWS)
    before = warehouse.read(meta=True)
    pages = Failing([[{"id": "b"}]])
    with pytest.raises(M2PResponseError, match="the platform went away"):
        warehouse.loader().run(pages)
    assert pages.closed
    assert warehouse.read(meta=True) == before
    assert not [name for name in warehouse.tables() if "stage_" in name]


def test_a_schema_that_does_not_exist(postgres: Warehouse) -> None:
    with pytest.raises(M2PLoadError, match="The schema 'nowhere' does not exist. Create it, or name another"):
        postgres.loader(schema="nowhere").check()


@pytest.fixture
def guest(postgres: Warehouse) -> Iterator[Warehouse]:
    """A warehouse whose user may read and write the books, and what a test grants."""
    postgres.load(ROWS)
    name = f"guest_{postgres.url.database}"
    postgres.execute(f"CREATE ROLE {name} LOGIN")
    postgres.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON _m2p_loads, _m2p_columns, _m2p_staged TO {name}")
    warehouse = Warehouse("psycopg", postgres.url.set(username=name))
    yield warehouse
    warehouse.close()
    postgres.execute(f"DROP OWNED BY {name}")
    postgres.execute(f"DROP ROLE {name}")


def test_a_privilege_that_is_missing_is_told_before_the_first_page(postgres: Warehouse, guest: Warehouse) -> None:
    name = guest.url.username
    with pytest.raises(M2PLoadError, match=f"The user '{name}' lacks the privilege SELECT on table"):
        guest.loader().check()
    postgres.execute(f"GRANT SELECT, INSERT, UPDATE ON products TO {name}")
    with pytest.raises(M2PLoadError, match="lacks the privilege DELETE on table"):
        guest.loader().check()
    with pytest.raises(M2PLoadError, match="lacks the privilege CREATE on schema 'public'"):
        guest.loader(table="other").check()
    postgres.execute(f"GRANT DELETE ON products TO {name}")
    assert counts(guest.load([*ROWS, {"id": "b", "n": 1}])) == (1, 0, 1, 0)
    with pytest.raises(M2PLoadError, match="must be owner of table products"):
        guest.load([*ROWS, {"id": "b", "n": 1, "new": 1}])
    assert len(postgres.read()) == 2


def test_no_server(postgres_url: sa.URL) -> None:
    engine = sa.create_engine(postgres_url.set(port=1))
    shown = refused(lambda: Loader(engine, LoadSpec(table="t", tenant_id="a", load_id="l")).check(), M2PLoadError, "refused the load into t")
    assert "Connection refused" in shown


def test_no_driver() -> None:
    engine = sa.create_engine("sqlite://", creator=lambda: import_module("driver_of_nobody"))  # as hooks of Airflow may do
    loader = Loader(engine, LoadSpec(table="t", tenant_id="a", load_id="l"))
    refused(loader.check, M2PConfigError, "The driver of the warehouse is not installed: No module named 'driver_of_nobody'")


def test_a_database_that_may_only_be_read(tmp_path: Path) -> None:
    path = tmp_path / "w.db"
    warehouse = Warehouse("sqlite", sa.make_url(f"sqlite:///{path}"))
    warehouse.load(ROWS)
    warehouse.close()
    read_only = Warehouse("sqlite", sa.make_url(f"sqlite:///file:{path}?mode=ro&uri=true"))
    with pytest.raises(M2PLoadError, match="readonly database"):
        read_only.loader().check()
    read_only.close()
    empty = Warehouse("sqlite", sa.make_url(f"sqlite:///{tmp_path}/nowhere/w.db"))
    with pytest.raises(M2PLoadError, match="unable to open database file"):
        empty.loader().check()
    empty.close()


def test_a_check_changes_nothing_but_the_books(warehouse: Warehouse) -> None:
    warehouse.loader().check()
    warehouse.loader().check()
    assert warehouse.tables() == {"_m2p_loads", "_m2p_columns", "_m2p_staged"}
    assert warehouse.loads() == []


def test_a_connection_is_given_back_as_it_was(warehouse: Warehouse) -> None:
    """The engine is the caller's: what a load sets on a connection must not stay."""
    query = {
        "mariadb": "SELECT @@SESSION.sql_mode, @@SESSION.time_zone, @@SESSION.lock_wait_timeout, @@SESSION.sql_select_limit",
        "sqlite": "PRAGMA busy_timeout",
    }.get(warehouse.way, "SELECT current_setting('lock_timeout'), current_setting('datestyle'), current_setting('transaction_isolation')")
    with warehouse.engine.connect() as connection:
        before = connection.exec_driver_sql(query).all()
        level = getattr(connection.connection.driver_connection, "isolation_level", None) if warehouse.way == "sqlite" else None
    warehouse.load(ROWS)
    with pytest.raises(M2PSchemaError):
        warehouse.load([{}])
    with warehouse.engine.connect() as connection:
        assert connection.exec_driver_sql(query).all() == before
        if warehouse.way == "sqlite":
            assert getattr(connection.connection.driver_connection, "isolation_level", None) == level


@pytest.mark.parametrize("table", ["products", "_m2p_columns", "_m2p_loads"])
def test_collations_in_mariadb_that_take_different_texts_for_the_same(mariadb: Warehouse, table: str) -> None:
    mariadb.load([{"id": "a"}])
    mariadb.execute(f"ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    with pytest.raises(M2PSchemaError, match=f"of table '{table}' has the collation utf8mb4_general_ci, which takes different texts for the same"):
        mariadb.load([{"id": "b"}], tenant_id="acme_corp", max_delete_ratio=1)
    assert [row["_m2p_deleted_at"] for row in mariadb.read(meta=True)] == [None]


def test_a_collation_in_postgres_that_takes_different_texts_for_the_same(postgres: Warehouse) -> None:
    postgres.load([{"id": "a"}])
    # This server is built without ICU, and so has no such collation of its own.
    postgres.execute('CREATE COLLATION no_case FROM "C"')
    postgres.execute("UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'no_case'")
    postgres.execute("ALTER TABLE products ALTER COLUMN id TYPE text COLLATE no_case")
    with pytest.raises(M2PSchemaError, match="'id' of table 'products' has the collation no_case, which takes different texts for the same"):
        postgres.load([{"id": "A"}], max_delete_ratio=1)
    assert postgres.read() == [{"id": "a"}]


@pytest.mark.parametrize("kept_as", ["citext", "domain_of_it", "domain_of_that"])
def test_a_type_in_postgres_that_takes_different_texts_for_the_same(postgres: Warehouse, kept_as: str) -> None:
    postgres.load([{"id": "a"}])
    # This server is without the extension, which makes the type just so.
    postgres.execute("CREATE TYPE citext")
    postgres.execute("CREATE FUNCTION citextin(cstring) RETURNS citext AS 'textin' LANGUAGE internal IMMUTABLE STRICT")
    postgres.execute("CREATE FUNCTION citextout(citext) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT")
    postgres.execute("CREATE TYPE citext (INPUT = citextin, OUTPUT = citextout, LIKE = text, COLLATABLE = true)")
    postgres.execute("CREATE CAST (citext AS text) WITHOUT FUNCTION AS IMPLICIT")
    postgres.execute("CREATE CAST (text AS citext) WITHOUT FUNCTION AS ASSIGNMENT")
    postgres.execute("CREATE DOMAIN domain_of_it AS citext")
    postgres.execute("CREATE DOMAIN domain_of_that AS domain_of_it")
    postgres.execute(f"ALTER TABLE products ALTER COLUMN id TYPE {kept_as}")
    with pytest.raises(M2PSchemaError, match="'id' of table 'products' has the type citext, which takes different texts for the same"):
        postgres.load([{"id": "A"}], max_delete_ratio=1)
    assert postgres.read() == [{"id": "a"}]


def test_settings_of_mariadb_do_not_change_a_load(mariadb: Warehouse) -> None:
    settings = {"default_storage_engine": "MyISAM", "sql_safe_updates": 1, "sql_select_limit": 1, "sql_big_selects": 0, "max_join_size": 1}
    settings |= {"sql_notes": 0, "max_error_count": 0}
    init = "SET " + ", ".join(f"SESSION {name} = {value}" for name, value in settings.items())
    limited = Warehouse("mariadb", mariadb.url, connect_args={"init_command": init})
    limited.load([{"id": "a", "n": 1, "m": True}, {"id": "b", "n": 2, "m": False}])
    limited.load([{"id": "a", "n": 1.5, "m": "x"}, {"id": "b", "n": 2, "m": False}])
    with limited.engine.connect() as connection:
        query = f"SELECT {', '.join(f'@@SESSION.{name}' for name in settings)}"
        assert [str(value) for value in connection.exec_driver_sql(query).one()] == [str(value) for value in settings.values()]
    limited.close()
    assert [row["m"] for row in mariadb.read()] == ["x", "false"]
    with mariadb.engine.connect() as connection:
        engines = connection.exec_driver_sql("SELECT DISTINCT engine FROM information_schema.tables WHERE table_schema = DATABASE()")
        assert engines.all() == [("InnoDB",)]


def test_a_table_name_that_a_mariadb_server_changes_is_refused() -> None:
    with mariadb_server("--lower-case-table-names=1") as port:
        warehouse = Warehouse("mariadb", sa.make_url(f"mysql+pymysql://root@127.0.0.1:{port}"))
        warehouse.execute("CREATE DATABASE Bank")
        warehouse.close()
        spelled = [Warehouse("mariadb", warehouse.url.set(database=name)) for name in ("bank", "Bank")]
        rows = [{"id": "a", "Fees": [{"f": 1}]}]
        for n, each in enumerate(spelled):
            with pytest.raises(M2PConfigError, match="This server takes the table name 'Products' for 'products'. Name it 'products'"):
                each.loader(table="Products").check()
            assert counts(each.load(rows, child_tables=True)) == (1 - n, 0, n, 0)
            assert each.tables() == {"_m2p_loads", "_m2p_columns", "_m2p_staged", "products", "products__fees"}
            each.close()


@pytest.mark.parametrize("charset", ["utf8", "utf8mb3"])
def test_a_charset_of_three_bytes_in_mariadb_loses_no_character(mariadb: Warehouse, charset: str) -> None:
    narrow = Warehouse("mariadb", mariadb.url.update_query_dict({"charset": charset}))
    rows = [{"id": "\U0001f600", "\u00e9": "\U0001f600\u00e9"}]
    for n in range(2):
        assert counts(narrow.load(rows)) == (1 - n, 0, n, 0)
    with narrow.engine.connect() as connection:
        settings = "SELECT @@character_set_client, @@character_set_connection, @@character_set_results"
        assert {str(value) for value in connection.exec_driver_sql(settings).one()} == {"utf8mb3"}
    narrow.close()
    assert mariadb.read() == rows


@pytest.mark.parametrize("charset", ["latin1", "ascii", "gbk"])
def test_a_charset_in_mariadb_that_lacks_characters_is_refused(mariadb: Warehouse, charset: str) -> None:
    other = Warehouse("mariadb", mariadb.url.update_query_dict({"charset": charset}))
    with pytest.raises(M2PConfigError, match=f"The connection's charset is {charset}, which does not have every character"):
        other.load([{"id": "\U0001f600"}])
    other.close()
    assert mariadb.tables() == set()


@pytest.mark.parametrize(
    ("row", "keys", "message"),
    [
        ({"a": "x", "b": "y", "c": "z"}, ("a", "b", "c"), "A key may have two fields of texts"),
        ({"id": "x"} | {f"f{n}": "x" * 50 for n in range(900)}, ("id",), "A row may have 8 kB"),
    ],
)
def test_limits_of_mariadb(mariadb: Warehouse, row: dict[str, Any], keys: tuple[str, ...], message: str) -> None:
    with pytest.raises(M2PLoadError, match=message):
        mariadb.load([row], key_columns=keys)


@pytest.mark.parametrize("warehouse", ["mariadb", "portable"], indirect=True)
@pytest.mark.parametrize(("key", "mode"), [("x" * 256, "upsert"), ("x" * 255 + " ", "history"), ("x" * 255 + " ", "append")])
def test_keys_longer_than_the_database_can_hold(warehouse: Warehouse, key: str, mode: str) -> None:
    longest = {"id": "x" * 255}
    warehouse.load([longest], write_mode=mode)
    with pytest.raises(M2PSchemaError, match="Page 0 holds a key with more than 255 characters, the most in this database: field 'id'"):
        warehouse.load([longest, {"id": key}], write_mode=mode)
    assert warehouse.read() == [longest]
