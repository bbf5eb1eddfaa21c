"""The target table: what it looks like now, and whether it is fit for a load."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ReflectedIndex

from airflow_provider_m2p.columns import names
from airflow_provider_m2p.columns.elements import PARENT, POSITION
from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.columns.names import Path
from airflow_provider_m2p.columns.shape import Shape
from airflow_provider_m2p.exceptions import M2PSchemaError
from airflow_provider_m2p.warehouse.books import Books, StoredColumn
from airflow_provider_m2p.warehouse.column_types import base_type, keeps, kind_of_type, wider_by_now
from airflow_provider_m2p.warehouse.dialect import Dialect
from airflow_provider_m2p.warehouse.spec import LoadSpec

TENANT: Final = "_m2p_tenant_id"
LOAD_ID: Final = "_m2p_load_id"
LOADED_AT: Final = "_m2p_loaded_at"
ROW_HASH: Final = "_m2p_row_hash"
RAW_HASH: Final = "_m2p_raw_hash"
DELETED_AT: Final = "_m2p_deleted_at"
VALID_FROM: Final = "_m2p_valid_from"
VALID_TO: Final = "_m2p_valid_to"


@dataclass(slots=True)
class Target:
    """
    The target table as it is.

    :param columns: the columns of data that the books know.
    :param strangers: kinds of the columns that they do not know, by name: somebody else made them.
    :param unique: the sets of columns that are unique.
    :param lost: columns that the books know and the table no longer has: somebody dropped or renamed them, or it. Also
        those that it has again, but nothing in them yet.
    :param widened: kinds of the books, of columns that are wider by now: somebody made them so, or a load that died.
    :param unapplied: columns that the table has from loads that died, which hold nothing but nulls.
    :param announced: columns that such loads did not come to add.
    """

    spec: LoadSpec
    books: Books
    exists: bool = False
    columns: dict[Path, StoredColumn] = field(default_factory=dict)
    strangers: dict[str, Kind | None] = field(default_factory=dict)
    present: dict[str, sa.types.TypeEngine[Any]] = field(default_factory=dict)
    unique: list[set[str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    widened: dict[Path, Kind] = field(default_factory=dict)
    unapplied: set[str] = field(default_factory=set)
    announced: set[str] = field(default_factory=set)

    @classmethod
    def inspect(cls, spec: LoadSpec, books: Books) -> Target:
        """Look at the table as it is now."""
        dialect = books.dialect
        target = cls(spec, books)
        # The books first: a column that another load adds meanwhile must not look like one that was dropped.
        known = books.columns(spec.table)
        inspector = sa.inspect(dialect.connection)
        target.exists = inspector.has_table(spec.table, schema=spec.schema)
        unapplied = {} if dialect.transactional_ddl else books.unapplied(spec.table)
        if not target.exists:
            target.lost = [column.name for column in known]
            target.announced = set(unapplied)
            return target
        # A table comes into being together with its columns in the books, perhaps since they were read.
        known = known or books.columns(spec.table)
        found = inspector.get_columns(spec.table, schema=spec.schema)
        reflected = target.present = {c["name"]: base_type(c["type"], dialect.connection) for c in found}
        filled = dialect.filled(sa.Table(spec.table, sa.MetaData(), schema=spec.schema), found)
        target.unapplied = {name for name in unapplied if name in reflected}
        target.announced = {name for name in unapplied if name not in reflected}
        target.lost = [name for name, again in unapplied.items() if again]
        for column in known:
            if column.name in target.announced:
                continue
            if column.kind is Kind.CHILD or column.name in reflected:
                target.columns[column.path] = column
            else:
                target.lost.append(column.name)
        keys = target._wanted_key()
        for path, column in target.columns.items():
            kind = column.kind
            if kind is not Kind.CHILD:
                kind = wider_by_now(reflected[column.name], kind, dialect, key=column.name in keys)
            if kind is not column.kind:
                target.widened[path] = column.kind
                target.columns[path] = replace(column, kind=kind)
        named = {column.name for column in target.columns.values()} | filled
        for name, column_type in reflected.items():
            if name not in named and not name.startswith(names.META_PREFIX):
                target.strangers[name] = kind_of_type(column_type, dialect, key=name in keys)
        primary = inspector.get_pk_constraint(spec.table, schema=spec.schema)
        target.unique = [set(primary["constrained_columns"])] if primary["constrained_columns"] else []
        target.unique += [
            {str(name) for name in index["column_names"]}
            for index in inspector.get_indexes(spec.table, schema=spec.schema)
            if index["unique"] and not _is_partial(index)
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
        :raises sqlalchemy.exc.DBAPIError: the user may not write to it.
        """
        target = cls.inspect(spec, books)
        target.check()
        if target.exists:
            ours = {c.name for c in target.columns.values()} | {c.name for c in target.meta_columns()}
            ours |= target._wanted_key()
            columns = [sa.Column(name, column_type) for name, column_type in target.present.items() if name in ours]
            table = sa.Table(spec.table, sa.MetaData(), *columns, schema=spec.schema)
            target.dialect.check_texts(table, {LOAD_ID, *target._wanted_key()})
            # Appended rows go only if their load is run again, which tables without a key that are replicated refuse.
            target.dialect.try_writing(table, only_insert=spec.write_mode == "append")
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
            shape.add_column(column.path, column.kind)
        return shape

    def _key_path(self, name: str) -> Path:
        """Find the field that a key column means: the API's name, a dotted path, or the column's name."""
        nested = tuple(name.split("."))
        if nested in self.columns:
            return nested
        fields = {".".join(path): path for path in self.columns}
        return fields.get(name) or next(
            (column.path for column in self.columns.values() if column.name == name), nested
        )

    def array_spec(self, array: StoredColumn) -> LoadSpec:
        """Return how the elements of an array are loaded: into a table of their own, keyed by parent and position."""
        # By the name that the array would have as a column, which no other field has.
        table = f"{self.spec.table}__{array.name}"
        parent = [(PARENT, *self._key_path(name)) for name in self.spec.key_columns]
        return replace(
            self.spec,
            table=names.cut(table, (self.spec.table, *array.path), self.dialect.name_limit),
            key_columns=(*map(".".join, parent), POSITION),
            child_tables=False,
        )

    def meta_columns(self) -> list[sa.Column[Any]]:
        """Return the columns that every table has, and those of the write mode."""
        text, instant = self.dialect.text_type, self.dialect.instant_type
        columns: list[sa.Column[Any]] = [
            sa.Column(TENANT, text(key=True), nullable=False),
            sa.Column(LOAD_ID, text(key=True), nullable=False),
            sa.Column(LOADED_AT, instant(), nullable=False),
            sa.Column(ROW_HASH, sa.String(32), nullable=False),
            sa.Column(RAW_HASH, sa.String(32), nullable=False),
        ]
        if self.spec.write_mode == "upsert":
            columns.append(sa.Column(DELETED_AT, instant(), nullable=True))
        if self.spec.write_mode == "history":
            columns += [sa.Column(VALID_FROM, instant(), nullable=False), sa.Column(VALID_TO, instant(), nullable=True)]
        return columns

    def missing(self) -> list[str]:
        """Return the names of our own columns that a table lacks which exists."""
        return [c.name for c in self.meta_columns() if c.name not in self.present] if self.exists else []

    def table(self, columns: list[StoredColumn]) -> sa.Table:
        """Return the table with the given columns of data, as statements are written against it."""
        keys = self.key_names(columns)
        data = [
            sa.Column(c.name, self.dialect.column_type(c.kind, key=c.name in keys), nullable=c.name not in keys)
            for c in columns
            if c.kind is not Kind.CHILD
        ]
        return sa.Table(self.spec.table, sa.MetaData(), *data, *self.meta_columns(), schema=self.spec.schema)

    def key_names(self, columns: list[StoredColumn]) -> list[str]:
        """Return the names of the key's columns; none in append mode."""
        if self.spec.write_mode == "append":
            return []
        by_path = {column.path: column.name for column in columns}
        return [by_path[path] for path in map(self._key_path, self.spec.key_columns) if path in by_path]

    def unique_columns(self, columns: list[StoredColumn]) -> list[str]:
        """Return the columns that tell one row of the table from another; none in append mode."""
        if self.spec.write_mode == "append":
            return []
        valid_from = [VALID_FROM] if self.spec.write_mode == "history" else []
        return [TENANT, *self.key_names(columns), *valid_from]

    def live(self, table: sa.Table) -> sa.ColumnElement[bool]:
        """
        Return the condition for the tenant's rows that stand for a product as it is now.

        In ``append`` mode these are those that earlier attempts of this load wrote.
        """
        own = table.c[TENANT] == self.spec.tenant_id
        if self.spec.write_mode == "append":
            return sa.and_(own, table.c[LOAD_ID] == self.spec.load_id)
        ends = [table.c[name].is_(None) for name in (DELETED_AT, VALID_TO) if name in table.c and name in self.present]
        return sa.and_(own, *ends)

    def _wanted_key(self) -> set[str]:
        """Return the columns that must be unique; whoever made the table himself will have named them as we would."""
        known = {column.path: column.name for column in self.columns.values()}
        paths = map(self._key_path, self.spec.key_columns)
        valid_from = [VALID_FROM] if self.spec.write_mode == "history" else []
        return {TENANT, *(known.get(path, names.join(path)) for path in paths), *valid_from}

    def check(self) -> None:
        """
        Refuse a table that was made for other keys or another way of writing, or would not keep what it is given.

        :raises M2PSchemaError: what the table has, and what it should have.
        """
        self._check_key()
        if self.exists and not self.columns and self.spec.schema_policy == "ignore":
            raise M2PSchemaError(
                f"Table {self.spec.table!r} was not made by a load: which field a column is for is not known yet, so "
                "schema_policy='ignore' would leave out all of them. Load once with schema_policy='evolve'."
            )
        own = [c.name for c in self.meta_columns() if isinstance(c.type, sa.DateTime) and c.name in self.present]
        held = [(name, Kind.INSTANT, "its times") for name in own]
        held += [(c.name, c.kind, f"the field {names.show(c.path)!r}") for c in self.columns.values()]
        keys = self._wanted_key()
        for name, kind, what in held:
            if kind is not Kind.CHILD and not keeps(self.present[name], kind, self.dialect, key=name in keys):
                raise M2PSchemaError(
                    f"Column {name!r} of table {self.spec.table!r} has the type {self.present[name]} by now, which "
                    f"cannot hold {what} exactly. Change it back, or load into another table."
                )

    def _check_key(self) -> None:
        """Refuse a table that was made for other keys or another way of writing."""
        if not self.exists:
            return
        missing = self.missing()
        if missing == [DELETED_AT]:
            missing = []
        if self.spec.write_mode == "replace" and DELETED_AT in self.present and DELETED_AT not in self.unapplied:
            raise M2PSchemaError(
                f"Table {self.spec.table!r} was made for write_mode='upsert': it keeps rows that are marked in "
                f"{DELETED_AT}. Load into another table, or with that write mode."
            )
        wanted = self._wanted_key()
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


def _is_partial(index: ReflectedIndex) -> bool:
    """Tell whether an index has only some of the rows: what is unique among those is no key of the table."""
    return any(option.endswith("_where") for option in index.get("dialect_options", {}))
