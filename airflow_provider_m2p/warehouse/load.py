"""The course of one load: look, stage, then change the table, its columns and the books in one transaction."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from airflow_provider_m2p.client.page import PageStream
from airflow_provider_m2p.columns import names
from airflow_provider_m2p.columns.elements import PARENT, POSITION
from airflow_provider_m2p.columns.keys import Key
from airflow_provider_m2p.columns.kinds import Kind, Tokens
from airflow_provider_m2p.columns.names import Path
from airflow_provider_m2p.columns.shape import Shape
from airflow_provider_m2p.exceptions import M2PLoadError
from airflow_provider_m2p.warehouse.books import Books
from airflow_provider_m2p.warehouse.dialect import Dialect
from airflow_provider_m2p.warehouse.merge import WRITERS, Counts, Merge, drop_duplicates
from airflow_provider_m2p.warehouse.spec import LoadResult, LoadSpec
from airflow_provider_m2p.warehouse.stage import Stage
from airflow_provider_m2p.warehouse.table import ROW_HASH, TENANT, Target

log = logging.getLogger(__name__)

_PROGRESS_SECONDS: Final = 5.0


class Load:
    """
    The state of one load while it runs.

    :param dialect: the database, with the connection that is this load's own.
    :param spec: what to load where.
    :param lock_seconds: how long to wait for another load of the same table, in seconds.
    """

    def __init__(self, dialect: Dialect, spec: LoadSpec, lock_seconds: float) -> None:
        self._dialect = dialect
        self._connection = dialect.connection
        self._spec = spec
        self._lock_seconds = lock_seconds
        self._books = Books(dialect, spec.schema)
        self._started_at = datetime.now(UTC)
        self._keyless: list[tuple[sa.Table, list[str]]] = []

    def run(self, pages: PageStream) -> LoadResult:
        """Load all pages; see :meth:`Loader.run`."""
        spec = self._spec
        with self._connection.begin():
            target = Target.inspect(self._dialect, spec, self._books)
            version = self._books.version(spec.table, spec.tenant_id)
            shape = target.shape()
            known = self._known_rows(target, shape)
        child_stage = self._child_stage if spec.child_tables else None
        stage = Stage(self._dialect, shape, known, child_stage)
        try:
            self._read(pages, stage)
            for column in shape.columns if spec.child_tables else ():
                if column.tokens & Tokens.ARRAY:
                    stage.child(column.path)
            with self._dialect.transaction(spec.full_name, self._lock_seconds):
                return self._apply(pages, stage, version)
        finally:
            if not self._connection.invalidated:
                if self._connection.in_transaction():
                    self._connection.rollback()
                stage.drop()

    def _child_spec(self, path: Path) -> LoadSpec:
        """Return how the elements of an array are loaded: into a table of their own, keyed by parent and position."""
        table = names.cut(f"{self._spec.table}__{names.join(path)}", path, self._dialect.name_limit)
        parent = (f"{PARENT}.{names.join(tuple(name.split('.')))}" for name in self._spec.key_columns)
        return replace(self._spec, table=table, key_columns=(*parent, POSITION), child_tables=False)

    def _child_stage(self, path: Path) -> Stage:
        with self._connection.begin():
            target = Target.inspect(self._dialect, self._child_spec(path), self._books)
            target.check_key()
        return Stage(self._dialect, target.shape())

    def _known_rows(self, target: Target, shape: Shape) -> Callable[[list[Key]], dict[Key, tuple[str, str]]] | None:
        """Return the look-up of rows that the table holds, where a row may be skipped that is there already."""
        if not target.exists or target.lost or self._spec.write_mode == "append":
            return None
        table = target.table(list(target.columns.values()))
        live = target.live(table)
        if not self._connection.execute(sa.select(sa.exists().where(live))).scalar():
            return None
        names = {column.path: column.name for column in target.columns.values()}
        keys = [table.c[names[path]] for path in shape.key]

        def known(wanted: list[Key]) -> dict[Key, tuple[str, str]]:
            with self._connection.begin():
                return self._dialect.known_rows(table, keys, live, wanted)

        return known

    @staticmethod
    def _read(pages: PageStream, stage: Stage) -> None:
        begun = said = time.monotonic()
        for page in pages:
            stage.add(page)
            now = time.monotonic()
            if now - said >= _PROGRESS_SECONDS:
                said = now
                rate = stage.rows / (now - begun)
                of = f" of {page.total_pages}" if page.total_pages else ""
                left = f", about {(page.total_rows - stage.rows) / rate:.0f} s left" if page.total_rows else ""
                log.info("Read %s rows, page %s%s, %.0f rows/s%s", stage.rows, page.number + 1, of, rate, left)
        stage.flush()

    def _apply(self, pages: PageStream, stage: Stage, version: int) -> LoadResult:
        """Change the table, its columns and the books. Runs in one transaction, under the table's lock."""
        spec = self._spec
        moment = self._moment()
        result = LoadResult(
            load_id=spec.load_id,
            tenant_id=spec.tenant_id,
            table=spec.full_name,
            write_mode=spec.write_mode,
            pages=pages.pages,
            rows_read=stage.rows,
        )
        merges = [self._evolved(spec, stage, moment, result)]
        merges += [
            self._evolved(self._child_spec(path), child, moment, result) for path, child in stage.children.items()
        ]
        parent, *children = merges
        if parent is not None:
            may_delete = self._merge(parent, pages, version, result)
            for child in children:
                if child is not None:
                    self._dialect.index_stage(child.stage, [value for _, value in child.keys])
                    child.execute(sa.delete(child.stage).where(~sa.exists().where(child.stage.c.ord == stage.table.c.ord)))
                    self._merge_children(child, parent, may_delete)
        for table, unique in self._keyless:
            self._dialect.add_key(table, unique)
        self._books.note(spec, result, self._started_at, moment)
        return result

    def _evolved(self, spec: LoadSpec, stage: Stage, moment: datetime, result: LoadResult) -> Merge | None:
        """Bring a table into the form of its rows, and return how to merge them; ``None`` if there is no column yet."""
        target = Target.inspect(self._dialect, spec, self._books)
        target.check_key()
        planned, changes = target.plan(stage.shape, stage.table)
        result.schema_changes += [{"table": spec.table} | change for change in changes] if spec is not self._spec else changes
        if not planned:
            return None
        target.evolve(planned, spec.load_id, moment)
        table = target.table(planned)
        if not target.exists and self._dialect.adds_key_last and (unique := target.unique_columns(planned)):
            self._keyless.append((table, unique))
        own = table.c[TENANT] == spec.tenant_id
        values = {
            column.path: (table.c[column.name], self._dialect.convert(stage.table.c[f"c{place}"], kind, column.kind))
            for place, (column, kind) in enumerate(zip(planned, stage.kinds, strict=True))
            if column.kind is not Kind.CHILD
        }
        return Merge(
            dialect=self._dialect,
            table=table,
            stage=stage.table,
            live=target.live(table),
            keys=[values[path] for path in stage.shape.key],
            values=list(values.values()),
            tenant_id=spec.tenant_id,
            load_id=spec.load_id,
            moment=moment,
            fresh=not target.exists or not self._connection.execute(sa.select(sa.exists().where(own))).scalar(),
            force=bool(target.lost),
        )

    def _merge(self, merge: Merge, pages: PageStream, version: int, result: LoadResult) -> bool:
        """Merge the rows, fill in the counts, and return whether what disappeared was deleted."""
        spec = self._spec
        self._dialect.index_stage(merge.stage, [value for _, value in merge.keys])
        result.duplicates = drop_duplicates(merge)
        if not merge.fresh and version != self._books.version(spec.table, spec.tenant_id):
            self._refuse_stale(merge)
        may_delete = not merge.fresh and spec.write_mode != "append" and self._may_delete(pages, result)
        live = self._count(sa.select(sa.func.count()).where(merge.live)) if may_delete else 0
        counts: Counts = WRITERS[spec.write_mode](merge, merge.live if may_delete else None)
        if counts.deleted > spec.max_delete_ratio * live:
            raise M2PLoadError(
                f"The platform's list has {result.rows_read} rows and lacks {counts.deleted} of the {live} rows that "
                f"{spec.full_name} has of tenant {spec.tenant_id!r}: more than max_delete_ratio={spec.max_delete_ratio} "
                "allows. Nothing was written. If the products are really gone, run once with a higher ratio (1 allows all)."
            )
        result.inserted, result.updated, result.deleted = counts.inserted, counts.updated, counts.deleted
        result.unchanged = result.rows_read - result.duplicates - counts.inserted - counts.updated
        return may_delete

    def _merge_children(self, child: Merge, parent: Merge, may_delete: bool) -> None:
        """Merge the elements of the rows that were staged whole; those of other rows stay, unless the row disappeared."""
        same_parent = sa.and_(
            *(child.table.c[column.name] == value for (column, _), (_, value) in zip(child.keys, parent.keys, strict=False))
        )
        staged = sa.exists().where(same_parent)
        if may_delete:
            gone = ~staged.where(~parent.staged).correlate(child.table)
        else:
            gone = staged.where(parent.staged).correlate(child.table)
        WRITERS[self._spec.write_mode](child, sa.and_(child.live, gone))

    def _moment(self) -> datetime:
        """Return the time of this load: now, but later than the load before it, whatever this host's clock says."""
        latest = self._books.latest(self._spec.table, self._spec.tenant_id)
        now = datetime.now(UTC)
        return now if latest is None else max(now, latest + timedelta(microseconds=1))

    @staticmethod
    def _may_delete(pages: PageStream, result: LoadResult) -> bool:
        if not pages.complete:
            log.warning("The list was not read to its end as it stood. Rows that it lacks are left as they are.")
            return False
        total = pages.total_rows
        if result.duplicates and total is not None and result.rows_read - result.duplicates < total:
            log.warning(
                "%s rows came twice, so as many may have been missed. Rows that the list lacks are left as they are.",
                result.duplicates,
            )
            return False
        return True

    def _refuse_stale(self, merge: Merge) -> None:
        """Refuse to publish rows that were skipped because of a state of the table that is no more."""
        table, stage = merge.table, merge.stage
        skipped = sa.select(sa.func.count()).select_from(stage).where(~merge.staged)
        still = (
            sa.select(sa.func.count())
            .select_from(stage.join(table, merge.same_key))
            .where(~merge.staged, merge.live, table.c[ROW_HASH] == stage.c.row_hash)
        )
        if self._count(skipped) != self._count(still):
            raise M2PLoadError(
                f"Another load of tenant {self._spec.tenant_id!r} changed {self._spec.full_name} while this one read the "
                "platform. Nothing was written; run the task again."
            )

    def _count(self, select: sa.Select[Any]) -> int:
        return int(self._connection.execute(select).scalar() or 0)
