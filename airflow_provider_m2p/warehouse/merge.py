"""
From the stage into the table: one function for each way of writing.

Each runs within the load's one transaction and reads the stage once per statement. ``staged`` rows carry all
columns; the others only say that the row, as it stands in the table, was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from airflow_provider_m2p.warehouse.dialect import Dialect
from airflow_provider_m2p.warehouse.lookup import INCOMPLETE
from airflow_provider_m2p.warehouse.table import (
    DELETED_AT,
    LOAD_ID,
    LOADED_AT,
    RAW_HASH,
    ROW_HASH,
    TENANT,
    VALID_FROM,
    VALID_TO,
)


@dataclass(slots=True)
class Counts:
    """What a merge did to the table."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    def __bool__(self) -> bool:
        return any((self.inserted, self.updated, self.deleted))


@dataclass(frozen=True, slots=True)
class Merge:
    """
    Everything the statements are made from.

    :param table: the target.
    :param stage: the stage.
    :param live: the condition for the rows that this load may end, see :meth:`Target.live`.
    :param keys: pairs of target column and the expression of the staged value, for each key column.
    :param values: the same for all columns of data.
    :param tenant_id: whose rows these are.
    :param load_id: which load this is.
    :param moment: the instant that is written as the time of the load, in UTC.
    :param appends: whether rows are added, whatever the table has.
    :param fresh: whether the tenant has no rows in the table.
    :param is_new: whether the table was made by this load.
    :param lost: whether columns of the table were lost: rows that seem unchanged are written again.
    :param in_place: whether the stage has become the table: then both are the same.
    :param new_key: columns of the key that a new table gets once its rows are in; none if it has one, or gets none.
    """

    dialect: Dialect
    table: sa.Table
    stage: sa.Table
    live: sa.ColumnElement[bool]
    keys: list[tuple[sa.Column[Any], sa.ColumnElement[Any]]]
    values: list[tuple[sa.Column[Any], sa.ColumnElement[Any]]]
    tenant_id: str
    load_id: str
    moment: datetime
    appends: bool
    fresh: bool
    is_new: bool
    lost: bool
    in_place: bool
    new_key: list[str]

    def execute(self, statement: sa.Executable) -> int:
        """Run a statement and return how many rows it touched."""
        # Of an INSERT the count is kept only on demand.
        options = {"preserve_rowcount": True}
        return int(self.dialect.connection.execute(statement, execution_options=options).rowcount)

    @property
    def own(self) -> sa.ColumnElement[bool]:
        """Rows of the tenant."""
        return self.table.c[TENANT] == self.tenant_id

    @property
    def staged(self) -> sa.ColumnElement[bool]:
        """Rows of the stage that carry all columns."""
        return self.stage.c.raw_hash.is_not(None)

    @property
    def same_key(self) -> sa.ColumnElement[bool]:
        """A row of the table and one of the stage have the same key."""
        # SQLite compares by the rules of what stands first, and the table's column may ignore case or spaces.
        return sa.and_(*(value == column for column, value in self.keys))

    @property
    def differs(self) -> sa.ColumnElement[bool]:
        """Of a row of the table and one of the stage with its key: it has changed, or must be written again anyway."""
        return sa.true() if self.lost else self.table.c[ROW_HASH] != self.stage.c.row_hash

    def live_and_gone(self) -> tuple[int, int]:
        """Return how many rows there are that this load may end, and how many of those the stage does not have."""
        pairs = self.table.outerjoin(self.stage, self.same_key)
        select = sa.select(sa.func.count(), sa.func.count(self.stage.c._m2p_ord)).select_from(pairs).where(self.live)
        live, seen = self.dialect.connection.execute(select).one()
        return live, live - seen

    def changed_columns(self) -> dict[str, int]:
        """Return how many rows of the table will change in each column, of those in which some will."""
        if self.fresh or self.appends:
            return {}
        # As texts, because somebody may have given a column a type that cannot be compared with that of the value.
        pairs = [(column.name, sa.cast(column, sa.Text), sa.cast(value, sa.Text)) for column, value in self.values]
        counts = [
            sa.func.sum(sa.case((before.is_distinct_from(after), 1), else_=0)).label(name)
            for name, before, after in pairs
        ]
        # A row that was marked as deleted returns with its changes; a closed interval never does.
        current = self.live if VALID_TO in self.table.c else self.own
        rows = self.stage.join(self.table, sa.and_(current, self.same_key, self.staged))
        row = self.dialect.connection.execute(sa.select(*counts).select_from(rows).where(self.differs)).one()
        return {name: int(count) for name, count in row._mapping.items() if count}

    def written_before(self) -> bool:
        """Tell whether an earlier attempt of this load wrote rows that are still there."""
        earlier = sa.exists().where(self.own, self.table.c[LOAD_ID] == self.load_id)
        return bool(self.dialect.connection.execute(sa.select(earlier)).scalar())

    def renew_raw_hashes(self) -> None:
        """Note the bytes as which the rows that were staged whole came now, those of unchanged rows, too."""
        differs = self.table.c[RAW_HASH] != self.stage.c.raw_hash
        whole = sa.and_(self.live, self.staged, self.same_key, differs)
        self.execute(sa.update(self.table).where(whole).values({RAW_HASH: self.stage.c.raw_hash}))

    def was_emptied(self) -> bool:
        """Tell whether the table, which was there, got its only rows of the tenant from this load."""
        return self.fresh and not self.is_new and self.written_before()

    def insert(self, where: sa.ColumnElement[bool]) -> int:
        """Insert the staged rows that satisfy ``where``."""
        instant = sa.literal(self.moment, self.table.c[LOADED_AT].type)
        meta: dict[str, Any] = {
            TENANT: sa.literal(self.tenant_id, self.table.c[TENANT].type),
            LOAD_ID: sa.literal(self.load_id, self.table.c[LOAD_ID].type),
            LOADED_AT: instant,
            ROW_HASH: self.stage.c.row_hash,
            RAW_HASH: self.stage.c.raw_hash,
        }
        if VALID_FROM in self.table.c:
            meta[VALID_FROM] = instant
        targets = [column.name for column, _ in self.values] + list(meta)
        select = sa.select(*(value for _, value in self.values), *meta.values()).where(self.staged, where)
        return self.execute(sa.insert(self.table).from_select(targets, select))

    def forget_hashes(self, hashes: Sequence[str] = (ROW_HASH, RAW_HASH), *, others: bool = True) -> None:
        """
        Have later loads look at every row again that was not staged whole by this one.

        :param hashes: both, and the rows count as changed; that of the bytes alone, and they and their elements are
            compared.
        :param others: whether also those of other tenants.
        """
        whole = sa.exists().where(self.staged, self.same_key).correlate(self.table)
        rows = sa.or_(~self.own, ~whole) if others else sa.and_(self.own, ~whole)
        if VALID_TO in self.table.c:
            rows = sa.and_(rows, self.table.c[VALID_TO].is_(None))
        self.execute(sa.update(self.table).where(rows).values(dict.fromkeys(hashes, "")))

    def forget_incomplete(self) -> None:
        """Have later loads look at the rows again that may have lost fields to the schema policy."""
        incomplete = self.table.c[RAW_HASH].endswith(INCOMPLETE)
        self.execute(sa.update(self.table).where(incomplete).values({RAW_HASH: ""}))


def append(merge: Merge, gone: sa.ColumnElement[bool] | None) -> Counts:
    """Add all rows; first remove what an earlier attempt of the same load added of them, and what disappeared since."""
    deleted = 0
    # A table without a key may be one that PostgreSQL replicates: it lets nobody delete from that, not even nothing.
    if merge.written_before():
        deleted = _disappeared(merge, gone, None)
        again = sa.exists().where(merge.same_key).correlate(merge.table)
        merge.execute(sa.delete(merge.table).where(merge.live, again))
    return Counts(inserted=merge.insert(sa.true()), deleted=deleted)


def upsert(merge: Merge, gone: sa.ColumnElement[bool] | None) -> Counts:
    """Change what changed, add what is new, and mark what disappeared."""
    return _current_state(merge, gone, {DELETED_AT: merge.moment})


def replace(merge: Merge, gone: sa.ColumnElement[bool] | None) -> Counts:
    """Change what changed, add what is new, and remove what disappeared."""
    return _current_state(merge, gone, None)


def _current_state(merge: Merge, gone: sa.ColumnElement[bool] | None, mark: dict[str, Any] | None) -> Counts:
    table, stage = merge.table, merge.stage
    differs = merge.differs
    changes: dict[str, Any] = {column.name: value for column, value in merge.values}
    changes |= {
        LOAD_ID: merge.load_id,
        LOADED_AT: merge.moment,
        ROW_HASH: stage.c.row_hash,
        RAW_HASH: stage.c.raw_hash,
    }
    if mark is not None:
        differs = sa.or_(differs, table.c[DELETED_AT].is_not(None))
        changes[DELETED_AT] = sa.null()
    changed = sa.and_(merge.own, merge.staged, merge.same_key, differs)
    updated = merge.execute(sa.update(table).where(changed).values(changes))
    exists = sa.exists().where(merge.own, merge.same_key).correlate(stage)
    inserted = merge.insert(~exists)
    return Counts(inserted, updated, _disappeared(merge, gone, mark))


def history(merge: Merge, gone: sa.ColumnElement[bool] | None) -> Counts:
    """Close the interval of what changed or disappeared, and open one for what is new or has changed (SCD type 2)."""
    table, stage = merge.table, merge.stage
    changed = sa.exists().where(merge.staged, merge.same_key, merge.differs).correlate(table)
    end = {VALID_TO: merge.moment}
    updated = merge.execute(sa.update(table).where(merge.live, changed).values(end))
    current = sa.exists().where(merge.live, merge.same_key).correlate(stage)
    opened = merge.insert(~current)
    return Counts(opened - updated, updated, _disappeared(merge, gone, end))


def _disappeared(merge: Merge, gone: sa.ColumnElement[bool] | None, mark: dict[str, Any] | None) -> int:
    """Mark, or without a mark remove, the rows that the stage does not have."""
    if gone is None:
        return 0
    seen = sa.exists().where(merge.same_key).correlate(merge.table)
    if mark is None:
        return merge.execute(sa.delete(merge.table).where(gone, ~seen))
    return merge.execute(sa.update(merge.table).where(gone, ~seen).values(mark))


def drop_duplicates(merge: Merge, elements: Sequence[sa.Table] = ()) -> int:
    """
    Keep the last of the staged rows with the same key, and return how many others there were.

    :param elements: the stages of the rows' arrays.
    """
    stage = merge.stage
    keys = [value for _, value in merge.keys]
    connection = merge.dialect.connection
    by_key = sa.select(sa.func.count().label("rows")).select_from(stage).group_by(*keys).subquery()
    surplus = int(connection.execute(sa.select(sa.func.sum(by_key.c.rows - 1))).scalar() or 0)
    if surplus:
        place = sa.func.row_number().over(partition_by=keys, order_by=stage.c._m2p_ord.desc()).label("place")
        ranked = sa.select(stage.c._m2p_ord, place).subquery()
        losers = [row[0] for row in connection.execute(sa.select(ranked.c._m2p_ord).where(ranked.c.place > 1))]
        for start in range(0, len(losers), 500):
            for table in (stage, *elements):
                connection.execute(sa.delete(table).where(table.c._m2p_ord.in_(losers[start : start + 500])))
    return surplus


#: Each takes the condition for the rows that go if the stage does not have them; ``None`` if none may go.
Writer = Callable[[Merge, sa.ColumnElement[bool] | None], Counts]

WRITERS: dict[str, Writer] = {"append": append, "replace": replace, "upsert": upsert, "history": history}


def write(merge: Merge, write_mode: str, gone: sa.ColumnElement[bool] | None) -> Counts:
    """Bring the table into agreement with the stage."""
    if merge.fresh:
        return Counts(inserted=merge.insert(sa.true()))
    return WRITERS[write_mode](merge, gone)
