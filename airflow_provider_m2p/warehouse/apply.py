"""What the load's one transaction does: change the tables, their columns and the books, or refuse."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cached_property, partial
from typing import Any

import sqlalchemy as sa

from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.columns.names import Path
from airflow_provider_m2p.exceptions import M2PLoadError
from airflow_provider_m2p.warehouse.books import EPOCH, Books
from airflow_provider_m2p.warehouse.evolution import Evolution, check_policy
from airflow_provider_m2p.warehouse.merge import Counts, Merge, drop_duplicates, write
from airflow_provider_m2p.warehouse.reading import Read, ReadAgain
from airflow_provider_m2p.warehouse.spec import LoadResult, LoadSpec
from airflow_provider_m2p.warehouse.staged import Staged, column_name
from airflow_provider_m2p.warehouse.table import RAW_HASH, ROW_HASH, TENANT, Target


class Apply:
    """
    Applies a stage.

    :param books: the schema's books, within a transaction that holds the table's lock.
    :param spec: what is loaded where.
    :param before_merge: called once the table has its form, before its rows change.
    """

    def __init__(self, books: Books, spec: LoadSpec, *, before_merge: Callable[[Merge], None] | None = None) -> None:
        self._books = books
        self._dialect = books.dialect
        self._connection = books.dialect.connection
        self._spec = spec
        #: What is done to tables once their rows are in.
        self._last: list[Callable[[], None]] = []
        self._before_merge = before_merge

    def run(self, read: Read, staged: Staged) -> LoadResult:
        """
        Merge what is staged, and enter the load in the books.

        :raises M2PSchemaError: the schema policy, or the table's key, forbids it.
        :raises M2PLoadError: it would do harm.
        :raises Doubtful: the list has to be read again.
        :raises ReadAgain: so it has, since the table is no longer what it was read for.
        """
        spec = self._spec
        if not self._dialect.locks:
            self._books.lock(spec.table)
        moment = self._moment()
        result = LoadResult(
            load_id=spec.load_id,
            tenant_id=spec.tenant_id,
            table=spec.full_name,
            write_mode=spec.write_mode,
            pages=read.pages,
            rows_read=staged.rows,
        )
        evolutions = self._evolutions(staged)
        result.schema_changes = check_policy(spec, evolutions)
        merge, *of_arrays = [self._evolve(evolution, moment) for evolution in evolutions]
        children = [child for child in of_arrays if child is not None]
        # MySQL commits when it makes an index, so this is the last moment to make one.
        for each in (merge, *children):
            if each is not None and not each.in_place:
                self._dialect.prepare_stage(each.stage, [value for _, value in each.keys])
        if merge is not None:
            may_delete = self._merge(merge, [child.stage for child in children], read, result)
            counts = [self._merge_children(child, merge, may_delete) for child in children]
            if any((*counts, result.inserted, result.updated, result.deleted)):
                self._refuse_older(read)
            if spec.write_mode != "append":  # which never looks at rows again
                if of_arrays and not merge.fresh:
                    # Elements have the form, and lack the fields, of this load now, those of unchanged rows, too.
                    merge.renew_raw_hashes()
                self._refill_later(merge, children)
                # Another load may have made columns meanwhile for fields that this one, as it read them, left out.
                made = any(path in each.target.columns for each in evolutions for path in each.staged.ignored)
                if made or (evolutions[0].target.exists and any(each.has_new_fields for each in evolutions)):
                    merge.forget_incomplete()
        for finish in self._last:
            finish()
        self._books.note(spec, result, read.started_at, moment)
        return result

    def _evolutions(self, staged: Staged) -> list[Evolution]:
        """Return what must become of the table, and of those of its arrays."""
        target = Target.inspect(self._spec, self._books)
        target.check()
        table = Evolution(target, staged)
        arrays = (column.path for column in target.columns.values() if column.kind is Kind.CHILD)
        if self._spec.child_tables and any(path not in staged.children for path in arrays):
            # Perhaps with elements of rows that, as they were read, have none.
            raise ReadAgain(f"Arrays of {self._spec.table!r} got a table while this load read the platform.")
        children = []
        for path, elements in staged.children.items():
            child = Target.inspect(target.array_spec(table.by_path[path]), self._books)
            child.check()
            children.append(Evolution(child, elements, parent=table, array=path))
        return [table, *children]

    def _evolve(self, evolution: Evolution, moment: datetime) -> Merge | None:
        """Bring a table into the form of its rows, and return how to merge them; ``None`` if there is no column yet."""
        target, staged, planned = evolution.target, evolution.staged, evolution.columns
        spec = target.spec
        if not planned:
            return None
        # Another load of the tenant may have filled columns since that the rows, as they were read, do not have.
        behind = [column for path, column in target.columns.items() if path not in evolution.by_path]
        table, stage = target.table([*planned, *behind]), staged.table
        values: dict[Path, tuple[sa.Column[Any], sa.ColumnElement[Any]]] = {
            column.path: (table.c[column.name], self._dialect.convert(stage.c[column_name(place)], kind, column.kind))
            for place, (column, kind) in enumerate(zip(planned, staged.kinds, strict=True))
            if column.kind is not Kind.CHILD
        }
        values |= {c.path: (table.c[c.name], sa.null()) for c in behind if c.kind is not Kind.CHILD}
        # Another load may have made the table meanwhile, or values may have to be converted.
        as_staged = all(isinstance(value, sa.Column) for _, value in values.values())
        # A stage that becomes the table has, until the load is done, one column more: the order of the rows.
        has_room = len(table.columns) < self._dialect.max_columns
        becomes_table = staged.in_place and as_staged and has_room and not target.exists
        evolution.apply(moment, create=not becomes_table)
        self._last.append(partial(evolution.enter, moment))
        new_key = target.unique_columns(planned) if self._dialect.adds_key_last and not target.exists else []
        if becomes_table:
            names = {value.name: column.name for column, value in values.values()}
            evolution.adopt(table, stage, names, moment)
            values = {path: (column, column) for path, (column, _) in values.items()}
            stage = table
            self._last.append(partial(self._dialect.drop_column, table, table.c._m2p_ord.name))
        else:
            if staged.in_place:
                self._last.append(partial(stage.drop, self._connection))
            if new_key:
                self._last.append(partial(self._dialect.add_key, table, new_key))
        own = table.c[TENANT] == spec.tenant_id
        return Merge(
            dialect=self._dialect,
            table=table,
            stage=stage,
            live=target.live(table),
            keys=[values[path] for path in staged.key],
            values=list(values.values()),
            tenant_id=spec.tenant_id,
            load_id=spec.load_id,
            moment=moment,
            appends=spec.write_mode == "append",
            fresh=not target.exists or not self._connection.execute(sa.select(sa.exists().where(own))).scalar(),
            is_new=not target.exists,
            lost=bool(target.lost),
            in_place=becomes_table,
            new_key=new_key,
        )

    def _merge(self, merge: Merge, elements: list[sa.Table], read: Read, result: LoadResult) -> bool:
        """Merge the rows, fill in the counts, and return whether what disappeared was deleted."""
        spec = self._spec
        by_key = merge.in_place and merge.new_key
        result.duplicates = self._add_key(merge) if by_key else drop_duplicates(merge, elements)
        if self._before_merge is not None:
            self._before_merge(merge)
        emptied = merge.fresh and read.version != 0
        if (emptied or read.version != self._version) and not merge.in_place:
            self._refuse_stale(merge)
        read.refuse_moved(result)
        has_rows = not merge.fresh and (not merge.appends or merge.written_before())
        if has_rows and merge.appends:
            self._dialect.expect_many()
        may_delete = has_rows and read.is_whole(result)
        live, gone = merge.live_and_gone() if may_delete else (0, 0)
        if gone > Fraction(str(float(spec.max_delete_ratio))) * live:
            whose = "earlier attempts of this load wrote" if merge.appends else f"{spec.full_name} has"
            raise M2PLoadError(
                f"The platform's list has {result.rows_read} rows and lacks {gone} of the {live} rows "
                f"that {whose} of tenant {spec.tenant_id!r}: more than "
                f"max_delete_ratio={spec.max_delete_ratio} allows. Nothing was written. "
                "If they are really gone, run once with a higher ratio (1 allows all)."
            )
        if merge.in_place:
            counts = Counts(inserted=result.rows_read - result.duplicates)
        else:
            counts = write(merge, spec.write_mode, merge.live if gone else None)
        result.inserted, result.updated, result.deleted = counts.inserted, counts.updated, counts.deleted
        result.unchanged = result.rows_read - result.duplicates - counts.inserted - counts.updated
        return may_delete

    def _add_key(self, merge: Merge) -> int:
        """Give the table, whose rows are in place, its key, and return how many rows had to go for that."""
        try:
            with self._dialect.attempt():
                self._dialect.add_key(merge.table, merge.new_key)
            return 0
        except sa.exc.IntegrityError:
            surplus = drop_duplicates(merge)
            self._dialect.add_key(merge.table, merge.new_key)
            return surplus

    def _merge_children(self, child: Merge, parent: Merge, may_delete: bool) -> Counts:
        """Merge the elements of the rows staged whole; those of other rows stay, unless the row disappeared."""
        same_parent = sa.and_(
            *(
                child.table.c[column.name] == value
                for (column, _), (_, value) in zip(child.keys, parent.keys, strict=False)
            )
        )
        staged = sa.exists().where(same_parent)
        if may_delete:
            gone = ~staged.where(~parent.staged).correlate(child.table)
        else:
            gone = staged.where(parent.staged).correlate(child.table)
        return write(child, self._spec.write_mode, sa.and_(child.live, gone))

    @staticmethod
    def _refill_later(table: Merge, children: list[Merge]) -> None:
        """Where columns or rows were lost, see that later loads write all rows again that this one had not whole."""
        for merge in (table, *children):
            if merge.lost and not merge.is_new:
                merge.forget_hashes()
        lost = [child for child in children if child.lost or child.was_emptied()]
        if lost and not table.lost:
            # The hashes of its rows' bytes decide whether their arrays are looked at. Where a table is gone, or has no
            # row of a tenant, that tenant's next load looks at all of them anyway.
            table.forget_hashes([RAW_HASH], others=any(child.lost and not child.is_new for child in lost))

    def _moment(self) -> datetime:
        """Return the time of this load: now, but later than the load before it, whatever this host's clock says."""
        return max(datetime.now(UTC), EPOCH + timedelta(microseconds=self._version + 1))

    @cached_property
    def _version(self) -> int:
        """Which load of the tenant was the last. While this one holds the lock there is no other."""
        return self._books.version(self._spec.table, self._spec.tenant_id)

    def _refuse_older(self, read: Read) -> None:
        """Refuse to put what was read earlier in the place of what another load read later and applied meanwhile."""
        spec = self._spec
        if read.version in (None, self._version):
            return
        rival = spec.load_id if spec.write_mode == "append" else None
        if self._books.began_later(spec.table, spec.tenant_id, read.started_at, rival):
            raise ReadAgain(f"Another load of tenant {spec.tenant_id!r} read {spec.full_name} later, and was quicker.")

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
                f"Another load of tenant {self._spec.tenant_id!r} changed {self._spec.full_name} while this one read "
                "the platform. Nothing was written; run the task again."
            )

    def _count(self, select: sa.Select[Any]) -> int:
        return int(self._connection.execute(select).scalar() or 0)
