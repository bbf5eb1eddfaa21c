"""SQLite: a stage outside the database's lock, numbers as text, instants as UTC text, tables rebuilt to widen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

import sqlalchemy as sa

from airflow_provider_m2p.columns.compiled import Cells
from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.exceptions import M2PLoadError
from airflow_provider_m2p.warehouse.dialect import Dialect

_READ_SECONDS: Final = 300.0


class SQLite(Dialect):
    """SQLite by the standard library's driver. Decimals are TEXT: a NUMERIC column would make them binary floats."""

    stage_prefixes: ClassVar[Sequence[str]] = ("TEMPORARY",)
    transactional_ddl: ClassVar[bool] = True
    indexes_expressions: ClassVar[bool] = True
    locks: ClassVar[bool] = True
    max_columns: ClassVar[int] = 2000
    max_parameters: ClassVar[int] = 30_000

    def __init__(self, connection: sa.Connection) -> None:
        super().__init__(connection)
        # The driver would begin transactions where it sees fit; here they begin where this class says.
        driver = connection.connection.driver_connection
        assert driver is not None
        self._driver: Any = driver
        self._isolation_level = self._driver.isolation_level
        self._driver.isolation_level = None
        # A load that writes much shuts readers out until it is committed.
        self._busy_timeout = self._driver.execute("PRAGMA busy_timeout").fetchone()[0]
        self._wait(_READ_SECONDS)
        # What is staged is never rolled back: a stage that fails is dropped.
        self._driver.execute("PRAGMA temp.journal_mode = OFF")

    def close(self) -> None:
        self._driver.isolation_level = self._isolation_level
        self._wait(self._busy_timeout / 1000)

    def _wait(self, seconds: float) -> None:
        """Set how long to wait for other processes."""
        self._driver.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def text_type(self, *, key: bool = False) -> sa.types.TypeEngine[Any]:
        return sa.Text()

    def instant_type(self) -> sa.types.TypeEngine[Any]:
        return sa.TIMESTAMP()

    def column_type(self, kind: Kind, *, key: bool = False) -> sa.types.TypeEngine[Any]:
        return sa.JSON() if kind is Kind.JSON else super().column_type(kind, key=key)

    def stage_type(self, kind: Kind, *, key: bool = False) -> sa.types.TypeEngine[Any]:
        return sa.Text()

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
        old = sa.Table(table.name, sa.MetaData(), schema=table.schema, autoload_with=self.connection)
        new = old.to_metadata(sa.MetaData(), name=f"{table.name}__m2p_wider")
        new.c[name].type = self.column_type(target, key=key)
        new.indexes.clear()  # they are made anew under their own names
        value = self.stored_text(old.c[name], source) if target is Kind.TEXT else old.c[name]
        schema = "" if table.schema is None else f"{self.quote(table.schema)}."
        own = sa.text(
            f"SELECT sql FROM {schema}sqlite_master WHERE tbl_name = :name AND type <> 'table' AND sql IS NOT NULL"
        )
        others = [row[0] for row in self.connection.execute(own, {"name": table.name})]
        new.create(self.connection)
        values = [value if column.name == name else sa.type_coerce(column, sa.Text()) for column in old.columns]
        self.connection.execute(sa.insert(new).from_select(list(new.columns.keys()), sa.select(*values)))
        old.drop(self.connection)
        # Else a view of the table, which for a moment is not there, would be an error.
        self.execute("PRAGMA legacy_alter_table = ON")
        try:
            self.execute(f"ALTER TABLE {self.qualified(new)} RENAME TO {self.quote(table.name)}")
        finally:
            self.execute("PRAGMA legacy_alter_table = OFF")
        for statement in others:
            self.connection.exec_driver_sql(statement)

    def write_cells(self, stage: sa.Table, columns: list[sa.Column[Any]], rows: list[Cells]) -> None:
        names = ", ".join(self.quote(column.name) for column in columns)
        marks = ", ".join("?" * len(columns))
        with self.connection.begin():
            # Within one transaction, or every row would be one; the stage is not in the database that others wait for.
            self.connection.exec_driver_sql("BEGIN")
            self._driver.executemany(f"INSERT INTO {self.qualified(stage)} ({names}) VALUES ({marks})", rows)

    def check(self, table: sa.Table) -> None:
        self._wait(0)
        run = self.connection.exec_driver_sql
        try:
            run("BEGIN IMMEDIATE")
            run(f"PRAGMA user_version = {run('PRAGMA user_version').scalar()}")  # a write that changes nothing
            run("ROLLBACK")
        except sa.exc.OperationalError as error:
            if "locked" not in str(error.orig):  # that another load writes now is no reason not to begin
                raise
        finally:
            self._wait(_READ_SECONDS)

    def try_writing(self, table: sa.Table, *, only_insert: bool = False) -> None:
        """Do nothing: every write would wait for others, and :meth:`check` has tried one."""

    @contextlib.contextmanager
    def transaction(self, lock: str, seconds: float) -> Iterator[None]:
        with self.connection.begin():
            self._wait(seconds)
            try:
                self.connection.exec_driver_sql("BEGIN IMMEDIATE")
            except sa.exc.OperationalError as error:
                if "locked" not in str(error.orig):
                    raise
                raise M2PLoadError(
                    f"The database stayed locked by another process for more than {seconds:.0f} s "
                    f"({error.orig}). Nothing was written to {lock}; run the task again."
                ) from error
            yield
