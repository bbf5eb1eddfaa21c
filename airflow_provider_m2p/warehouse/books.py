"""
The tables that keep the books of a schema.

``_m2p_loads`` has a row for every applied load. ``_m2p_columns`` says which field of the API each column holds, as
what kind, and at which position of the row hash, so that a name given once stays given whatever arrives later. Where
changes of tables cannot be undone, it also has columns that loads are about to add, without a load id.
``_m2p_staged`` has the loads for review: those that are being staged, wait for consent, or were published this week.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.columns.names import Path
from airflow_provider_m2p.warehouse.dialect import Dialect
from airflow_provider_m2p.warehouse.spec import LoadResult, LoadSpec

#: The table of the loads for review. In place of a load's table, it stands for whatever that is.
STAGED: Final = "_m2p_staged"
_REMEMBERED: Final = timedelta(days=7)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: In place of the id of the load that changed a column: that it is not applied yet, and never will be if it died.
UNAPPLIED: Final = ""
#: The same of a column that somebody had dropped: rows that do not change have to be written again.
UNAPPLIED_AGAIN: Final = "-"
_COUNTS: Final = ("pages", "rows_read", "inserted", "updated", "unchanged", "deleted", "duplicates")
_NO_PATH: Final = json.dumps(())


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """A column that the table has: of data, or, with no path, of our own."""

    name: str
    path: Path
    kind: Kind
    position: int


class Books:
    """
    The books of one schema.

    :param dialect: the database.
    :param schema: the schema of the tables that are loaded.
    """

    def __init__(self, dialect: Dialect, schema: str | None) -> None:
        self.dialect = dialect
        self._connection = dialect.connection
        #: Tables that were made here: who makes a table may write to it.
        self._made: set[sa.Table] = set()
        metadata = sa.MetaData(schema=schema)
        text, instant = dialect.text_type, dialect.instant_type
        self.loads = sa.Table(
            "_m2p_loads",
            metadata,
            sa.Column("load_id", text(key=True), nullable=False),
            sa.Column("attempt", sa.Integer, nullable=False),
            sa.Column("dag_id", text()),
            sa.Column("run_id", text()),
            sa.Column("task_id", text()),
            sa.Column("map_index", sa.Integer),
            sa.Column("tenant_id", text(key=True), nullable=False),
            sa.Column("table_name", text(key=True), nullable=False),
            sa.Column("write_mode", sa.String(16), nullable=False),
            *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTS),
            sa.Column("schema_changes", text(), nullable=False),
            sa.Column("started_at", instant(), nullable=False),
            sa.Column("finished_at", instant(), nullable=False),
            sa.Column("status", sa.String(16), nullable=False),
        )
        self._columns = sa.Table(
            "_m2p_columns",
            metadata,
            sa.Column("table_name", text(key=True), nullable=False),
            sa.Column("column_name", text(key=True), nullable=False),
            sa.Column("path", text(), nullable=False),
            sa.Column("kind", sa.String(16), nullable=False),
            sa.Column("position", sa.Integer, nullable=False),
            sa.Column("load_id", text(), nullable=False),
            sa.Column("changed_at", instant(), nullable=False),
            sa.PrimaryKeyConstraint("table_name", "column_name"),
        )
        self._staged = sa.Table(
            STAGED,
            metadata,
            sa.Column("load_id", text(key=True), primary_key=True),
            sa.Column("tenant_id", text(key=True), nullable=False),
            sa.Column("table_name", text(key=True), nullable=False),
            sa.Column("record", text(), nullable=False),
            sa.Column("staged_at", instant(), nullable=False),
        )

    def full_name(self, table: str) -> str:
        """Return the name of a table with its schema, alike whether that was named or is the connection's default."""
        return f"{self.loads.schema or self.dialect.default_schema}.{table}"

    def missing(self) -> list[sa.Table]:
        """Return the tables that are missing."""
        there = sa.inspect(self._connection).get_table_names(schema=self.loads.schema)
        return [table for table in self.loads.metadata.sorted_tables if table.name not in there]

    def try_writing(self) -> None:
        """Find out whether the user may enter a load."""
        if self._made.issuperset((self._columns, self.loads)):
            return
        for table in (self._columns, self.loads):
            self.dialect.check_texts(table, ("table_name", "column_name", "tenant_id"))
        self.dialect.try_writing(self._columns)
        self.dialect.try_writing(self.loads, only_insert=True)

    def create(self) -> None:
        """Create the tables that are missing."""
        missing = self.missing()
        self.loads.metadata.create_all(self._connection, missing, checkfirst=False)
        self._made.update(missing)

    def columns(self, table: str) -> list[StoredColumn]:
        """Return what is known of a table's columns of data, in the order of their positions."""
        c = self._columns.c
        select = sa.select(c.column_name, c.path, c.kind, c.position).where(c.table_name == table).order_by(c.position)
        return [
            StoredColumn(name, tuple(json.loads(path)), Kind(kind), position)
            for name, path, kind, position in self._connection.execute(select)
            if path != _NO_PATH
        ]

    def lock(self, table: str) -> None:
        """Make other loads of a table wait until this transaction ends."""
        c = self._columns.c
        hold = sa.update(self._columns).where(c.table_name == table).values(load_id=c.load_id)
        if self._connection.execute(hold).rowcount:
            return
        # No row to lock yet. Two transactions cannot insert the same key, so the second waits here for the first, and
        # finds its rows then.
        row = dict.fromkeys(("column_name", "path", "kind", "load_id"), "-") | {"table_name": table, "position": 0}
        self._connection.execute(sa.insert(self._columns).values(**row, changed_at=datetime.now(UTC)))
        self._connection.execute(sa.delete(self._columns).where(c.table_name == table, c.column_name == "-"))
        self._connection.execute(hold)

    def forget_columns(self, table: str, columns: list[str]) -> None:
        """Strike out columns that are gone."""
        c = self._columns.c
        if columns:
            self._connection.execute(sa.delete(self._columns).where(c.table_name == table, c.column_name.in_(columns)))

    def write_columns(self, table: str, columns: list[StoredColumn], load_id: str, moment: datetime) -> None:
        """Note what became of columns."""
        if not columns:
            return
        rows = [
            {
                "table_name": table,
                "column_name": column.name,
                "path": json.dumps(column.path),
                "kind": column.kind.value,
                "position": column.position,
                "load_id": load_id,
                "changed_at": moment,
            }
            for column in columns
        ]
        c = self._columns.c
        same = sa.or_(c.column_name == sa.bindparam("of_name"), c.path == sa.bindparam("of_path"))
        if self._connection.execute(sa.select(sa.exists().where(c.table_name == table))).scalar():
            self._connection.execute(
                sa.delete(self._columns).where(c.table_name == table, same),
                [{"of_name": row["column_name"], "of_path": row["path"]} for row in rows],
            )
        self._connection.execute(sa.insert(self._columns), rows)

    def unapplied(self, table: str) -> dict[str, bool]:
        """Return by name which columns loads were about to add that then died, and whether again."""
        c = self._columns.c
        marked = c.load_id.in_([UNAPPLIED, UNAPPLIED_AGAIN])
        rows = self._connection.execute(sa.select(c.column_name, c.load_id).where(c.table_name == table, marked))
        return {name: mark == UNAPPLIED_AGAIN for name, mark in rows}

    def version(self, table: str, tenant_id: str) -> int:
        """Return the time of the last load of a tenant's table, in microseconds since 1970; 0 before the first."""
        c = self.loads.c
        latest = sa.select(sa.func.max(c.finished_at)).where(c.table_name == table, c.tenant_id == tenant_id)
        moment = self._connection.execute(latest).scalar() or EPOCH
        return (moment.replace(tzinfo=moment.tzinfo or UTC) - EPOCH) // timedelta(microseconds=1)

    def began_later(self, table: str, tenant_id: str, moment: datetime, load_id: str | None = None) -> bool:
        """Tell whether a load of a tenant's table, or one of this id, is in the books that read after some time."""
        c = self.loads.c
        later = sa.exists().where(c.table_name == table, c.tenant_id == tenant_id, c.started_at > moment)
        if load_id is not None:
            later = later.where(c.load_id == load_id)
        return bool(self._connection.execute(sa.select(later)).scalar())

    def note(self, spec: LoadSpec, result: LoadResult, started_at: datetime, finished_at: datetime) -> None:
        """Enter a load that is applied by the transaction that enters it."""
        self._connection.execute(
            sa.insert(self.loads).values(
                load_id=spec.load_id,
                attempt=spec.attempt,
                dag_id=spec.dag_id,
                run_id=spec.run_id,
                task_id=spec.task_id,
                map_index=spec.map_index,
                tenant_id=spec.tenant_id,
                table_name=spec.table,
                write_mode=spec.write_mode,
                **{name: getattr(result, name) for name in _COUNTS},
                schema_changes=json.dumps(result.schema_changes, ensure_ascii=False),
                started_at=started_at,
                finished_at=finished_at,
                status="applied",
            )
        )

    def enter_staged(self, spec: LoadSpec, record: dict[str, Any], moment: datetime) -> None:
        """Enter what became of a load for review, in place of what was entered before; forget what is long over."""
        c = self._staged.c
        over = sa.or_(c.load_id == spec.load_id, c.staged_at < datetime.now(UTC) - _REMEMBERED)
        self._connection.execute(sa.delete(self._staged).where(over))
        self._connection.execute(
            sa.insert(self._staged).values(
                load_id=spec.load_id,
                tenant_id=spec.tenant_id,
                table_name=spec.table,
                record=json.dumps(record),
                staged_at=moment,
            )
        )

    def staged(self, load_id: str) -> dict[str, Any] | None:
        """Return what was entered last for a load for review."""
        record = self._connection.execute(
            sa.select(self._staged.c.record).where(self._staged.c.load_id == load_id)
        ).scalar()
        return None if record is None else dict(json.loads(record))

    def remove_staged(self, load_id: str) -> None:
        """Strike out a load that no longer waits."""
        self._connection.execute(sa.delete(self._staged).where(self._staged.c.load_id == load_id))

    def forget_stages(self, names: list[str]) -> None:
        """Strike out the loads whose stages were swept."""
        for load_id, record in self._connection.execute(sa.select(self._staged.c.load_id, self._staged.c.record)).all():
            if json.loads(record).get("staged", {}).get("table") in names:
                self.remove_staged(load_id)
