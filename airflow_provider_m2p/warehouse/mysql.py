"""MySQL and MariaDB: binary collations, DECIMAL where it is exact, and DDL in an order that a crash cannot hurt."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine.interfaces import ReflectedColumn

from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.exceptions import M2PConfigError, M2PLoadError, M2PSchemaError
from airflow_provider_m2p.warehouse.dialect import WIDER, Dialect
from airflow_provider_m2p.warehouse.errors import note_trigger
from airflow_provider_m2p.warehouse.staged import stage_name

_QUOTING = frozenset({"ANSI_QUOTES", "NO_BACKSLASH_ESCAPES"})
_LOOK_SECONDS = 300.0
_NO_SUCH_TABLE = 1146
_AT_LINE = 4094
#: What a load needs on its connection, whatever the server has: every character (MySQL's ``utf8`` lacks some), tables
#: that can be rolled back, no limits for people, all that is to be known of an error.
_NEEDS = {
    "character_set_client": "utf8mb4",
    "character_set_results": "utf8mb4",
    "collation_connection": "utf8mb4_general_ci",
    "time_zone": "'+00:00'",
    "default_storage_engine": "InnoDB",
    "sql_safe_updates": "0",
    "sql_select_limit": "18446744073709551615",
    "sql_big_selects": "1",
    "sql_notes": "1",
    "max_error_count": "65535",
}
#: What a load changes on its connection. Whoever has read a table keeps others from altering it, by default for a day.
_SETTINGS = ("sql_mode", "lock_wait_timeout", "innodb_lock_wait_timeout", *_NEEDS)
_OF_COLUMNS = ("table_schema", "table_name", "column_name", "collation_name", "extra")
_COLUMNS = sa.table("columns", *map(sa.column, _OF_COLUMNS), schema="information_schema")
#: Kinds whose values the database itself makes the texts that they are to be.
_SPELLED_ALIKE = (Kind.INT, Kind.DATE)
_DECIMAL = r"^-?[0-9]{1,35}(\.[0-9]{1,30})?$"


class MySQL(Dialect):
    """
    MySQL and MariaDB.

    JSON is LONGTEXT: MySQL's own JSON type makes numbers binary floats. DDL commits by itself here, so all of it
    runs before the first row is changed, and every step of it leaves a table that the next load understands.
    """

    stage_prefixes: ClassVar[Sequence[str]] = ("TEMPORARY",)
    locks: ClassVar[bool] = True
    max_columns: ClassVar[int] = 1017
    max_parameters: ClassVar[int] = 10_000

    def __init__(self, connection: sa.Connection) -> None:
        super().__init__(connection)
        version = str(connection.exec_driver_sql("SELECT VERSION()").scalar())
        self._collation = "utf8mb4_nopad_bin" if "MariaDB" in version else "utf8mb4_0900_bin"
        saved = connection.exec_driver_sql(f"SELECT {', '.join(f'@@SESSION.{name}' for name in _SETTINGS)}").one()
        self._saved = dict(zip(_SETTINGS, saved, strict=True))
        charset = self._saved["character_set_client"]
        if not charset.startswith("utf8"):  # by which the driver encodes
            raise M2PConfigError(
                f"The connection's charset is {charset}, which does not have every character. Set it to utf8mb4, in "
                "the connection's extra."
            )
        # Without the strict mode too long values are cut, and numbers rounded, in silence. How literals and names are
        # quoted must stay: SQLAlchemy has looked at it already.
        quoting = _QUOTING.intersection(str(self._saved["sql_mode"]).split(","))
        modes = ",".join(["STRICT_ALL_TABLES", "NO_ZERO_DATE", "NO_ZERO_IN_DATE", *sorted(quoting)])
        self.execute(f"SET SESSION sql_mode = '{modes}'")
        for name, value in _NEEDS.items():
            self.execute(f"SET SESSION {name} = {value}")
        self._wait(_LOOK_SECONDS)
        connection.commit()

    def close(self) -> None:
        for name, value in self._saved.items():
            self.connection.execute(sa.text(f"SET SESSION {name} = :value"), {"value": value})
        self.connection.commit()

    def _wait(self, seconds: float) -> None:
        """Set how long to wait for those who hold the table or rows of it."""
        for name in ("lock_wait_timeout", "innodb_lock_wait_timeout"):
            self.execute(f"SET SESSION {name} = {max(1, int(seconds))}")

    @property
    def name_limit(self) -> int:
        return 64

    def text_type(self, *, key: bool = False) -> sa.types.TypeEngine[Any]:
        if key:
            return mysql.VARCHAR(255, charset="utf8mb4", collation=self._collation)
        return mysql.LONGTEXT(charset="utf8mb4", collation=self._collation)

    def instant_type(self) -> sa.types.TypeEngine[Any]:
        return mysql.DATETIME(fsp=6)

    def column_type(self, kind: Kind, *, key: bool = False) -> sa.types.TypeEngine[Any]:
        return mysql.DECIMAL(65, 30) if kind is Kind.NUMBER else super().column_type(kind, key=key)

    def stage_type(self, kind: Kind, *, key: bool = False) -> sa.types.TypeEngine[Any]:
        return sa.BigInteger() if key and kind is Kind.INT else super().stage_type(kind, key=key)

    def widen_staged(
        self, stage: sa.Table, column: sa.Column[Any], source: Kind, target: Kind, *, key: bool
    ) -> None:
        super().widen_staged(stage, column, source, target, key=key)
        if isinstance(column.type, sa.BigInteger):
            wider = self.stage_type(target, key=True).compile(dialect=self.connection.dialect)
            self.execute(f"ALTER TABLE {self.qualified(stage)} MODIFY COLUMN {self.quote(column.name)} {wider}")

    def fits(self, staged: sa.Column[Any], kind: Kind | None) -> bool:
        if kind is not Kind.NUMBER:
            return True
        misfit = sa.exists().where(~staged.regexp_match(_DECIMAL))
        return not self.connection.scalar(sa.select(misfit))

    def convert(self, staged: sa.ColumnElement[Any], source: Kind, target: Kind) -> sa.ColumnElement[Any]:
        if isinstance(staged.type, sa.BigInteger):
            # A text that is compared with a number is read as one: '05' as 5.
            if target is Kind.INT:
                return staged
            if target is Kind.TEXT:
                return sa.cast(staged, mysql.CHAR(charset="utf8mb4")).collate(self._collation)
            return sa.cast(staged, self.column_type(target, key=True))
        if target in (Kind.TEXT, Kind.JSON) and source is not Kind.INSTANT:
            return staged
        return super().convert(staged, source, target)

    def instant(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.cast(sa.func.substr(text, 1, 26), self.instant_type())

    def stored_text(self, column: sa.ColumnElement[Any], kind: Kind) -> sa.ColumnElement[Any]:
        if kind is Kind.BOOL:
            return super().stored_text(column, kind)
        if kind is Kind.INSTANT:
            return sa.func.date_format(column, "%Y-%m-%dT%H:%i:%s.%fZ")
        text = sa.cast(column, sa.CHAR())
        if kind is Kind.NUMBER:
            # DECIMAL shows all of its 30 places. What a load that died has made text already may have none.
            return sa.case((text.like("%.%"), sa.func.regexp_replace(text, "[.]?0+$", "")), else_=text)
        return text

    def widen_column(self, table: sa.Table, name: str, source: Kind, target: Kind, *, key: bool) -> None:
        specification = self.column_type(target, key=key).compile(dialect=self.connection.dialect)
        prefix, quoted = f"ALTER TABLE {self.qualified(table)}", self.quote(name)
        if key:
            self._widen_key(table, name, source, target, f"{prefix} MODIFY COLUMN {quoted} {specification} NOT NULL")
            return
        if target is Kind.NUMBER:
            # In place, so that indexes of it stay. Texts of any length can be in none.
            self.execute(f"{prefix} MODIFY COLUMN {quoted} {specification}")
            return
        for index in sa.inspect(self.connection).get_indexes(table.name, table.schema):
            # MySQL would go on with what is left of it, and then refuse rows that differ in this column alone.
            if index["unique"] and name in index["column_names"] != [name]:
                raise M2PSchemaError(
                    f"Column {name!r} of table {table.name!r} has to become text, which the unique index "
                    f"{index['name']!r} does not allow. Nothing was written. Drop that index, and make it anew with a "
                    f"part of the column after the load."
                )
        wider = self.quote(self._widened(table, name, source, target).name)
        self.execute(f"{prefix} DROP COLUMN {quoted}, CHANGE COLUMN {wider} {quoted} {specification}")

    def _widen_key(self, table: sa.Table, name: str, source: Kind, target: Kind, modify: str) -> None:
        """Change a key's column where it is, which makes texts of some values that are not those wanted."""
        if target is not Kind.TEXT or source in _SPELLED_ALIKE:
            self.execute(modify)
            return
        wider: sa.ColumnClause[Any] = sa.column(_copy_of(name))
        column: sa.ColumnClause[Any] = sa.column(name)
        types = {c["name"]: c["type"] for c in sa.inspect(self.connection).get_columns(table.name, table.schema)}
        if not isinstance(types[name], sa.String):
            self._widened(table, name, source, target, wider.name)
            self.execute(modify)
        elif wider.name not in types:  # a load that died later has done all of it
            return
        self.connection.execute(sa.update(sa.table(table.name, column, schema=table.schema)).values({column: wider}))
        self.drop_column(table, wider.name)

    def left_over(self, present: Mapping[str, sa.types.TypeEngine[Any]]) -> list[str]:
        # Once a key's column is a text, its values are still to come out of the copy.
        copies = [_copy_of(name) for name, column_type in present.items() if not isinstance(column_type, sa.String)]
        return super().left_over(present) + [name for name in copies if name in present]

    def filled(self, table: sa.Table, columns: Iterable[ReflectedColumn]) -> set[str]:
        # SQLAlchemy tells of ON UPDATE only behind a DEFAULT.
        updated = sa.select(_COLUMNS.c.column_name).where(_is_of(table), _COLUMNS.c.extra.ilike("%on update%"))
        return super().filled(table, columns).union(self.connection.scalars(updated))

    def check(self, table: sa.Table, *, with_children: bool) -> None:
        lower = table.name.lower()
        if table.name != lower and self.connection.execute(sa.text("SELECT @@lower_case_table_names")).scalar():
            raise M2PConfigError(
                f"This server takes the table name {table.name!r} for {lower!r}. Name it {lower!r}, in every task."
            )
        if sa.inspect(self.connection).has_table(table.name, table.schema):
            return
        # Nobody can ask what he may do, only try. It fails one way or another, so nothing is made that a load which
        # dies might leave behind.
        model = sa.Table(stage_name(for_review=False), sa.MetaData(), schema=table.schema)
        try:
            self.execute(f"CREATE TABLE {self.qualified(table)} LIKE {self.qualified(model)}")
        except sa.exc.DBAPIError as error:
            if error.orig is None or error.orig.args[0] != _NO_SUCH_TABLE:
                raise

    def _find_lossy_collation(self, table: sa.Table, columns: list[str]) -> tuple[str, str, str] | None:
        c = _COLUMNS.c
        lossy = sa.and_(_is_of(table), c.column_name.in_(columns), c.collation_name != self._collation)
        found = self.connection.execute(sa.select(c.column_name, c.collation_name).where(lossy)).first()
        return None if found is None else (found[0], f"collation {found[1]}", self._collation)

    @contextlib.contextmanager
    def looking(self, lock: str) -> Iterator[None]:
        # To look at a table that is just being changed is an error here.
        with self.transaction(lock, _LOOK_SECONDS):
            yield

    @contextlib.contextmanager
    def transaction(self, lock: str, seconds: float) -> Iterator[None]:
        # In lower case, as a server may take other spellings of a schema for the same.
        name = f"m2p_{hashlib.sha256(lock.lower().encode()).hexdigest()[:32]}"
        with self.connection.begin():
            got = self.connection.execute(sa.select(sa.func.get_lock(name, int(seconds)))).scalar()
            self._wait(seconds)
        if got != 1:
            raise M2PLoadError(
                f"Another load held {lock} for more than {seconds:.0f} s. Nothing was written; run the task again."
            )
        try:
            with self.connection.begin(), self._noting_triggers():
                yield
        finally:
            if not self.connection.invalidated:  # else the lock went with the connection
                with self.connection.begin():
                    self.connection.execute(sa.select(sa.func.release_lock(name)))

    @contextlib.contextmanager
    def _noting_triggers(self) -> Iterator[None]:
        """Note with an error that a trigger raised it, by whatever number: its words may hold a value."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            # MariaDB says at which line of a trigger it was.
            if not error.connection_invalidated and any(
                number == _AT_LINE for _, number, _ in self.connection.exec_driver_sql("SHOW WARNINGS")
            ):
                note_trigger(error)
            raise


def _is_of(table: sa.Table) -> sa.ColumnElement[bool]:
    """Return the condition for what the database says of a table's columns."""
    schema = sa.func.coalesce(table.schema, sa.func.database())
    return sa.and_(_COLUMNS.c.table_schema == schema, _COLUMNS.c.table_name == table.name)


def _copy_of(key: str) -> str:
    """Return the name of the copy of a key's column: by its name, so that it is not taken for that of another."""
    return f"{WIDER}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"
