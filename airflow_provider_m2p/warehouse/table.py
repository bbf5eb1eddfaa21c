"""The target table: what it looks like now, and how it must change to take the rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from airflow_provider_m2p.columns import names
from airflow_provider_m2p.columns.elements import PARENT, POSITION
from airflow_provider_m2p.columns.kinds import Kind, Tokens, kind_of
from airflow_provider_m2p.columns.names import Path, show
from airflow_provider_m2p.columns.shape import Field, Shape
from airflow_provider_m2p.exceptions import M2PSchemaError
from airflow_provider_m2p.warehouse.books import Books, StoredColumn
from airflow_provider_m2p.warehouse.dialect import Dialect
from airflow_provider_m2p.warehouse.spec import LoadSpec
from airflow_provider_m2p.warehouse.staged import Staged, column_name, order_column

TENANT: Final = "_m2p_tenant_id"
LOAD_ID: Final = "_m2p_load_id"
LOADED_AT: Final = "_m2p_loaded_at"
ROW_HASH: Final = "_m2p_row_hash"
RAW_HASH: Final = "_m2p_raw_hash"
DELETED_AT: Final = "_m2p_deleted_at"
VALID_FROM: Final = "_m2p_valid_from"
VALID_TO: Final = "_m2p_valid_to"

_TEXT_KINDS = (Kind.TEXT, Kind.JSON)


@dataclass(slots=True)
class Target:
    """
    The target table as it is.

    :param columns: the columns of data that the books know.
    :param strangers: kinds of the columns that they do not know, by name: somebody else made them.
    :param unique: the sets of columns that are unique.
    :param lost: columns that the books know and the table no longer has: somebody dropped or renamed them.
    """

    spec: LoadSpec
    books: Books
    exists: bool = False
    columns: dict[Path, StoredColumn] = field(default_factory=dict)
    strangers: dict[str, Kind | None] = field(default_factory=dict)
    present: dict[str, sa.types.TypeEngine[Any]] = field(default_factory=dict)
    unique: list[set[str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @classmethod
    def inspect(cls, spec: LoadSpec, books: Books) -> Target:
        """Look at the table as it is now."""
        dialect = books.dialect
        target = cls(spec, books)
        # The books first: a column that another load adds meanwhile must not look like one that was dropped.
        known = books.columns(spec.table)
        inspector = sa.inspect(dialect.connection)
        target.exists = inspector.has_table(spec.table, schema=spec.schema)
        if not target.exists:
            return target
        # A table comes into being together with its columns in the books, perhaps since they were read.
        known = known or books.columns(spec.table)
        reflected = {c["name"]: c["type"] for c in inspector.get_columns(spec.table, schema=spec.schema)}
        target.present = reflected
        for column in known:
            if column.name in reflected or column.kind is Kind.CHILD:
                target.columns[column.path] = column
            else:
                target.lost.append(column.name)
        named = {column.name for column in target.columns.values()}
        for name, column_type in reflected.items():
            if name not in named and not name.startswith(names.META_PREFIX):
                target.strangers[name] = _kind_of_type(column_type, dialect)
        primary = inspector.get_pk_constraint(spec.table, schema=spec.schema)
        target.unique = [set(primary["constrained_columns"])] if primary["constrained_columns"] else []
        target.unique += [
            {str(name) for name in index["column_names"]}
            for index in inspector.get_indexes(spec.table, schema=spec.schema)
            if index["unique"]
        ]
        target.unique += [
            set(constraint["column_names"])
            for constraint in inspector.get_unique_constraints(spec.table, schema=spec.schema)
        ]
        return target

    @classmethod
    def to_load(cls, spec: LoadSpec, books: Books) -> Target:
        """
        Look at the table as it is now, and find out whether a load can go into it.

        :raises M2PSchemaError: it was made for another key or write mode.
        :raises sqlalchemy.exc.DBAPIError: the user may not write to it, or to the books.
        """
        target = cls.inspect(spec, books)
        target.check_key()
        if target.exists:
            columns = [sa.Column(name, column_type) for name, column_type in target.present.items()]
            target.dialect.try_writing(sa.Table(spec.table, sa.MetaData(), *columns, schema=spec.schema))
        books.try_writing()
        return target

    @property
    def dialect(self) -> Dialect:
        """The database."""
        return self.books.dialect

    def shape(self) -> Shape:
        """Return the shape that the rows of the next load start from."""
        grows = not (self.exists and self.spec.schema_policy == "ignore")
        key = tuple(self._key_path(name) for name in self.spec.key_columns)
        shape = Shape(key, max_depth=self.spec.max_depth, grows=grows)
        for column in sorted(self.columns.values(), key=lambda column: column.position):
            shape.add_column(column.path, column.kind, column.name)
        return shape

    def _key_path(self, name: str) -> Path:
        """Find the field that a key column means: the API's name, a dotted path, or the column's name."""
        for column in self.columns.values():
            if name in (column.name, ".".join(column.path)):
                return column.path
        return tuple(name.split("."))

    def meta_columns(self) -> list[sa.Column[Any]]:
        """Return the columns that every table has, and those of the write mode."""
        text, instant = self.dialect.text_type, self.dialect.instant_type
        history = self.spec.write_mode == "history"
        columns: list[sa.Column[Any]] = [
            sa.Column(TENANT, text(key=True), nullable=False),
            sa.Column(LOAD_ID, text(key=True), nullable=False),
            sa.Column(LOADED_AT, instant(), nullable=False),
            sa.Column(ROW_HASH, sa.String(32), nullable=False),
            sa.Column(RAW_HASH, sa.String(32), nullable=False),
        ]
        if self.spec.write_mode == "upsert":
            columns.append(sa.Column(DELETED_AT, instant(), nullable=True))
        if history:
            columns += [sa.Column(VALID_FROM, instant(), nullable=False), sa.Column(VALID_TO, instant(), nullable=True)]
        return columns

    def table(self, columns: list[StoredColumn]) -> sa.Table:
        """Return the table with the given columns of data, as statements are written against it."""
        keys = self._key_names(columns)
        data = [
            sa.Column(c.name, self.dialect.column_type(c.kind, key=c.name in keys), nullable=c.name not in keys)
            for c in columns
            if c.kind is not Kind.CHILD
        ]
        metadata = sa.MetaData()
        return sa.Table(self.spec.table, metadata, *data, *self.meta_columns(), schema=self.spec.schema)

    def _key_names(self, columns: list[StoredColumn]) -> list[str]:
        if self.spec.write_mode == "append":
            return []
        by_path = {column.path: column.name for column in columns}
        return [by_path[path] for path in map(self._key_path, self.spec.key_columns) if path in by_path]

    def unique_columns(self, columns: list[StoredColumn]) -> list[str]:
        """Return the columns that tell one row of the table from another; none in append mode."""
        if self.spec.write_mode == "append":
            return []
        valid_from = [VALID_FROM] if self.spec.write_mode == "history" else []
        return [TENANT, *self._key_names(columns), *valid_from]

    def live(self, table: sa.Table) -> sa.ColumnElement[bool]:
        """Return the condition for the tenant's rows that stand for a product as it is now."""
        own = table.c[TENANT] == self.spec.tenant_id
        ends = [table.c[name].is_(None) for name in (DELETED_AT, VALID_TO) if name in table.c and name in self.present]
        return sa.and_(own, *ends)

    def check_key(self) -> None:
        """
        Refuse a table that was made for other keys or another way of writing.

        :raises M2PSchemaError: what the table has, and what it should have.
        """
        if not self.exists:
            return
        missing = [column.name for column in self.meta_columns() if column.name not in self.present]
        if missing == [DELETED_AT]:
            missing = []
        if self.spec.write_mode == "replace" and DELETED_AT in self.present:
            raise M2PSchemaError(
                f"Table {self.spec.table!r} was made for write_mode='upsert': it keeps rows that are marked in "
                f"{DELETED_AT}. Load into another table, or with that write mode."
            )
        wanted = set(self.unique_columns(list(self.columns.values())))
        has = " and ".join(f"({', '.join(sorted(u))})" for u in self.unique) or "no unique key"
        if missing:
            raise M2PSchemaError(
                f"Table {self.spec.table!r} exists but was not made for write_mode={self.spec.write_mode!r}: it lacks "
                f"{', '.join(missing)}. Load into another table, or drop this one."
            )
        if self.spec.write_mode == "append" and any(TENANT in unique for unique in self.unique):
            raise M2PSchemaError(
                f"Table {self.spec.table!r} has the unique key {has}, so rows cannot be appended. "
                "Load into another table, or with the write mode it was made for."
            )
        if self.spec.write_mode != "append" and wanted not in self.unique:
            expected = ", ".join([TENANT, *self.spec.key_columns])
            if self.spec.write_mode == "history":
                expected += f", {VALID_FROM}"
            raise M2PSchemaError(
                f"Table {self.spec.table!r} exists with an incompatible key: write_mode={self.spec.write_mode!r} with "
                f"key_columns={list(self.spec.key_columns)} needs a unique key on ({expected}), the table has {has}. "
                f"{'Correct key_columns or write_mode' if self.unique else 'Add that key'}, or load into another table."
            )

    def plan(self, staged: Staged) -> tuple[list[StoredColumn], list[dict[str, Any]]]:
        """
        Decide how each staged column is stored.

        :returns: the columns in the order of the stage, and the changes that the table needs.
        :raises M2PSchemaError: the policy forbids the changes, or the table cannot take so many columns.
        """
        taken = {column.name: column.path for column in self.columns.values()}
        taken |= {name: () for name in (*self.present, *self.dialect.system_columns) if name not in taken}
        new = [column for column in staged.columns if column.path not in self.columns]
        wishes = {names.join(path): path for path in sorted((c.path for c in new), reverse=True)}
        adopted = {path: name for name, path in wishes.items() if name in self.strangers}
        given = {c.path: c.path[-1] for c in new if c.path[0] in (PARENT, POSITION)}
        taken |= {name: path for path, name in given.items()}
        free = [c.path for c in new if c.path not in adopted and c.path not in given]
        # The key comes first: no other field may take its name.
        named = names.assign([path for path in free if path in staged.key], taken, self.dialect.name_limit) | given
        taken |= {name: path for path, name in named.items()}
        named |= names.assign([path for path in free if path not in staged.key], taken, self.dialect.name_limit)
        planned: list[StoredColumn] = []
        changes: list[dict[str, Any]] = []
        position = max((column.position for column in self.columns.values()), default=-1) + 1
        for index, column in enumerate(staged.columns):
            stored = self.columns.get(column.path)
            kind = self._kind(column, stored.kind if stored else None, staged.table, column_name(index))
            change: dict[str, Any] = {"field": show(column.path), "type": kind.value}
            if stored is not None:
                planned.append(StoredColumn(stored.name, column.path, kind, stored.position))
                if kind is not stored.kind:
                    changes.append({"change": "widen", "column": stored.name, **change, "from": stored.kind.value})
                continue
            name = adopted.get(column.path) or named[column.path]
            planned.append(StoredColumn(name, column.path, kind, position))
            position += 1
            if column.path in adopted:
                before = self.strangers[name]
                if before is None:
                    raise M2PSchemaError(
                        f"Column {name!r} of table {self.spec.table!r} has the type {self.present[name]}, which cannot "
                        f"hold the field {show(column.path)!r} exactly. Rename the column, or load into another table."
                    )
                change["from"] = before.value
            changes.append({"change": "adopt" if column.path in adopted else "add", "column": name, **change})
        self._check_policy(changes)
        self.dialect.check_columns(len(planned) + len(self.meta_columns()))
        ignored = [{"change": "ignore", "field": show(path)} for path in staged.ignored]
        return planned, changes + ignored

    def _kind(self, column: Field, stored: Kind | None, stage: sa.Table, name: str) -> Kind:
        kind = kind_of(column.tokens, stored)
        assert kind is not None
        if self.spec.child_tables and column.tokens & Tokens.ARRAY:
            if column.tokens != Tokens.ARRAY or stored not in (None, Kind.CHILD):
                raise M2PSchemaError(
                    f"child_tables is on, but the field {show(column.path)!r} is not always an array, or table "
                    f"{self.spec.table!r} has it in a column already. Load it with child_tables=False."
                )
            return Kind.CHILD
        if stored is Kind.CHILD:
            raise M2PSchemaError(
                f"Table {self.spec.table!r} has the arrays {show(column.path)!r} in a child table. Load it with "
                "child_tables=True, or into another table."
            )
        return kind if self.dialect.fits(stage, column, stage.c[name]) else Kind.TEXT

    def _check_policy(self, changes: list[dict[str, Any]]) -> None:
        if self.spec.schema_policy != "freeze":
            return
        if not self.exists:
            raise M2PSchemaError(
                f"Table {self.spec.table!r} does not exist, and schema_policy='freeze' forbids to create it. "
                "Load once with 'evolve', or correct the name."
            )
        if changes:
            listed = "; ".join(_describe(change) for change in changes[:50])
            raise M2PSchemaError(
                f"schema_policy='freeze', but the rows would change table {self.spec.table!r}: {listed}. "
                "Nothing was written."
            )

    def evolve(self, planned: list[StoredColumn], load_id: str, moment: datetime, *, create: bool = True) -> None:
        """
        Create the table, or bring it into the planned form.

        :param create: whether to make a table that does not exist. If not, :meth:`adopt` makes the stage that table.
        """
        table = self.table(planned)
        changed = [c for c in planned if self.columns.get(c.path) != c]
        # A database that commits DDL by itself may lose the load at any step. Columns that are in the books and not
        # yet in the table are made then; types that are wide and not yet so in the books are recognised.
        added = [c for c in changed if c.path not in self.columns and c.name not in self.strangers]
        self.books.forget_columns(self.spec.table, self.lost)
        self.books.write_columns(self.spec.table, added, load_id, moment)
        if not self.exists:
            if create:
                self._create(table, planned)
        else:
            missing = [sa.Column(c.name, c.type) for c in table.columns if c.name not in self.present]
            self.dialect.add_columns(table, missing)
            keys = self._key_names(planned)
            for stored in planned:
                if stored.kind is Kind.CHILD:
                    continue
                before = self._kind_before(stored)
                if before is not None and before is not stored.kind:
                    self.dialect.widen_column(table, stored.name, before, stored.kind, key=stored.name in keys)
        self.books.write_columns(self.spec.table, [c for c in changed if c not in added], load_id, moment)
        if self.lost:
            # What the column held is gone for all tenants. Without hashes, their next load writes every row again.
            self.dialect.connection.execute(
                sa.update(table).where(table.c[TENANT] != self.spec.tenant_id).values({ROW_HASH: "", RAW_HASH: ""})
            )

    def _create(self, table: sa.Table, planned: list[StoredColumn]) -> None:
        unique = self.unique_columns(planned)
        if unique and not self.dialect.adds_key_last:
            table.append_constraint(sa.PrimaryKeyConstraint(*unique))
        elif not unique:
            self._index(table)
        table.create(self.dialect.connection)

    def _index(self, table: sa.Table) -> sa.Index:
        """Return the index by which a table without a key finds the rows of a load."""
        name = f"ix_{self.spec.table}_load"[: self.dialect.name_limit]
        return sa.Index(name, table.c[TENANT], table.c[LOAD_ID])

    def adopt(self, table: sa.Table, stage: sa.Table, names: dict[str, str], load_id: str, moment: datetime) -> None:
        """
        Make the stage, with all the rows that are in it, the table. For now it keeps the order in which they came.

        :param table: gets the column for that order, too.
        :param names: the columns' names, by those that they have in the stage.
        """
        constants = {TENANT: self.spec.tenant_id, LOAD_ID: load_id, LOADED_AT: moment, VALID_FROM: moment}
        constants = {name: value for name, value in constants.items() if name in table.c}
        self.dialect.adopt(stage, table, {"row_hash": ROW_HASH, "raw_hash": RAW_HASH, **names}, constants)
        table.append_column(order_column())
        if self.spec.write_mode == "append":
            self._index(table).create(self.dialect.connection)

    def _kind_before(self, planned: StoredColumn) -> Kind | None:
        """Return the kind of a column as the database has it, which after a crash can be ahead of the books."""
        stored = self.columns.get(planned.path)
        if stored is None:
            return self.strangers.get(planned.name)
        actual = self.present[stored.name]
        wide_already = type(actual) is type(self.dialect.column_type(planned.kind)) and planned.kind in _TEXT_KINDS
        return planned.kind if wide_already and stored.kind not in (*_TEXT_KINDS, Kind.NUMBER) else stored.kind


def _describe(change: dict[str, Any]) -> str:
    if change["change"] == "widen":
        return f"widen {change['column']} from {change['from']} to {change['type']}"
    return f"{change['change']} {change['column']} {change['type']}"


def _kind_of_type(column_type: sa.types.TypeEngine[Any], dialect: Dialect) -> Kind | None:
    """Return the kind that a column made by somebody else can hold exactly, if any."""
    number, json = dialect.column_type(Kind.NUMBER), dialect.column_type(Kind.JSON)
    if isinstance(column_type, sa.Boolean):
        return Kind.BOOL
    if isinstance(column_type, sa.BigInteger):
        return Kind.INT
    if isinstance(column_type, sa.Numeric) and not isinstance(column_type, sa.Float):
        if not isinstance(number, sa.Numeric):
            return None
        same = (column_type.precision, column_type.scale) == (number.precision, number.scale)
        return Kind.NUMBER if same else None
    if isinstance(column_type, sa.Date):
        return Kind.DATE
    if isinstance(column_type, sa.JSON):
        return Kind.JSON if isinstance(json, sa.JSON) else None
    if isinstance(column_type, sa.Text) or (isinstance(column_type, sa.String) and column_type.length is None):
        return Kind.TEXT
    return None
