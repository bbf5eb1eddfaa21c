"""SQLite: a stage outside the database's lock, numbers as text, instants as UTC text, columns widened in place."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

import sqlalchemy as sa

from airflow_provider_m2p.columns.compiled import Cells
from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.exceptions import M2PConfigError, M2PLoadError, M2PSchemaError
from airflow_provider_m2p.warehouse.dialect import Dialect

_READ_SECONDS: Final = 300.0
#: What collations take for the same as ``a``.
_SAME_AS_A: Final = {"NOCASE": "A", "RTRIM": "a "}
#: A word of a statement, with the space and the comments before it.
_WORD: Final = re.compile(
    r"""(?:[ \t\n\f\r]|--[^\n]*|/\*.*?\*/)*"""
    r"""("(?:[^"]|"")*"|'(?:[^']|'')*'|`(?:[^`]|``)*`|\[[^]]*\]|[\w$\x80-\U0010ffff]+|.)""",
    re.DOTALL,
)
_AFTER_TYPE: Final = re.compile(
    r"[,)]|CONSTRAINT|PRIMARY|NOT|NULL|UNIQUE|CHECK|DEFAULT|COLLATE|REFERENCES|GENERATED|AS"
)


class SQLite(Dialect):
    """SQLite by the standard library's driver. Decimals are TEXT: a NUMERIC column would make them binary floats."""

    stage_prefixes: ClassVar[Sequence[str]] = ("TEMPORARY",)
    transactional_ddl: ClassVar[bool] = True
    indexes_expressions: ClassVar[bool] = True
    locks: ClassVar[bool] = True
    # SQLite copies each value within our process: a fifth faster while the processor's cache still has them.
    batch_rows: ClassVar[int] = 100
    max_columns: ClassVar[int] = 2000
    max_parameters: ClassVar[int] = 30_000

    def __init__(self, connection: sa.Connection) -> None:
        super().__init__(connection)
        # The driver would begin transactions where it sees fit; here they begin where this class says.
        driver = connection.connection.driver_connection
        assert driver is not None
        self._driver: Any = driver
        self._autocommit = getattr(self._driver, "autocommit", None)  # from Python 3.12 on
        if self._autocommit is not None:
            self._driver.autocommit = -1  # sqlite3.LEGACY_TRANSACTION_CONTROL
            self._driver.rollback()
        self._isolation_level = self._driver.isolation_level
        self._driver.isolation_level = None
        # A load that writes much shuts readers out until it is committed.
        self._busy_timeout = self._ask("PRAGMA busy_timeout")
        self._wait(_READ_SECONDS)
        # What is staged is never rolled back: a stage that fails is dropped.
        self._temp_journal = self._ask("PRAGMA temp.journal_mode")
        self._ask("PRAGMA temp.journal_mode = OFF")

    def close(self) -> None:
        self._wait(self._busy_timeout / 1000)
        self._ask(f"PRAGMA temp.journal_mode = {self._temp_journal}")
        self._driver.isolation_level = self._isolation_level
        if self._autocommit is not None:
            self._driver.autocommit = self._autocommit

    def _ask(self, statement: str) -> Any:
        return self._driver.execute(statement).fetchone()[0]

    def _wait(self, seconds: float) -> None:
        """Set how long to wait for other processes."""
        self._driver.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def text_type(self, *, key: bool = False) -> sa.types.TypeEngine[Any]:
        return sa.Text()

    def instant_type(self) -> sa.types.TypeEngine[Any]:
        return sa.TIMESTAMP()

    def column_type(self, kind: Kind, *, key: bool = False) -> sa.types.TypeEngine[Any]:
        return sa.JSON() if kind is Kind.JSON else super().column_type(kind, key=key)

    def convert(self, staged: sa.ColumnElement[Any], source: Kind, target: Kind) -> sa.ColumnElement[Any]:
        if source is Kind.INSTANT:
            return self.instant(staged) if target is source else sa.func.substr(staged, 34)
        if source is target is Kind.INT:
            return sa.cast(staged, sa.BigInteger())
        if source is target is Kind.BOOL:
            return sa.type_coerce(staged, sa.Text()) == sa.literal_column("'true'")
        return sa.type_coerce(staged, sa.Text())

    def instant(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.type_coerce(sa.func.substr(text, 1, 26), sa.Text())

    def stored_text(self, column: sa.ColumnElement[Any], kind: Kind) -> sa.ColumnElement[Any]:
        if kind is Kind.INSTANT:
            return sa.func.replace(column, " ", "T").op("||")("Z")
        return super().stored_text(column, kind)

    def widen_column(self, table: sa.Table, name: str, source: Kind, target: Kind, *, key: bool) -> None:
        wider = self.column_type(target)
        if type(wider) is type(self.column_type(source)):
            return
        if self._orders_rows(table, name):
            super().widen_column(table, name, source, target, key=True)  # which is refused
        self._refuse_references(table, name, source, target, key=key)
        run, schema, database = self.connection.exec_driver_sql, self._schema(table), self._database(table)
        # While values change, no trigger is to fire, and an index on an expression of them might not find its entries.
        # Foreign keys may need those that are unique.
        others = run(
            f"""
            SELECT type, name, sql FROM {schema}.sqlite_master
            WHERE type IN ('index', 'trigger') AND sql IS NOT NULL AND tbl_name = ? COLLATE NOCASE
            AND NOT (type = 'index' AND name IN (
                SELECT name FROM pragma_index_list(?, ?) AS plain WHERE "unique" AND NOT partial
                AND NOT EXISTS (SELECT 1 FROM pragma_index_xinfo(plain.name, ?) WHERE cid = -2)
            ))
            ORDER BY rowid
            """,
            (table.name, table.name, database, database),
        ).all()
        for what, other, _ in others:
            run(f"DROP {what} {schema}.{self.quote(other)}")
        self._declare(table, name, wider.compile(self.connection.dialect))
        stored = sa.column(name, self.column_type(source))
        itself = sa.table(table.name, stored, schema=table.schema)
        self.connection.execute(sa.update(itself).values({stored: self.stored_text(stored, source)}))
        for what, _, statement in others:
            # SQLite keeps these words in this form, and the name without its schema.
            run(re.sub(f"(?i)^CREATE (UNIQUE )?{what} ", lambda begin: f"{begin[0]}{schema}.", statement, count=1))

    @staticmethod
    def _database(table: sa.Table) -> str:
        """Return the name of the attached database that has a table."""
        return table.schema or "main"

    def _schema(self, table: sa.Table) -> str:
        """Return that name as SQL has it."""
        return self.quote(self._database(table))

    def _orders_rows(self, table: sa.Table, name: str) -> bool:
        """Tell whether a table WITHOUT ROWID keeps its rows by a column: they would not be found by another type."""
        schema, database = self._schema(table), self._database(table)
        # The key of other tables is an index that has an entry of its own.
        found = self.connection.exec_driver_sql(
            f"""
            SELECT 1 FROM pragma_index_list(?, ?) AS own, pragma_index_info(own.name, ?) AS part
            WHERE origin = 'pk' AND part.name = ? AND own.name NOT IN (SELECT name FROM {schema}.sqlite_master)
            """,
            (table.name, database, database, name),
        ).first()
        return found is not None

    def _refuse_references(self, table: sa.Table, name: str, source: Kind, target: Kind, *, key: bool) -> None:
        """Refuse to change values where a table that refers to them is to lose its references by that."""
        schema = self._schema(table)
        found = self.connection.exec_driver_sql(
            f"""
            SELECT other.name, on_update
            FROM {schema}.sqlite_master AS other, pragma_foreign_key_list(other.name, ?) AS reference
            WHERE type = 'table' AND reference."table" = ? COLLATE NOCASE AND coalesce("to" = ? COLLATE NOCASE, ?)
            AND on_update NOT IN ('NO ACTION', 'CASCADE') AND (SELECT foreign_keys FROM pragma_foreign_keys)
            """,
            (self._database(table), table.name, name, key),
        ).first()
        if found is not None:
            raise M2PSchemaError(
                f"Column {name!r} of table {table.name!r} would have to change from {source.value} to {target.value}, "
                f"and table {found[0]!r} refers to it with ON UPDATE {found[1]}. Nothing was written. Make that table "
                "without this clause, or load into a new table."
            )

    def _declare(self, table: sa.Table, name: str, new_type: str) -> None:
        """
        Give a column another declared type, and leave all else of the table's definition as it stands.

        A new table in place of the old one would not do: where foreign keys are enforced, dropping the old one deletes
        what refers to its rows.
        """
        run, schema = self.connection.exec_driver_sql, self._schema(table)
        describe = f"PRAGMA {schema}.table_xinfo({self.quote(table.name)})"
        wanted = [list(column) for column in run(describe)]
        place = next(place for place, column in enumerate(wanted) if column[1] == name)
        wanted[place][2] = new_type
        this = "type = 'table' AND name = ? COLLATE NOCASE"
        ddl = run(f"SELECT sql FROM {schema}.sqlite_master WHERE {this}", (table.name,)).scalar_one()
        version = run(f"PRAGMA {schema}.schema_version").scalar_one()
        run("PRAGMA writable_schema = ON")
        try:
            ddl = _with_type(ddl, place, new_type)
            run(f"UPDATE {schema}.sqlite_master SET sql = ? WHERE {this}", (ddl, table.name))
            run(f"PRAGMA {schema}.schema_version = {version + 1}")  # tells all connections
        finally:
            run("PRAGMA writable_schema = RESET")  # and has this one read it again
        if [list(column) for column in run(describe)] != wanted:
            raise M2PSchemaError(
                f"The type of column {name!r} cannot be changed in the definition of table {table.name!r}. "
                "Nothing was written. Load into a new table."
            )

    def write_cells(self, stage: sa.Table, columns: list[sa.Column[Any]], rows: list[Cells]) -> None:
        names = ", ".join(self.quote(column.name) for column in columns)
        marks = ", ".join("?" * len(columns))
        with self.connection.begin():
            # Within one transaction, or every row would be one; the stage is not in the database that others wait for.
            self._begin()
            self._driver.executemany(f"INSERT INTO {self.qualified(stage)} ({names}) VALUES ({marks})", rows)

    def _begin(self, how: str = "") -> None:
        """Begin a transaction, in place of one that the engine may have begun by a listener of its own."""
        if self._driver.in_transaction:
            self._driver.rollback()
        self.connection.exec_driver_sql(f"BEGIN {how}")

    def check(self, table: sa.Table, *, with_children: bool) -> None:
        run = self.connection.exec_driver_sql
        spelled = run(
            f"SELECT name FROM {self._schema(table)}.sqlite_master "
            "WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE AND name <> ?",
            (table.name, table.name),
        ).scalar()
        if spelled is not None:
            raise M2PConfigError(
                f"There is {spelled!r} already, and SQLite takes {table.name!r} for the same name. Load into "
                f"{spelled!r}, or choose another name."
            )
        self._wait(0)
        try:
            self._begin("IMMEDIATE")
            run(f"PRAGMA user_version = {run('PRAGMA user_version').scalar()}")  # a write that changes nothing
            run("ROLLBACK")
        except sa.exc.OperationalError as error:
            if "locked" not in str(error.orig):  # that another load writes now is no reason not to begin
                raise
        finally:
            self._wait(_READ_SECONDS)

    def _find_lossy_collation(self, table: sa.Table, columns: list[str]) -> tuple[str, str, str] | None:
        run, database = self.connection.exec_driver_sql, self._database(table)
        found = run(
            """
            SELECT part.name, part.coll FROM pragma_index_list(?, ?) AS own, pragma_index_xinfo(own.name, ?) AS part
            WHERE "unique" AND NOT partial AND part.name IN (SELECT value FROM json_each(?))
            AND part.coll <> 'BINARY' COLLATE NOCASE
            AND NOT EXISTS (
                SELECT 1 FROM pragma_index_info(own.name, ?) AS other
                WHERE other.name NOT IN (SELECT value FROM json_each(?))
            )
            """,
            (table.name, database, database, json.dumps(columns), database, json.dumps(columns)),
        ).first()
        if found is not None:
            return found[0], f"collation {found[1]}", "BINARY"
        # A column may have another collation than its index, and what that is shows in comparisons alone.
        for name in filter(table.c.__contains__, columns):
            texts = f"SELECT {self.quote(name)} FROM {self.qualified(table)} WHERE 0 UNION SELECT 'a'"
            for collation, other in _SAME_AS_A.items():
                if run(f"SELECT count(*) FROM ({texts} UNION SELECT '{other}')").scalar() == 1:
                    return name, f"collation {collation}", "BINARY"
        return None

    def try_writing(self, table: sa.Table, *, only_insert: bool = False) -> None:
        """Do nothing: every write would wait for others, and :meth:`check` has tried one."""

    @contextlib.contextmanager
    def transaction(self, lock: str, seconds: float) -> Iterator[None]:
        self._wait(seconds)
        with contextlib.ExitStack() as transaction:
            try:
                transaction.enter_context(self.connection.begin())
                self._begin("IMMEDIATE")
            except sa.exc.OperationalError as error:
                if "locked" not in str(error.orig):
                    raise
                raise M2PLoadError(
                    f"The database stayed locked by another process for more than {seconds:.0f} s "
                    f"({error.orig}). Nothing was written to {lock}; run the task again."
                ) from error
            yield


def _with_type(ddl: str, place: int, new_type: str) -> str:
    """Return a CREATE TABLE statement with another type for the column at a place."""
    depth = item = start = end = 0
    for token in _WORD.finditer(ddl):
        word = token[1]
        if depth and item == place:
            if not start:  # this is the name
                start = token.end()
            elif depth == 1 and _AFTER_TYPE.fullmatch(word.upper()):
                break
            end = token.end()
        depth += (word == "(") - (word == ")")
        item += depth == 1 and word == ","
    return f"{ddl[:start]} {new_type}{ddl[end:]}"
