"""
Pages in, a changed table out, or no change at all.

Rows are staged page by page while the next pages are on their way. Then one transaction changes the table, its
columns and the books together. Whatever ends the load before that transaction is committed leaves the table as it
was.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from typing import Final, TypeVar

import msgspec
import sqlalchemy as sa

from airflow_provider_m2p.client.page import PageStream
from airflow_provider_m2p.columns.elements import PARENT, POSITION
from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.columns.names import Path
from airflow_provider_m2p.exceptions import M2PConfigError, M2PLoadError
from airflow_provider_m2p.warehouse import review
from airflow_provider_m2p.warehouse.books import Books, StoredColumn
from airflow_provider_m2p.warehouse.dialect import Dialect
from airflow_provider_m2p.warehouse.errors import as_ours
from airflow_provider_m2p.warehouse.load import Load, targets
from airflow_provider_m2p.warehouse.merge import WRITERS
from airflow_provider_m2p.warehouse.mysql import MySQL
from airflow_provider_m2p.warehouse.postgres import Postgres
from airflow_provider_m2p.warehouse.reading import Doubtful, ReadAgain
from airflow_provider_m2p.warehouse.review import LoadPlan
from airflow_provider_m2p.warehouse.spec import LoadResult, LoadSpec
from airflow_provider_m2p.warehouse.sqlite import SQLite
from airflow_provider_m2p.warehouse.table import Target

DIALECTS: Final[dict[str, type[Dialect]]] = {
    "postgresql": Postgres,
    "sqlite": SQLite,
    "mysql": MySQL,
    "mariadb": MySQL,
}
_LOCK_SECONDS: Final = 300.0
#: Each reason to read a list again passes, but others may come while it is read.
_MOST_READINGS: Final = 6

T = TypeVar("T")
log = logging.getLogger(__name__)


class Loader:
    """
    Loads lists of rows into one table.

    :param engine: the warehouse.
    :param spec: what to load where.
    :param dialect: how to load; found from the engine unless given.
    :param lock_seconds: how long to wait for another load of the same table, in seconds.
    """

    def __init__(
        self,
        engine: sa.Engine,
        spec: LoadSpec,
        *,
        dialect: type[Dialect] | None = None,
        lock_seconds: float = _LOCK_SECONDS,
    ) -> None:
        self.engine = engine
        self.spec = spec
        self._dialect = dialect or DIALECTS.get(engine.dialect.name, Dialect)
        self._lock_seconds = lock_seconds

    def check(self) -> None:
        """
        Find out before the first page is fetched whether the load can be written.

        :raises M2PConfigError: an argument is wrong.
        :raises M2PLoadError: no connection, no driver, or no privilege.
        :raises M2PSchemaError: the table exists and was made for another key or write mode.
        """
        self._check_spec()
        with self._connected() as books:
            self._prepare(books)
            with books.dialect.looking(books.full_name(self.spec.table)):
                targets(self.spec, books)

    def _prepare(self, books: Books) -> None:
        """See that there can be such a table, and that there are books."""
        dialect = books.dialect
        if len(self.spec.table.encode()) > dialect.name_limit:
            raise M2PConfigError(
                f"The table name {self.spec.table!r} is longer than the {dialect.name_limit} bytes that the database "
                "allows. Choose a shorter one."
            )
        with dialect.connection.begin():
            table = sa.Table(self.spec.table, sa.MetaData(), schema=self.spec.schema)
            dialect.check(table, with_children=self.spec.child_tables)
            missing = books.missing()
        if missing:
            self._create(books)

    def _create(self, books: Books) -> None:
        dialect = books.dialect
        try:
            with dialect.transaction(books.full_name("the books"), self._lock_seconds):
                books.create()
        except sa.exc.DBAPIError:
            with dialect.connection.begin():
                if books.missing():  # else another load was quicker
                    raise

    def run(self, pages: PageStream) -> LoadResult:
        """
        Load all pages.

        :param pages: closed at the end, whatever happens.
        :raises M2PError: what went wrong; the table is as it was.
        """
        started = time.monotonic()
        result = self._read(
            pages,
            lambda books, stream, before: Load(books, self.spec).run(stream, self._lock_seconds, before),
        )
        result.seconds = round(time.monotonic() - started, 3)
        return result

    def stage(self, pages: PageStream) -> LoadPlan:
        """
        Stage all pages for review, and return what publishing them will do. The table stays as it is.

        :param pages: closed at the end, whatever happens.
        :raises M2PConfigError: a load of another table or tenant waits under this load id.
        """
        started = time.monotonic()
        plan = self._read(
            pages,
            lambda books, stream, before: review.stage(books, self.spec, stream, self._lock_seconds, before),
        )
        plan.result.seconds = round(time.monotonic() - started, 3)
        return plan

    def publish(self, plan_id: str | None = None) -> LoadResult:
        """
        Publish the staged load of this load id: exactly what its plan says, or nothing.

        If that was done already, perhaps by a try that was lost while it committed, its result is returned again.

        :param plan_id: of the plan that was agreed to; ``None`` for whatever plan there is.
        :raises M2PConfigError: it was staged for another table or tenant.
        :raises M2PLoadError: it does not wait any more, was staged again, or the table moved on.
        """
        started = time.monotonic()
        with self._connected() as books:
            result = review.publish(books, self.spec, self._lock_seconds, plan_id)
        result.seconds = round(time.monotonic() - started, 3)
        return result

    def discard(self) -> bool:
        """Throw the load that waits under this load id away, and tell whether there was one."""
        with self._connected() as books:
            return review.discard(books, self.spec, self._lock_seconds)

    def columns(self) -> dict[str, list[StoredColumn]]:
        """Return the columns of the table and of its child tables, by table, with the fields of the API they hold."""
        with self._connected() as books, books.dialect.connection.begin():
            stored = books.columns(self.spec.table)
            tables = {self.spec.table: [column for column in stored if column.kind is not Kind.CHILD]}
            target = Target(self.spec, books)
            for array in (column for column in stored if column.kind is Kind.CHILD):
                child = target.array_spec(array).table
                tables[child] = [
                    replace(column, path=_field_of_element(array.path, column.path)) for column in books.columns(child)
                ]
            return tables

    def _read(self, pages: PageStream, load: Callable[[Books, PageStream, str | None], T]) -> T:
        """Have all pages loaded, from another reading if the first leaves doubts."""
        doubtful: str | None = None
        with closing(pages):
            self._check_spec()
            with self._connected() as books:
                self._prepare(books)
                readings = 0
                while True:
                    readings += 1
                    with closing(pages):
                        try:
                            return load(books, pages, doubtful)
                        except Doubtful as doubt:
                            log.warning("%s: the list may have moved while it was read. Reading it once more.", doubt)
                            doubtful = pages.digest
                        except ReadAgain as reason:
                            if readings == _MOST_READINGS:
                                raise M2PLoadError(f"{reason} Nothing was written; run the task again.") from reason
                            log.info("%s Reading the list once more.", reason)
                    pages = pages.again()

    def _check_spec(self) -> None:
        spec = self.spec
        if spec.write_mode not in WRITERS:
            raise M2PConfigError(f"write_mode={spec.write_mode!r} is none of {', '.join(WRITERS)}.")
        if spec.schema_policy not in ("evolve", "freeze", "ignore"):
            raise M2PConfigError(f"schema_policy={spec.schema_policy!r} is none of evolve, freeze, ignore.")
        for name in ("key_columns", "exclude_columns", "hash_columns"):
            if isinstance(getattr(spec, name), str):
                raise M2PConfigError(f"{name} is one text, and should be a list of fields: ({getattr(spec, name)!r},).")
        try:
            msgspec.convert({field.name: getattr(spec, field.name) for field in fields(spec)}, LoadSpec)
        except msgspec.ValidationError as error:
            wrong, _, name = str(error).rpartition(" - at `$.")
            raise M2PConfigError(f"{name.rstrip('`')} has a wrong type. {wrong}.") from error
        if not spec.key_columns or not all(spec.key_columns):
            raise M2PConfigError("key_columns is empty. Name the fields that identify a row.")
        if len(set(spec.key_columns)) < len(spec.key_columns):
            raise M2PConfigError(f"key_columns={list(spec.key_columns)} names a field twice.")
        excluded = set(spec.exclude_columns)
        if lost := sorted(excluded.intersection([*spec.key_columns, *spec.hash_columns])):
            raise M2PConfigError(f"{', '.join(lost)} cannot be in exclude_columns and in the key or hash_columns.")
        if not 0 <= spec.max_delete_ratio <= 1:
            raise M2PConfigError(f"max_delete_ratio={spec.max_delete_ratio} is not between 0 and 1.")
        if spec.max_depth < 0:
            raise M2PConfigError(f"max_depth={spec.max_depth} is negative. 0 flattens nothing.")
        if not spec.table or not spec.tenant_id:
            raise M2PConfigError("A load needs a table and a tenant id.")

    @contextmanager
    def _connected(self) -> Iterator[Books]:
        """Hold one connection, with the books on it, and turn the database's errors into ours."""
        with as_ours(self.engine, self.spec.full_name), self.engine.connect() as connection:
            _wake(connection)
            # The engine's own level may be to commit every statement, or to see nothing that others did meanwhile.
            level = self._dialect.isolation_level or connection.default_isolation_level
            # SQLite's class does without; SQLAlchemy would not give back what a listener of the engine has set.
            if level and self._dialect is not SQLite:
                connection.execution_options(isolation_level=level)
            dialect = self._dialect(connection)
            if connection.in_transaction():
                connection.rollback()
            try:
                yield Books(dialect, self.spec.schema)
            finally:
                dialect.stop()
                if not connection.closed and not connection.invalidated:
                    _give_back(dialect)


def _wake(connection: sa.Connection) -> None:
    """Replace a connection that died while it waited in the engine's pool."""
    try:
        connection.scalar(sa.select(1))
    except sa.exc.DBAPIError as error:
        if not error.connection_invalidated:
            raise
    connection.rollback()


def _give_back(dialect: Dialect) -> None:
    """Make the connection fit for others. One that will not be is thrown away: whether the load is done is decided."""
    connection = dialect.connection
    try:
        if connection.in_transaction():
            connection.rollback()
        dialect.close()
    except sa.exc.SQLAlchemyError as error:
        log.warning("The connection is closed, because it cannot be used any more (%s).", type(error).__name__)
        connection.invalidate(error)


def _field_of_element(array: Path, path: Path) -> Path:
    """Return the field of the list that a column of an array's own table holds."""
    if path[0] == PARENT:
        return path[1:]
    return array if path == (POSITION,) else (*array, *path)
