"""The first half of a load: pages into a stage. The second is :mod:`~airflow_provider_m2p.warehouse.apply`."""

from __future__ import annotations

import contextlib
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from airflow_provider_m2p.columns.kinds import Kind, Tokens
from airflow_provider_m2p.columns.names import join
from airflow_provider_m2p.columns.privacy import Privacy
from airflow_provider_m2p.warehouse.apply import Apply
from airflow_provider_m2p.warehouse.books import Books, StoredColumn
from airflow_provider_m2p.warehouse.lookup import Held
from airflow_provider_m2p.warehouse.reading import Read
from airflow_provider_m2p.warehouse.spec import LoadResult, LoadSpec
from airflow_provider_m2p.warehouse.stage import Stage
from airflow_provider_m2p.warehouse.staged import sweep
from airflow_provider_m2p.warehouse.table import Target

if TYPE_CHECKING:
    from airflow_provider_m2p.client.page import PageStream
    from airflow_provider_m2p.columns.names import Path
    from airflow_provider_m2p.columns.shape import Shape

log = logging.getLogger(__name__)

_PROGRESS_SECONDS: Final = 5.0


class Load:
    """
    One load while it runs.

    :param books: the schema's books, on a connection that is this load's own.
    :param spec: what to load where.
    :param for_review: whether the stage is to outlive the connection.
    :raises M2PSchemaError: the table was made for another key or write mode.
    :raises sqlalchemy.exc.DBAPIError: the user may not write.
    """

    def __init__(self, books: Books, spec: LoadSpec, *, for_review: bool = False) -> None:
        self._books = books
        self._dialect = dialect = books.dialect
        self._connection = dialect.connection
        self._spec = spec
        self._for_review = for_review
        with dialect.looking(books.full_name(spec.table)):
            self._version = books.version(spec.table, spec.tenant_id)
            self._target, self._arrays = targets(spec, books)
            target = self._target
            shape = target.shape()
            known = self._known_rows(target, shape)
            if swept := sweep(dialect, spec.schema):
                books.forget_stages(swept)
                log.info("Dropped what loads left behind: %s", ", ".join(swept))
        # Arrays that go into tables of their own are no columns of the table, but of the stage.
        may_become_table = not (target.exists or for_review or spec.child_tables)
        self._in_place = may_become_table and dialect.in_place()
        #: Filled by :meth:`read`.
        self.stage = self._new_stage(shape, known, with_children=spec.child_tables)

    def run(self, pages: PageStream, lock_seconds: float, before: str | None = None) -> LoadResult:
        """
        Load all pages.

        :param lock_seconds: how long to wait for another load of the same table, in seconds.
        :param before: the digest of the reading before, if that was doubtful.
        """
        try:
            read = self.read(pages, before)
            staged = self.stage.staged()
            with self._dialect.transaction(self._books.full_name(self._spec.table), lock_seconds):
                return Apply(self._books, self._spec).run(read, staged)
        finally:
            self.discard()

    def read(self, pages: PageStream, before: str | None = None) -> Read:
        """Stage all pages, and tell how the reading went."""
        started_at = datetime.now(UTC)
        stage = self.stage
        begun = said = time.monotonic()
        privacy = Privacy(self._spec.exclude_columns, self._spec.hash_columns, self._spec.tenant_id)
        for page in privacy.pages(pages):
            stage.add(page)
            now = time.monotonic()
            if now - said >= _PROGRESS_SECONDS:
                said = now
                rate = stage.rows / (now - begun)
                of = f" of {page.total_pages}" if page.total_pages else ""
                missing = (page.total_rows or 0) - stage.rows
                left = f", about {missing / rate:.0f} s left" if missing > 0 else ""
                log.info("Read %s rows, page %s%s, %.0f rows/s%s", stage.rows, page.number + 1, of, rate, left)
        stage.finish()
        for column in stage.shape.columns if self._spec.child_tables else ():
            if column.tokens & Tokens.ARRAY:
                stage.child(column.path)  # it may have nothing but elements that are gone
        return Read(self._version, pages.pages, pages.complete, pages.total_rows, started_at, pages.digest, before)

    def discard(self) -> None:
        """Drop the stage, if the connection is still there to do it."""
        with contextlib.suppress(Exception):
            self._dialect.settle()  # what went wrong with it is known by now
        if self._connection.in_transaction():
            self._connection.rollback()
        if not self._connection.invalidated:  # as a rollback may find out
            self.stage.drop()

    def _new_stage(self, shape: Shape, known: Held | None = None, *, with_children: bool = False) -> Stage:
        return Stage(
            self._dialect,
            shape,
            known,
            self._child_stage if with_children else None,
            for_review=self._for_review,
            in_place=self._in_place,
            schema=self._spec.schema,
        )

    def _child_stage(self, path: Path) -> Stage:
        if path not in self._arrays:  # it gets its table, and that its name, when the load is applied
            array = StoredColumn(join(path), path, Kind.CHILD, 0)
            self._arrays[path] = Target(self._target.array_spec(array), self._books)
        return self._new_stage(self._arrays[path].shape())

    def _has_rows(self, target: Target) -> bool:
        """Tell whether the table has rows of the tenant that stand for something as it is now."""
        live = target.live(target.table(list(target.columns.values())))
        return bool(self._connection.execute(sa.select(sa.exists().where(live))).scalar())

    def _known_rows(self, target: Target, shape: Shape) -> Held | None:
        """Return the rows that the table holds, where a row may be skipped that is there already."""
        if not target.exists or self._spec.write_mode == "append":
            return None
        # Somebody may have dropped columns, of the arrays' tables, too, or emptied one of these.
        tables = (target, *self._arrays.values())
        if any(each.lost for each in tables) or not all(self._has_rows(each) for each in tables if each.exists):
            return None
        table = target.table(list(target.columns.values()))
        names = {column.path: column.name for column in target.columns.values()}
        if not all(path in names for path in shape.key):
            return None  # a table that was made by hand, or is no longer in the books
        keys = [table.c[names[path]] for path in shape.key]
        return Held(table, keys, target.live(table))


def targets(spec: LoadSpec, books: Books) -> tuple[Target, dict[Path, Target]]:
    """
    Look at the table and at those of its arrays, and find out whether a load can go into them.

    :returns: the table, and those of the arrays that have one, or had, by the arrays' paths.
    :raises M2PSchemaError: a table was made for another key or write mode.
    :raises sqlalchemy.exc.DBAPIError: the user may not write to a table, or to the books.
    """
    target = Target.to_load(spec, books)
    books.try_writing()
    arrays = [column for column in target.columns.values() if column.kind is Kind.CHILD and spec.child_tables]
    return target, {array.path: Target.to_load(target.array_spec(array), books) for array in arrays}
