"""
What differs between databases. This base class is the portable way: it asks for nothing but standard SQL.

A subclass may know a faster way to write rows, exact types, or a lock that others can wait for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import ReflectedColumn

from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.columns.names import META_PREFIX
from airflow_provider_m2p.exceptions import M2PSchemaError
from airflow_provider_m2p.warehouse.lookup import INCOMPLETE, Finder, Held, Others

if TYPE_CHECKING:
    from airflow_provider_m2p.columns.compiled import Cells
    from airflow_provider_m2p.columns.keys import Key

_KEY_LENGTH = 255
#: A column while another is widened. No field's column is ever called so.
WIDER = f"{META_PREFIX}wider"


class Dialect:
    """
    The portable way to load a database.

    Numbers with a fraction become text here, because a ``NUMERIC`` without precision is rounded by some databases.

    :param connection: the connection that the load holds from its first page to its last statement.
    """

    #: Prefixes of ``CREATE TABLE`` for the stage. Without one, the stage is an ordinary table that is swept later.
    stage_prefixes: ClassVar[Sequence[str]] = ()
    #: Prefixes of ``CREATE TABLE`` for a stage that must outlive the connection.
    review_prefixes: ClassVar[Sequence[str]] = ()
    #: Whether rows are staged as lines of COPY text rather than as cells.
    takes_lines: ClassVar[bool] = False
    #: In which isolation a load runs, whatever the engine's own is. ``None`` is the database's default.
    isolation_level: ClassVar[str | None] = None
    #: Whether DDL is undone by a rollback.
    transactional_ddl: ClassVar[bool] = False
    #: Whether an index can be on an expression.
    indexes_expressions: ClassVar[bool] = False
    #: Whether a new table gets its key once its first rows are in, by :meth:`add_key`.
    adds_key_last: ClassVar[bool] = False
    #: Whether :meth:`transaction` keeps other loads of the table out. If not, rows of the books are locked.
    locks: ClassVar[bool] = False
    #: How many rows are read, and written, at a time.
    batch_rows: ClassVar[int] = 1000
    #: The most columns a table may have.
    max_columns: ClassVar[int] = 1000
    #: The most parameters of one statement.
    max_parameters: ClassVar[int] = 900

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection

    # -- names and types ----------------------------------------------------------------------------------------------

    @property
    def default_schema(self) -> str:
        """The schema of tables that are named without one."""
        return self.connection.dialect.default_schema_name or ""

    @property
    def name_limit(self) -> int:
        """The longest name of a column, in bytes."""
        return min(self.connection.dialect.max_identifier_length, 128)

    def quote(self, name: str) -> str:
        """Return an identifier, always quoted."""
        return self._as_it_stands(self.connection.dialect.identifier_preparer.quote_identifier(name))

    def qualified(self, table: sa.Table) -> str:
        """Return a table's name with its schema, quoted."""
        return self._as_it_stands(self.connection.dialect.identifier_preparer.format_table(table))

    def _as_it_stands(self, name: str) -> str:
        """Undo the doubling of percent signs, which is meant for drivers that format their statements."""
        doubled = self.connection.dialect.paramstyle in ("format", "pyformat")
        return name.replace("%%", "%") if doubled else name

    def text_type(self, *, key: bool = False) -> sa.types.TypeEngine[Any]:
        """Return the type of texts; those of a key are bounded where the database cannot index others."""
        return sa.String(_KEY_LENGTH) if key else sa.Text()

    @property
    def key_length(self) -> int | None:
        """The most characters that a key's text may have; ``None`` where it may have any number."""
        return getattr(self.text_type(key=True), "length", None)

    def instant_type(self) -> sa.types.TypeEngine[Any]:
        """Return the type of instants, which are always in UTC."""
        return sa.TIMESTAMP(timezone=True)

    def column_type(self, kind: Kind, *, key: bool = False) -> sa.types.TypeEngine[Any]:
        """Return the type of a column that holds every value of ``kind`` exactly."""
        if kind is Kind.BOOL:
            return sa.Boolean()
        if kind is Kind.INT:
            return sa.BigInteger()
        if kind is Kind.DATE:
            return sa.Date()
        return self.instant_type() if kind is Kind.INSTANT else self.text_type(key=key)

    def stage_type(self, kind: Kind, *, key: bool = False) -> sa.types.TypeEngine[Any]:
        """Return the type of a column of the stage, which gives back the text that went in if it matters."""
        return self.text_type(key=key)

    def fits(self, staged: sa.Column[Any], kind: Kind | None) -> bool:
        """Tell whether what was staged as a kind can be held exactly by that kind's type."""
        return True

    def convert(self, staged: sa.ColumnElement[Any], source: Kind, target: Kind) -> sa.ColumnElement[Any]:
        """
        Return the expression that turns a staged value into the value to store.

        :param source: the kind as which it was staged.
        :param target: the kind of the column, the same or a wider one.
        """
        if source is Kind.INSTANT:
            return self.instant(sa.func.substr(staged, 1, 32)) if target is source else sa.func.substr(staged, 34)
        if source is target is Kind.BOOL:
            return staged == "true"
        if isinstance(self.column_type(target), sa.Text | sa.String):
            return staged
        return sa.cast(staged, self.column_type(target))

    def instant(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Return the instant that is spelled ``YYYY-MM-DD HH:MM:SS.ffffff+00:00``."""
        return sa.cast(text, self.instant_type())

    def stored_text(self, column: sa.ColumnElement[Any], kind: Kind) -> sa.ColumnElement[Any]:
        """Return a stored value as the text that its column will hold once it is widened to text."""
        if kind is Kind.BOOL:
            return sa.case((column.is_(None), sa.null()), (column, "true"), else_="false")
        if kind is Kind.INSTANT:
            # Else it would be spelled in the session's time zone. By the standard a text is YYYY-MM-DD HH:MM:SS.
            utc = sa.cast(column.op("AT TIME ZONE")(sa.literal_column("'UTC'")), self.text_type())
            return sa.func.replace(utc, " ", "T").op("||")("Z")
        return sa.cast(column, self.text_type())

    # -- tables -------------------------------------------------------------------------------------------------------

    def execute(self, statement: str) -> None:
        """Run a statement that is complete as it stands."""
        self.connection.execute(sa.text(statement.replace(":", r"\:")))

    def add_columns(self, table: sa.Table, columns: list[sa.Column[Any]]) -> None:
        """Add nullable columns."""
        for column in columns:
            self.execute(f"ALTER TABLE {self.qualified(table)} ADD COLUMN {self.specification(column)}")

    def drop_column(self, table: sa.Table, name: str) -> None:
        """Drop a column and what it holds."""
        self.execute(f"ALTER TABLE {self.qualified(table)} DROP COLUMN {self.quote(name)}")

    def specification(self, column: sa.Column[Any]) -> str:
        """Return a column's name and type as DDL has it."""
        compiler = self.connection.dialect.ddl_compiler(self.connection.dialect, None)  # type: ignore[arg-type]
        return compiler.get_column_specification(column)

    def add_key(self, table: sa.Table, columns: list[str]) -> None:
        """Give a new table its primary key; only for dialects that add it last."""
        raise NotImplementedError

    def widen_column(self, table: sa.Table, name: str, source: Kind, target: Kind, *, key: bool) -> None:
        """
        Change a column's type to that of a wider kind; what is stored stays as it is, or becomes its text.

        :raises M2PSchemaError: the column is part of the key, which standard SQL cannot change.
        """
        if key:
            raise M2PSchemaError(
                f"The key column {name!r} would have to change from {source.value} to {target.value}, which "
                f"{self.connection.dialect.name} cannot do in place. Load into a new table."
            )
        wider = self._widened(table, name, source, target)
        self.drop_column(table, name)
        self.execute(
            f"ALTER TABLE {self.qualified(table)} RENAME COLUMN {self.quote(wider.name)} TO {self.quote(name)}"
        )

    def _widened(
        self, table: sa.Table, name: str, source: Kind, target: Kind, new_name: str = WIDER
    ) -> sa.Column[Any]:
        """Add a column with what another holds, as a wider kind, and return it."""
        stored: sa.ColumnElement[Any] = sa.column(name)
        wider = sa.Column(new_name, self.column_type(target))
        self.add_columns(table, [wider])
        value = self.stored_text(stored, source) if target is Kind.TEXT else sa.cast(stored, wider.type)
        self.connection.execute(sa.update(sa.table(table.name, wider, schema=table.schema)).values({wider: value}))
        return wider

    def left_over(self, present: Mapping[str, sa.types.TypeEngine[Any]]) -> list[str]:
        """
        Return the columns that a load which died left in a table, and that no load will use.

        :param present: the types of the table's columns.
        """
        return [WIDER] if WIDER in present else []

    def filled(self, table: sa.Table, columns: Iterable[ReflectedColumn]) -> set[str]:
        """Return which columns of a table the database fills itself, so that no field gets into them."""
        return {c["name"] for c in columns if c.get("computed") or c.get("identity", {}).get("always")}

    def widen_staged(
        self, stage: sa.Table, column: sa.Column[Any], source: Kind, target: Kind, *, key: bool
    ) -> None:
        """
        Bring what is staged already into the form of a wider kind.

        :raises ReadAgain: that is a text which the stage does not have. The next stage will keep it.
        """
        if source is Kind.INSTANT:
            plain = sa.func.substr(column, 34)
            self.connection.execute(sa.update(stage).where(column.is_not(None)).values({column: plain}))

    # -- rows ---------------------------------------------------------------------------------------------------------

    def ask(self, look_up: Callable[[], Others]) -> Callable[[], Others]:
        """Begin a look-up, perhaps while the caller goes on, and return what waits for its answer."""
        answer = look_up()
        return lambda: answer

    def settle(self) -> None:
        """Wait until nothing is under way on the connection, and raise what went wrong with rows that were."""

    def write_cells(self, stage: sa.Table, columns: list[sa.Column[Any]], rows: list[Cells]) -> None:
        """Write rows of texts into the stage."""
        names = [column.key for column in columns]
        with self.connection.begin():
            self.connection.execute(sa.insert(stage), [dict(zip(names, row, strict=True)) for row in rows])

    def write_lines(
        self, stage: sa.Table, columns: list[sa.Column[Any]], lines: list[bytes], *, in_place: bool
    ) -> None:
        """
        Write rows as lines of COPY text into the stage, perhaps while the caller goes on.

        Only for dialects that take lines. Whoever needs the connection afterwards settles first.

        :param in_place: whether the stage was made in the transaction that is under way.
        """
        raise NotImplementedError

    def refuse_unstorable(self, lines: list[bytes], columns: list[str], json_columns: set[int], page: int) -> None:
        """
        Refuse texts that the database cannot hold.

        :param lines: rows as lines of COPY text.
        :param columns: what to call each cell of a line.
        :param json_columns: which cells are JSON.
        :param page: where the rows come from.
        :raises M2PSchemaError: which columns, and how many rows.
        """

    def check_columns(self, count: int) -> None:
        """
        Refuse more columns than a table can have.

        :raises M2PSchemaError: how many are too many.
        """
        if count > self.max_columns:
            raise M2PSchemaError(
                f"The rows need {count} columns, and a table of this database has at most {self.max_columns}. "
                "Nothing was written. Flatten less (max_depth), or exclude fields."
            )

    def prepare_stage(self, stage: sa.Table, keys: list[sa.ColumnElement[Any]]) -> None:
        """Make the staged rows, which are all there, quick to find by their key."""
        if self.indexes_expressions or all(isinstance(key, sa.Column) for key in keys):
            sa.Index(f"ix{stage.name}", *keys, _table=stage).create(self.connection)

    def expect_many(self) -> None:
        """Have the rest of the transaction planned for many rows where statistics may know nothing of them yet."""

    def finder(self, held: Held, stage: sa.Table, staged_keys: list[sa.Column[Any]], *, incomplete: bool) -> Finder:
        """
        Return what stages rows that a table has already: order, canonical hash and key, but no raw hash.

        :param held: the rows of the table.
        :param staged_keys: the key columns of the stage.
        :param incomplete: whether the hashes asked for are marked :data:`INCOMPLETE`; the table's may not be.
        """
        key, number = held.keys[0], isinstance(held.keys[0].type, sa.Integer)
        select = sa.select(key, held.table.c._m2p_raw_hash, held.table.c._m2p_row_hash)
        select = select.where(held.where, key.in_(sa.bindparam("wanted", expanding=True)))
        narrow = [stage.c._m2p_ord, stage.c.row_hash, *staged_keys]

        def find(first: int, wanted: list[Key], hashes: list[str]) -> Others:
            if len(held.keys) != 1:
                return dict.fromkeys(range(len(wanted)), "")  # standard SQL has no quick way to ask for pairs
            values = [int(row[0]) if number else row[0] for row in wanted]
            found: dict[str, tuple[str, str]] = {}
            with self.connection.begin():
                for start in range(0, len(values), self.max_parameters):
                    part = {"wanted": values[start : start + self.max_parameters]}
                    found.update({str(row[0]): (row[1], row[2]) for row in self.connection.execute(select, part)})
            others: Others = {}
            same: list[Cells] = []
            for place, ((text,), raw_hash) in enumerate(zip(wanted, hashes, strict=True)):
                has, row_hash = found.get(text, ("", ""))
                if (has[:-1] + INCOMPLETE if incomplete else has) == raw_hash:
                    same.append((str(first + place), row_hash, text))
                else:
                    others[place] = row_hash
            if same:
                self.write_cells(stage, narrow, same)
            return others

        return find

    # -- transactions -------------------------------------------------------------------------------------------------

    def check(self, table: sa.Table, *, with_children: bool) -> None:
        """
        Find out, as far as the database tells, whether the user may create and change the table.

        :param with_children: whether arrays go into tables of their own.
        """

    def check_texts(self, table: sa.Table, columns: Iterable[str]) -> None:
        """
        Refuse texts by which rows are told apart, if the table takes different ones for the same.

        :raises M2PSchemaError: which column, and why.
        """
        found = self._find_lossy_collation(table, list(columns))
        if found is not None:
            raise M2PSchemaError(
                f"Column {found[0]!r} of table {table.name!r} has the {found[1]}, which takes different texts for the "
                f"same. Nothing was written. Change it to {found[2]}, or load into another table."
            )

    def _find_lossy_collation(self, table: sa.Table, columns: list[str]) -> tuple[str, str, str] | None:
        """Return a column that takes different texts for the same, by which type or collation, and a better one."""
        return None

    def try_writing(self, table: sa.Table, *, only_insert: bool = False) -> None:
        """Run statements that change no row, to be refused now rather than when all pages are read."""
        columns = list(table.columns)
        run = self.connection.execute
        run(sa.insert(table).from_select(columns, sa.select(*columns).where(sa.false())))
        if not only_insert:
            run(sa.update(table).where(sa.false()).values({columns[0]: columns[0]}))
            run(sa.delete(table).where(sa.false()))

    @contextlib.contextmanager
    def looking(self, lock: str) -> Iterator[None]:
        """Run a transaction that looks at the form of a table, perhaps while no load changes it."""
        with self.step():
            yield

    @contextlib.contextmanager
    def transaction(self, lock: str, seconds: float) -> Iterator[None]:
        """
        Run one transaction that no other load of the same table runs beside.

        :param lock: what is locked.
        :param seconds: how long to wait for it.
        """
        with self.connection.begin():
            yield

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Run statements before the load's transaction: in one of their own, unless :meth:`in_place` began that."""
        if self.connection.invalidated:
            # Else another one would take its place, which does not have the stage.
            gone = ConnectionError("it is gone")
            raise sa.exc.OperationalError(None, None, gone, connection_invalidated=True)
        if self.connection.in_transaction():
            yield
        else:
            with self.connection.begin():
                yield

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Run what may fail without harm to the transaction that is under way."""
        with self.connection.begin_nested() if self.transactional_ddl else contextlib.nullcontext():
            yield

    def in_place(self) -> bool:
        """
        Begin the load's transaction before the first page, so that the stage of a new table can become that table.

        :returns: whether this was done. It saves the copy from the stage, where DDL is undone by a rollback.
        """
        return False

    def adopt(self, stage: sa.Table, table: sa.Table, names: dict[str, str], constants: dict[str, Any]) -> None:
        """
        Make a stage the table; only for dialects that load in place.

        :param table: what it is to become.
        :param names: its columns' names, by those that they have in the stage.
        :param constants: the values of columns that are the same in every row.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Give back what the load changed on the connection, which is still there."""

    def stop(self) -> None:
        """End what runs beside the connection, whether that is still there or not."""
