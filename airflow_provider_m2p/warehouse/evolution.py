"""How a table must change to take the rows of a stage, and the statements that change it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from airflow_provider_m2p.columns import names
from airflow_provider_m2p.columns.elements import PARENT, POSITION
from airflow_provider_m2p.columns.kinds import Kind, Tokens, kind_of
from airflow_provider_m2p.columns.names import show
from airflow_provider_m2p.columns.shape import Field
from airflow_provider_m2p.exceptions import M2PSchemaError
from airflow_provider_m2p.warehouse.books import UNAPPLIED, UNAPPLIED_AGAIN, StoredColumn
from airflow_provider_m2p.warehouse.reading import ReadAgain
from airflow_provider_m2p.warehouse.spec import LoadSpec
from airflow_provider_m2p.warehouse.staged import Staged, column_name, order_column
from airflow_provider_m2p.warehouse.table import (
    DELETED_AT,
    LOAD_ID,
    LOADED_AT,
    RAW_HASH,
    ROW_HASH,
    TENANT,
    VALID_FROM,
    Target,
)


class Evolution:
    """
    What becomes of one table.

    ``columns`` has the columns of data in the order of the stage, ``changes`` what the table needs for them, as the
    result of the load tells it, ``made`` what loads did for them that then died, where the database did not undo it.

    :param target: the table as it is.
    :param staged: the rows that it is to take.
    :param parent: what becomes of the table whose arrays this one has.
    :param array: the arrays' path.
    :raises M2PSchemaError: the table cannot take them.
    :raises ReadAgain: the rows were hashed with their columns in another order.
    """

    def __init__(
        self, target: Target, staged: Staged, *, parent: Evolution | None = None, array: names.Path = ()
    ) -> None:
        self.target = target
        self.staged = staged
        self.columns: list[StoredColumn] = []
        self.changes: list[dict[str, Any]] = []
        self.made: list[dict[str, Any]] = []
        self._spec = target.spec
        self._dialect = target.dialect
        #: Names and kinds that are given: those of the parent's key.
        self._given: dict[names.Path, StoredColumn] = {}
        if parent is not None:
            self._refuse_strange(parent, array)
            self._given = {(PARENT, *path): parent.by_path[path] for path in parent.staged.key}
            self._given[(POSITION,)] = StoredColumn(POSITION, (POSITION,), Kind.INT, 0)
        self._plan()
        #: The columns by the paths of their fields.
        self.by_path: dict[names.Path, StoredColumn] = {column.path: column for column in self.columns}
        if not self._dialect.transactional_ddl:
            self._find_made()

    @property
    def has_new_fields(self) -> bool:
        """Whether the table has columns now for fields for which it had none."""
        return any(change["change"] in ("add", "adopt") and change["field"] for change in (*self.made, *self.changes))

    def _refuse_strange(self, parent: Evolution, array: names.Path) -> None:
        """Refuse a table of this name that is not known for that of these arrays."""
        applied = [column for column in self.target.columns.values() if column.name not in self.target.unapplied]
        if applied and array not in parent.target.columns:
            raise M2PSchemaError(
                f"The arrays {show(array)!r} of {parent.target.spec.table!r} belong into table {self._spec.table!r}, "
                "but that was made for something else, or for a table that was dropped. Drop it, too, load into "
                "another table, or with child_tables=False."
            )

    def _plan(self) -> None:
        target, named = self.target, self._names()
        position = max((column.position for column in target.columns.values()), default=-1) + 1
        for place, column in enumerate(self.staged.columns):
            stored = target.columns.get(column.path)
            name = stored.name if stored else named[column.path]
            before = stored.kind if stored else target.strangers.get(name)
            given = self._given.get(column.path)
            if before is None and name in target.strangers:
                raise M2PSchemaError(
                    f"Column {name!r} of table {self._spec.table!r} has the type {target.present[name]}, which cannot "
                    f"hold the field {show(column.path)!r} exactly. Rename the column, or load into another table."
                )
            kind = self._kind(column, given.kind if given else before, column_name(place))
            change: dict[str, Any] = {"column": name, "field": show(column.path), "type": kind.value}
            if before is not None:
                change["from"] = before.value
            if stored is None:
                self.columns.append(StoredColumn(name, column.path, kind, position))
                position += 1
                self.changes.append({"change": "adopt" if name in target.strangers else "add", **change})
            else:
                self.columns.append(replace(stored, kind=kind))
                if kind is not stored.kind:
                    self.changes.append({"change": "widen", **change})
        hashed = [column.path for column in self.columns]
        known = [column.path for column in sorted(target.columns.values(), key=lambda column: column.position)]
        if hashed != (known + hashed[len(known) :])[: len(hashed)]:
            raise ReadAgain(f"The columns of {self._spec.table!r} changed while this load read the platform.")
        self.changes += map(_add_own, target.missing())
        ignored = self.staged.ignored.items()
        self.changes += [{"change": "ignore", "field": show(path), "values": count} for path, count in ignored]
        self._dialect.check_columns(len(self.columns) + len(target.meta_columns()))

    def _find_made(self) -> None:
        target = self.target
        for path, column in target.columns.items():
            change = {"column": column.name, "field": show(path), "type": column.kind.value}
            if column.name in target.unapplied:
                self.made.append({"change": "add", **change})
            elif path in target.widened:
                self.made.append({"change": "widen", **change, "from": target.widened[path].value})
        own = [column.name for column in target.meta_columns()]
        self.made += [_add_own(name) for name in own if name in target.unapplied]

    def _names(self) -> dict[names.Path, str]:
        """Return the names of the columns that the books do not know."""
        target, limit = self.target, self._dialect.name_limit
        taken = {column.name: column.path for column in target.columns.values()}
        taken |= {name: () for name in (*target.present, *names.SYSTEM_COLUMNS) if name not in taken}
        new = [column.path for column in self.staged.columns if column.path not in target.columns]
        wishes = {names.join(path): path for path in sorted(new, reverse=True)}
        named = {path: name for name, path in wishes.items() if name in target.strangers}
        given = {path: self._given[path].name for path in new if path in self._given}
        taken |= {name: path for path, name in given.items()}
        named |= given
        free = [path for path in new if path not in named]
        # The key comes first: no other field may take its name.
        keys = names.assign([path for path in free if path in self.staged.key], taken, limit)
        taken |= {name: path for path, name in keys.items()}
        return named | keys | names.assign([path for path in free if path not in keys], taken, limit)

    def _kind(self, column: Field, stored: Kind | None, name: str) -> Kind:
        kind, spec = kind_of(column.tokens, stored), self._spec
        assert kind is not None
        if spec.child_tables and column.tokens & Tokens.ARRAY:
            if column.tokens != Tokens.ARRAY or stored not in (None, Kind.CHILD):
                elsewhere = ", into another table" if stored is Kind.CHILD else ""
                raise M2PSchemaError(
                    f"child_tables is on, but the field {show(column.path)!r} is not always an array, or table "
                    f"{spec.table!r} has it in a column already. Load it with child_tables=False{elsewhere}."
                )
            return Kind.CHILD
        if stored is Kind.CHILD:
            raise M2PSchemaError(
                f"Table {spec.table!r} has the arrays {show(column.path)!r} in a child table. Load it with "
                "child_tables=True, or into another table."
            )
        return kind if self._dialect.fits(self.staged.table.c[name], column.kind) else Kind.TEXT

    def apply(self, moment: datetime, *, create: bool) -> None:
        """
        Create the table, or bring it into its new form.

        :param create: whether to make a table that does not exist. If not, :meth:`adopt` makes the stage that table.
        """
        target, books = self.target, self.target.books
        table = target.table(self.columns)
        # A database that commits DDL by itself may lose the load at any step. Columns that are in the books and not
        # yet in the table are made then; types that are wide and not yet so in the books are recognised.
        gone = [name for name in (*target.lost, *target.announced) if name not in target.present]
        books.forget_columns(self._spec.table, gone)
        added, load_id = self._added(), self._spec.load_id
        if not self._dialect.transactional_ddl:
            load_id = UNAPPLIED
            again = [column for column in added if column.name in target.lost]
            books.write_columns(self._spec.table, again, UNAPPLIED_AGAIN, moment)
            added = [column for column in added if column.name not in target.lost]
            added += [StoredColumn(name, (), Kind.INSTANT, 0) for name in target.missing()]
        books.write_columns(self._spec.table, added, load_id, moment)
        if not target.exists:
            if create:
                self._create(table)
        else:
            for left in self._dialect.left_over(target.present):
                self._dialect.drop_column(table, left)
            if DELETED_AT in target.unapplied and DELETED_AT not in table.c:
                # Added for another write mode, by a load that never came to mark a row.
                self._dialect.drop_column(table, DELETED_AT)
                books.forget_columns(self._spec.table, [DELETED_AT])
            missing = [sa.Column(c.name, c.type) for c in table.columns if c.name not in target.present]
            self._dialect.add_columns(table, missing)
            keys = target.key_names(self.columns)
            for stored in self.columns:
                if stored.kind is Kind.CHILD:
                    continue
                key = stored.name in keys
                before = self._kind_before(stored, key=key)
                if before is not None and before is not stored.kind:
                    self._dialect.widen_column(table, stored.name, before, stored.kind, key=key)

    def enter(self, moment: datetime) -> None:
        """Note what became of columns, those included that loads changed which then died."""
        target, table, made = self.target, self._spec.table, {change["column"] for change in self.made}
        entered = self._added() if self._dialect.transactional_ddl else []
        behind = [column for path, column in target.columns.items() if path not in self.by_path]
        changed = [
            column
            for column in (*self.columns, *behind)
            if column not in entered
            and (target.columns.get(column.path) != column or column.path in target.widened or column.name in made)
        ]
        own = {column.name for column in target.meta_columns()}
        target.books.forget_columns(table, [*own.intersection(made), *target.missing()])
        target.books.write_columns(table, changed, self._spec.load_id, moment)

    def _added(self) -> list[StoredColumn]:
        """Return the columns that neither the books know nor the table has."""
        target = self.target
        return [c for c in self.columns if c.path not in target.columns and c.name not in target.strangers]

    def _create(self, table: sa.Table) -> None:
        unique = self.target.unique_columns(self.columns)
        if unique and not self._dialect.adds_key_last:
            table.append_constraint(sa.PrimaryKeyConstraint(*unique))
        elif not unique:
            self._index(table)
        table.create(self._dialect.connection)

    def _index(self, table: sa.Table) -> sa.Index:
        """Return the index by which a table without a key finds the rows of a load."""
        # A name that no other index has, whatever tables are called, or were called before.
        name = f"ix_{table.name.encode()[:40].decode(errors='ignore')}_{secrets.token_hex(4)}"
        return sa.Index(name, table.c[TENANT], table.c[LOAD_ID])

    def adopt(self, table: sa.Table, stage: sa.Table, renamed: dict[str, str], moment: datetime) -> None:
        """
        Make the stage, with all the rows that are in it, the table. For now it keeps the order in which they came.

        :param table: gets the column for that order, too.
        :param renamed: the columns' names, by those that they have in the stage.
        """
        spec = self._spec
        constants = {TENANT: spec.tenant_id, LOAD_ID: spec.load_id, LOADED_AT: moment, VALID_FROM: moment}
        constants = {name: value for name, value in constants.items() if name in table.c}
        self._dialect.adopt(stage, table, {"row_hash": ROW_HASH, "raw_hash": RAW_HASH, **renamed}, constants)
        table.append_column(order_column())
        if spec.write_mode == "append":
            self._index(table).create(self._dialect.connection)

    def _kind_before(self, planned: StoredColumn, *, key: bool) -> Kind | None:
        """Return the kind of a column as the table has it."""
        stored = self.target.columns.get(planned.path)
        if stored is None:
            return self.target.strangers.get(planned.name)
        # The values of a key are changed after its type, so a load that died may have left that half done.
        half_done = key and stored.kind is Kind.TEXT and not self._dialect.transactional_ddl
        return self.target.widened.get(planned.path, stored.kind) if half_done else stored.kind


def check_policy(spec: LoadSpec, evolutions: Sequence[Evolution]) -> list[dict[str, Any]]:
    """
    Return the changes of a table and of its arrays' tables, those first that were made before.

    :raises M2PSchemaError: the policy forbids them.
    """
    table, *children = evolutions
    changes = table.changes + [
        {"table": child.target.spec.table, **change} for child in children for change in child.changes
    ]
    made = table.made + [{"table": child.target.spec.table, **change} for child in children for change in child.made]
    freezes = spec.schema_policy == "freeze"
    if freezes and not table.target.exists:
        raise M2PSchemaError(
            f"Table {spec.table!r} does not exist, and schema_policy='freeze' forbids to create it. "
            "Load once with 'evolve', or correct the name."
        )
    if freezes and changes:
        listed = "; ".join(_describe(change) for change in changes[:50])
        raise M2PSchemaError(
            f"schema_policy='freeze', but the rows would change table {spec.table!r}: {listed}. Nothing was written."
        )
    return made + changes


def _add_own(name: str) -> dict[str, Any]:
    return {"change": "add", "column": name, "field": None, "type": Kind.INSTANT.value}


def _describe(change: dict[str, Any]) -> str:
    column = f"{change['table']}.{change['column']}" if "table" in change else change["column"]
    if change["change"] == "widen":
        return f"widen {column} from {change['from']} to {change['type']}"
    return f"{change['change']} {column} {change['type']}"
