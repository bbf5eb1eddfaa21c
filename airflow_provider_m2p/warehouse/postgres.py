"""PostgreSQL: COPY into a temporary table, exact NUMERIC and JSONB, DDL within the transaction, advisory locks."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, ClassVar, NoReturn

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from airflow_provider_m2p.columns.keys import Key
from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.exceptions import M2PConfigError, M2PLoadError, M2PSchemaError, M2PWarehouseAccessError
from airflow_provider_m2p.warehouse.copy import Copy
from airflow_provider_m2p.warehouse.dialect import Dialect
from airflow_provider_m2p.warehouse.errors import lock_timed_out
from airflow_provider_m2p.warehouse.lookup import INCOMPLETE, Finder, Held, Others
from airflow_provider_m2p.warehouse.reading import ReadAgain
from airflow_provider_m2p.warehouse.table import DELETED_AT, RAW_HASH, ROW_HASH, TENANT, VALID_TO

_CELL, _ROW = "\x1e", "\x1f"
_LOOK_SECONDS = 300
_INDEX_COLUMNS = 32
#: Kinds whose values may come back from the database in another spelling: 1e3 is 1000 there.
_RESPELLED = (Kind.INSTANT, Kind.JSON, Kind.NUMBER)
#: Who the user is, and what he may do with a table, or with its schema if it does not exist. Also where, if no schema
#: was named, it, a table of its arrays or the books are found, although new tables are made in another schema.
_PRIVILEGES = sa.text("""
    SELECT current_user AS "user", n.nspname AS "schema", c.oid IS NOT NULL AS table_exists,
        has_database_privilege(current_database(), 'TEMPORARY') AS "TEMPORARY",
        has_schema_privilege(n.oid, 'CREATE') AS "CREATE",
        has_table_privilege(c.oid, 'SELECT') AS "SELECT", has_table_privilege(c.oid, 'INSERT') AS "INSERT",
        has_table_privilege(c.oid, 'UPDATE') AS "UPDATE", has_table_privilege(c.oid, 'DELETE') AS "DELETE",
        (
            SELECT min(o.nspname || '.' || e.relname)
            FROM pg_catalog.pg_class AS e JOIN pg_catalog.pg_namespace AS o ON o.oid = e.relnamespace
            WHERE CAST(:schema AS text) IS NULL AND (
                    e.relname IN (:table, '_m2p_columns', '_m2p_loads', '_m2p_staged')
                    OR (:children AND starts_with(e.relname, CAST(:table AS text) || '__') AND e.relkind IN ('r', 'p')
                        AND EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = e.oid AND attname = :tenant))
                ) AND e.relkind IN ('r', 'p', 'v', 'm', 'f') AND o.oid <> n.oid AND pg_table_is_visible(e.oid)
        ) AS elsewhere
    FROM (SELECT coalesce(CAST(:schema AS text), current_schema()) AS name) AS asked
    LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = asked.name
    LEFT JOIN pg_catalog.pg_class AS c
        ON c.relnamespace = n.oid AND c.relname = :table AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
""")
#: Columns of a table that take upper and lower case, or accents, for the same.
_LOSSY_COLLATIONS = sa.text("""
    WITH RECURSIVE made_of AS (
        SELECT attname, attcollation, atttypid AS oid FROM pg_catalog.pg_attribute
        WHERE attrelid = CAST(:table AS regclass) AND attname = ANY(:columns)
        UNION ALL
        SELECT attname, attcollation, typbasetype FROM made_of JOIN pg_catalog.pg_type USING (oid)
        WHERE typtype = 'd'
    )
    SELECT attname, CASE WHEN collisdeterministic THEN 'type citext' ELSE 'collation ' || collname END
    FROM made_of JOIN pg_catalog.pg_type USING (oid) JOIN pg_catalog.pg_collation AS c ON c.oid = attcollation
    WHERE NOT collisdeterministic OR typname = 'citext'
""")


class Postgres(Dialect):
    """PostgreSQL by psycopg 3 or psycopg2, whichever the engine uses."""

    stage_prefixes: ClassVar[Sequence[str]] = ("TEMPORARY",)
    # Where all tables are replicated, it is not: nobody could make it there before its rows come.
    review_prefixes: ClassVar[Sequence[str]] = ("UNLOGGED",)
    takes_lines: ClassVar[bool] = True
    # Who waited for the lock must see what its holder committed.
    isolation_level: ClassVar[str | None] = "READ COMMITTED"
    transactional_ddl: ClassVar[bool] = True
    # An index over rows that are there takes half the time of one that grows with them.
    adds_key_last: ClassVar[bool] = True
    locks: ClassVar[bool] = True
    max_columns: ClassVar[int] = 1600

    def __init__(self, connection: sa.Connection) -> None:
        super().__init__(connection)
        self._writer = ThreadPoolExecutor(1, "m2p-copy")
        self._copy: Copy | None = None
        self._copy_may_last = False
        self._asked: Future[Others] | None = None
        self._kept_as_text = {Kind.TEXT}
        settings = [sa.func.current_setting(name) for name in ("lock_timeout", "client_encoding")]
        found = connection.execute(sa.select(*settings, sa.func.coalesce(sa.func.current_schema(), ""))).one()
        self._lock_timeout: str = found[0]
        encoding: str = found[1]
        self._default_schema: str = found[2]
        if encoding != "UTF8":
            raise M2PConfigError(
                f"The connection's client_encoding is {encoding}, which does not have every character. Set it to utf8, "
                "in the connection's extra or for the user."
            )
        # Else a look at a table that somebody holds for himself takes for ever.
        if self._lock_timeout == "0":
            self.execute(f"SET lock_timeout = '{_LOOK_SECONDS}s'")
        connection.commit()

    @property
    def default_schema(self) -> str:
        # Not what the engine's first connection found: a session may have a search path of its own.
        return self._default_schema

    @property
    def name_limit(self) -> int:
        return 63

    def text_type(self, *, key: bool = False) -> sa.types.TypeEngine[Any]:
        # Keys are opaque: bytes are compared several times faster than words of a language.
        return sa.Text(collation="C") if key else sa.Text()

    def column_type(self, kind: Kind, *, key: bool = False) -> sa.types.TypeEngine[Any]:
        if kind is Kind.NUMBER:
            return sa.Numeric()
        if kind is Kind.JSON:
            return postgresql.JSONB()
        return super().column_type(kind, key=key)

    def add_key(self, table: sa.Table, columns: list[str]) -> None:
        # The next load looks every row up: with what it asks for in the index, it need not go to the table for it.
        also = [name for name in (DELETED_AT, VALID_TO, RAW_HASH, ROW_HASH) if name in table.c]
        key, included = (", ".join(map(self.quote, names)) for names in (columns, also))
        include = f" INCLUDE ({included})" if len(columns) + len(also) <= _INDEX_COLUMNS else ""
        self.execute(f"ALTER TABLE {self.qualified(table)} ADD PRIMARY KEY ({key}){include}")
        self._analyze(table, key, 1)

    def stage_type(self, kind: Kind, *, key: bool = False) -> sa.types.TypeEngine[Any]:
        # Values are parsed while the next page is fetched. Should that lose a text that is needed after all, the list
        # is read once more.
        return self.text_type(key=key) if kind in self._kept_as_text else self.column_type(kind, key=key)

    def convert(self, staged: sa.ColumnElement[Any], source: Kind, target: Kind) -> sa.ColumnElement[Any]:
        if source is not target and source in _RESPELLED and not isinstance(staged.type, sa.Text):
            self._lose_text(source)
        wanted = self.column_type(target)
        return staged if isinstance(staged.type, type(wanted)) else sa.cast(staged, wanted)

    def in_place(self) -> bool:
        # Where somebody limits how long a transaction may be idle, or last, a slow platform would end the load. And who
        # decodes the log, to replicate tables, would see the rows go into a table by the stage's name. Tables that are
        # published take no deletes of rows that came twice before they have a key.
        limits = ("idle_in_transaction_session_timeout", "transaction_timeout")
        others = ("wal_level", "statement_timeout")
        settings = [sa.func.current_setting(name, sa.true()) for name in (*limits, *others)]
        published = sa.select(sa.literal(1)).select_from(sa.table("pg_publication", schema="pg_catalog")).exists()
        with self.connection.begin():
            *seconds, wal_level, timeout, is_published = self.connection.execute(sa.select(*settings, published)).one()
        self._copy_may_last = timeout == "0"
        if wal_level == "logical" or is_published or any(setting not in (None, "0") for setting in seconds):
            return False
        self.connection.begin()
        return True

    def adopt(self, stage: sa.Table, table: sa.Table, names: dict[str, str], constants: dict[str, Any]) -> None:
        # None of these statements rewrites a row: a constant default is kept with the column, and of types only the
        # collation can differ.
        prefix = f"ALTER TABLE {self.qualified(stage)}"
        values = [sa.func.quote_literal(sa.literal(value, table.c[name].type)) for name, value in constants.items()]
        literals = self.connection.execute(sa.select(*values)).one()
        defaults = {name: f" DEFAULT {literal}" for name, literal in zip(constants, literals, strict=True)}
        adds = [
            f"ADD COLUMN {self.quote(column.name)} {self._spelled(column)}"
            f"{defaults.get(column.name, '')}{'' if column.nullable else ' NOT NULL'}"
            for column in table.columns
            if column.name not in names.values()
        ]
        self.execute(f"{prefix} {', '.join(adds)}")
        changes = [f"ALTER COLUMN {self.quote(name)} DROP DEFAULT" for name in constants]
        for name, new_name in names.items():
            before, after = self._spelled(stage.c[name]), self._spelled(table.c[new_name])
            if before != after:
                changes.append(f"ALTER COLUMN {self.quote(name)} TYPE {after}")
            if table.c[new_name].nullable and not stage.c[name].nullable:
                changes.append(f"ALTER COLUMN {self.quote(name)} DROP NOT NULL")
        self.execute(f"{prefix} {', '.join(changes)}")
        renames = [f"RENAME COLUMN {self.quote(name)} TO {self.quote(new)}" for name, new in names.items()]
        renames.append(f"RENAME TO {self.quote(table.name)}")
        with contextlib.closing(self._cursor()) as cursor:
            # psycopg 3 may be told to prepare every statement; prepared ones cannot be sent many at a time.
            options = {"prepare": False} if hasattr(cursor, "copy") else {}
            cursor.execute("; ".join(f"{prefix} {rename}" for rename in renames), **options)

    def _spelled(self, column: sa.Column[Any]) -> str:
        return str(column.type.compile(self.connection.dialect))

    def add_columns(self, table: sa.Table, columns: list[sa.Column[Any]]) -> None:
        if columns:
            additions = ", ".join(f"ADD COLUMN {self.specification(column)}" for column in columns)
            self.execute(f"ALTER TABLE {self.qualified(table)} {additions}")

    def widen_column(self, table: sa.Table, name: str, source: Kind, target: Kind, *, key: bool) -> None:
        value = self.stored_text(sa.column(name), source) if target is Kind.TEXT else sa.column(name)
        using = value.compile(dialect=self.connection.dialect, compile_kwargs={"literal_binds": True})
        new_type = self.column_type(target, key=key).compile(dialect=self.connection.dialect)
        self.execute(
            f"ALTER TABLE {self.qualified(table)} ALTER COLUMN {self.quote(name)} TYPE {new_type} USING {using}"
        )

    def stored_text(self, column: sa.ColumnElement[Any], kind: Kind) -> sa.ColumnElement[Any]:
        if kind is Kind.INSTANT:
            utc = sa.func.timezone(sa.literal_column("'UTC'"), column)
            return sa.func.to_char(utc, sa.literal_column('\'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\''))
        return sa.cast(column, sa.Text())

    def widen_staged(
        self, stage: sa.Table, column: sa.Column[Any], source: Kind, target: Kind, *, key: bool
    ) -> None:
        wanted = self.stage_type(target)
        if type(column.type) is type(wanted):
            return
        if source in _RESPELLED and self.connection.scalar(sa.select(sa.exists().where(column.is_not(None)))):
            self._lose_text(source)
        self.execute("SET LOCAL datestyle = 'ISO'")
        staged_as = Kind.TEXT if isinstance(wanted, sa.Text) else target
        self.widen_column(stage, column.name, source, staged_as, key=key)

    def _lose_text(self, kind: Kind) -> NoReturn:
        self._kept_as_text.add(kind)
        raise ReadAgain(f"A column of {kind.value} values was found to hold others, too, so that their texts matter.")

    def stop(self) -> None:
        if self._copy is not None:
            self._copy.end()
        self._writer.shutdown()

    def close(self) -> None:
        if self._lock_timeout == "0":
            with self.connection.begin():
                self.execute("SET lock_timeout = 0")

    def ask(self, look_up: Callable[[], Others]) -> Callable[[], Others]:
        # The writer's thread has the connection. It answers while the caller reads the page before.
        asked = self._asked = self._writer.submit(look_up)
        return asked.result

    def settle(self) -> None:
        if self._asked is not None:
            wait([self._asked])  # what went wrong with it is for him who asked
        if self._copy is not None:
            self._copy.end()
            # By way of the writer's thread: once it tells, it has let go of the connection, whatever interrupted whom.
            self._writer.submit(self._copy.result).result()
            self._copy = None

    def write_lines(
        self, stage: sa.Table, columns: list[sa.Column[Any]], lines: list[bytes], *, in_place: bool
    ) -> None:
        names = ", ".join(self.quote(column.name) for column in columns)
        # Rows of a new table are written as a vacuum would leave them. Else the next load had to write to every page.
        options = "ENCODING 'UTF8', FREEZE" if in_place else "ENCODING 'UTF8'"
        statement = f"COPY {self.qualified(stage)} ({names}) FROM STDIN ({options})"
        if self._copy is None or self._copy.ended or self._copy.statement != statement:
            self.settle()
            self._copy = Copy(statement, self.step, self._cursor)
            self._copy.start(self._writer)
        # The server parses one batch of rows while the next is made.
        self._copy.write(lines)
        # Each COPY extends a new table by pages that it may not need, and that nobody fills before the next vacuum. So
        # one takes all rows; but not if it may be ended for taking long.
        if not (in_place and self._copy_may_last):
            self._copy.end()

    def _cursor(self) -> Any:
        driver = self.connection.connection.driver_connection
        if driver is None or not hasattr(driver, "cursor"):
            raise M2PLoadError("The connection to PostgreSQL is gone.")
        return driver.cursor()

    def prepare_stage(self, stage: sa.Table, keys: list[sa.ColumnElement[Any]]) -> None:
        # Joins by hash need no index. But unless the planner knows how few rows are whole, it reads the table for them.
        self._analyze(stage, "raw_hash", 30)

    def _analyze(self, table: sa.Table, columns: str, target: int) -> None:
        """Tell the planner what columns hold, from 300 times ``target`` rows."""
        self.execute(f"SET LOCAL default_statistics_target = {target}")
        self.execute(f"ANALYZE {self.qualified(table)} ({columns})")

    def expect_many(self) -> None:
        # For the one row that it expects of a new load it would read the whole stage, and then again for each.
        self.execute("SET LOCAL enable_nestloop = off")

    def finder(self, held: Held, stage: sa.Table, staged_keys: list[sa.Column[Any]], *, incomplete: bool) -> Finder:
        table, keys = held.table, held.keys
        # One text goes there for each key, and little comes back: drivers spend more on values than the server on the
        # look-up. The server itself stages what it has.
        types = [*(key.type for key in keys), sa.Text()]
        arrays = [
            sa.cast(sa.func.string_to_array(sa.bindparam(f"text{n}"), _ROW), postgresql.ARRAY(text_type))
            for n, text_type in enumerate(types)
        ]
        names = [f"text{n}" for n in range(len(types))]
        asked = sa.func.unnest(*arrays).table_valued(*names, with_ordinality="n").render_derived()
        labelled = [key.label(f"key{n}") for n, key in enumerate(keys)]
        columns = [*labelled, table.c._m2p_raw_hash, table.c._m2p_row_hash]
        if len(keys) == 1:
            # One walk along the index finds all keys. The planner, which guesses how few they are, is kept from others:
            # by the offset, and by a full join, which it cannot do by a loop in a loop. It has no more rows than asked.
            one_of = sa.select(*columns).where(held.where, keys[0] == sa.any_(arrays[0]))
            known: sa.FromClause = one_of.offset(sa.literal_column("0")).subquery("known")
            pairs = asked.join(known, known.c.key0 == asked.c.text0, full=True)
        else:
            # The limit keeps it to one look into the index for each.
            each = sa.select(*columns).where(held.where, *(key == asked.c[f"text{n}"] for n, key in enumerate(keys)))
            known = each.limit(1).lateral("known")
            pairs = asked.outerjoin(known, sa.true())
        has = known.c._m2p_raw_hash
        is_same = (sa.func.left(has, -1) + INCOMPLETE if incomplete else has) == asked.c[names[-1]]
        answered = sa.select(asked.c.n, is_same.label("is_same"), known)
        found = answered.select_from(pairs).cte("found")
        same = sa.select(
            sa.bindparam("first", type_=sa.BigInteger) + found.c.n - 1,
            found.c._m2p_row_hash,
            *(found.c[key.name] for key in labelled),
        ).where(found.c.is_same)
        into = [stage.c._m2p_ord, stage.c.row_hash, *staged_keys]
        staged = sa.insert(stage).from_select(into, same).returning(sa.literal(1).label("one")).cte("staged")
        other = sa.func.concat_ws(_CELL, found.c.n - 1, sa.func.coalesce(found.c._m2p_row_hash, ""))
        others = sa.select(sa.func.string_agg(other, _ROW)).where(found.c.is_same.is_not(True)).scalar_subquery()
        select = sa.select(sa.select(sa.func.count()).select_from(staged).scalar_subquery(), others)

        def find(first: int, wanted: list[Key], hashes: list[str]) -> Others:
            count = len(wanted)
            texts = [_ROW.join(part) for part in (*zip(*wanted, strict=True), hashes)]
            if any(not text or text.count(_ROW) != count - 1 or "\x00" in text for text in texts):
                return dict.fromkeys(range(count), "")  # hostile keys take the long way
            with self.step():
                parameters = {"first": first, **dict(zip(names, texts, strict=True))}
                seen, text = self.connection.execute(select, parameters).one()
            rows = (row.split(_CELL) for row in text.split(_ROW)) if text else ()
            answer = {int(place): row_hash for place, row_hash in rows}
            if seen + len(answer) != count:
                raise M2PLoadError(
                    f"Of {count} rows looked up, PostgreSQL answered for {seen + len(answer)}. Nothing was written."
                )
            return answer

        return find

    def check(self, table: sa.Table, *, with_children: bool) -> None:
        asked = {"schema": table.schema, "table": table.name, "children": with_children, "tenant": TENANT}
        row = self.connection.execute(_PRIVILEGES, asked).one()
        if row.schema is None:
            raise M2PWarehouseAccessError(f"The schema {table.schema!r} does not exist. Create it, or name another.")
        if row.elsewhere is not None:
            raise M2PConfigError(
                f"The search_path of this connection leads to {row.elsewhere}, but new tables are made in schema "
                f"{row.schema!r}. Name the schema of {table.name!r} (schema)."
            )
        name = self.qualified(sa.Table(table.name, sa.MetaData(), schema=row.schema))
        needed = {"TEMPORARY": f"the database, which loads into {name} need"}
        if row.table_exists:
            needed |= dict.fromkeys(("SELECT", "INSERT", "UPDATE", "DELETE"), f"table {name}")
        else:
            needed["CREATE"] = f"schema {row.schema!r}"
        for privilege, on in needed.items():
            if not row._mapping[privilege]:
                raise M2PWarehouseAccessError(f"The user {row.user!r} lacks the privilege {privilege} on {on}.")

    def _find_lossy_collation(self, table: sa.Table, columns: list[str]) -> tuple[str, str, str] | None:
        found = self.connection.execute(_LOSSY_COLLATIONS, {"table": self.qualified(table), "columns": columns}).first()
        return None if found is None else (found[0], found[1], 'text COLLATE "C"')

    @contextlib.contextmanager
    def looking(self, lock: str) -> Iterator[None]:
        with super().looking(lock):
            self.execute("SET LOCAL datestyle = 'ISO'")  # psycopg reads no other
            yield

    @contextlib.contextmanager
    def transaction(self, lock: str, seconds: float) -> Iterator[None]:
        number = int.from_bytes(hashlib.sha256(lock.encode()).digest()[:8], signed=True)
        with self.connection.get_transaction() or self.connection.begin():
            self.execute(f"SET LOCAL lock_timeout = {int(seconds * 1000)}")
            self.execute("SET LOCAL datestyle = 'ISO'")  # dates become text, and psycopg reads no other style
            try:
                self.connection.execute(sa.select(sa.func.pg_advisory_xact_lock(number)))
            except sa.exc.OperationalError as error:
                if not lock_timed_out(error):
                    raise
                raise M2PLoadError(
                    f"Another load held {lock} for more than {seconds:.0f} s. Nothing was written; run the task again."
                ) from error
            if self._lock_timeout != "0":
                # Who reads a table waits behind those who wait to change it: how long is the database's to say.
                self.execute(f"SET LOCAL lock_timeout = '{self._lock_timeout}'")
            yield

    def refuse_unstorable(self, lines: list[bytes], columns: list[str], json_columns: set[int], page: int) -> None:
        """Refuse NUL characters, which neither TEXT nor JSONB can hold."""
        guilty: dict[str, int] = {}
        for line in lines:
            if b"\x00" in line or b"u0000" in line:
                for index, cell in enumerate(line.decode().split("\t")):
                    if "\x00" in cell or (index in json_columns and _holds_nul(cell)):
                        guilty[columns[index]] = guilty.get(columns[index], 0) + 1
        if guilty:
            where = ", ".join(f"{name} ({count} rows)" for name, count in sorted(guilty.items()))
            raise M2PSchemaError(
                f"Page {page} holds NUL characters, which PostgreSQL cannot store: {where}. Nothing was written. "
                "Have the values corrected on the platform, or load into another database."
            )


def _holds_nul(cell: str) -> bool:
    r"""Tell whether a JSON text, with its backslashes doubled as in a line, holds the escape ``\u0000``."""
    parts = cell.replace("\\\\", "\\").split("\\u0000")
    return any((len(part) - len(part.rstrip("\\"))) % 2 == 0 for part in parts[:-1])
