"""Lists of rows as the client would hand them over, and a warehouse to load them into."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import sqlalchemy as sa

from airflow_provider_m2p.client.page import Page
from airflow_provider_m2p.warehouse import Loader
from airflow_provider_m2p.warehouse.dialect import Dialect
from airflow_provider_m2p.warehouse.spec import LoadSpec

_encode = msgspec.json.Encoder(decimal_format="number").encode

Rows = Sequence[dict[str, Any]] | bytes


def encode(rows: Rows) -> bytes:
    """Return rows as the platform would send them; ``Decimal`` is spelled out."""
    return rows if isinstance(rows, bytes) else _encode(rows)


class Pages:
    """
    A :class:`PageStream` of plain lists, or of bytes where the spelling matters.

    :param second: pages of a second reading; the same unless given.
    """

    def __init__(
        self,
        pages: Sequence[Rows],
        *,
        complete: bool = True,
        total_rows: int | None = None,
        second: Sequence[Rows] | None = None,
    ) -> None:
        self._pages = [encode(page) for page in pages]
        self._second = pages if second is None else second
        self.read_again: Pages | None = None
        self.digest = b",".join(self._pages).hex()
        self.complete = complete
        self.total_rows = total_rows
        self.total_changed = False
        self.pages = self.rows = 0
        self.closed = False

    def __iter__(self) -> Iterator[Page]:
        for number, page in enumerate(self._pages):
            rows = msgspec.json.decode(page, type=list[msgspec.Raw])
            self.pages += 1
            self.rows += len(rows)
            total_pages = None if self.total_rows is None else len(self._pages)
            yield Page(number, rows, self.total_rows, total_pages, f"request-{number}", b"\\" in page)

    def close(self) -> None:
        self.closed = True

    def again(self) -> Pages:
        assert self.read_again is None
        self.read_again = Pages(self._second, complete=self.complete, total_rows=self.total_rows)
        return self.read_again


class Warehouse:
    """
    A database and a way to load it.

    :param way: ``sqlite``, ``mariadb``, ``psycopg`` or ``psycopg2`` (PostgreSQL), ``portable`` (PostgreSQL by the portable way).
    """

    def __init__(self, way: str, url: sa.URL, **options: Any) -> None:
        self.way = way
        self.url = url
        self.engine = sa.create_engine(url, **options)
        self.dialect = Dialect if way == "portable" else None
        self._loads = 0

    def close(self) -> None:
        self.engine.dispose()

    @property
    def is_postgres(self) -> bool:
        return self.way in ("psycopg", "psycopg2", "portable")

    def loader(self, *, lock_seconds: float = 30, **spec: Any) -> Loader:
        self._loads += 1
        named = {"table": "products", "tenant_id": "ACME_CORP", "load_id": f"load-{self._loads}", "key_columns": ("id",)}
        return Loader(self.engine, LoadSpec(**(named | spec)), dialect=self.dialect, lock_seconds=lock_seconds)

    def load(
        self,
        *pages: Rows,
        complete: bool = True,
        total_rows: int | None = None,
        second: Sequence[Rows] | None = None,
        lock_seconds: float = 30,
        **spec: Any,
    ) -> dict[str, Any]:
        """Load pages and return the result."""
        stream = Pages(pages, complete=complete, total_rows=total_rows, second=second)
        try:
            return self.loader(lock_seconds=lock_seconds, **spec).run(stream).as_dict()
        finally:
            assert stream.closed
            assert stream.read_again is None or stream.read_again.closed

    def execute(self, statement: str, **parameters: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement), parameters)

    def table(self, name: str = "products") -> sa.Table:
        return sa.Table(name, sa.MetaData(), autoload_with=self.engine)

    def tables(self) -> set[str]:
        return set(sa.inspect(self.engine).get_table_names())

    def read(self, name: str = "products", *, meta: bool = False, **where: Any) -> list[dict[str, Any]]:
        """Return a table's rows with values as the database's types give them; without the meta columns unless asked."""
        table = self.table(name)
        # JSON as its text: drivers make its numbers binary floats.
        texts = [sa.cast(c, sa.Text).label(c.name) if isinstance(c.type, sa.JSON) and self.is_postgres else c for c in table.c]
        select = sa.select(*(sa.type_coerce(c, sa.Text) if isinstance(c.type, sa.JSON) else c for c in texts))
        for column, value in where.items():
            select = select.where(table.c[column] == value)
        with self.engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(select).mappings()]
        rows.sort(key=lambda row: str([row.get(k) for k in ("_m2p_tenant_id", "id", "_m2p_valid_from", "_m2p_position")]))
        return rows if meta else [{k: v for k, v in row.items() if not k.startswith("_m2p_")} for row in rows]

    def fields(self, name: str = "products") -> dict[tuple[str, ...], str]:
        """Return the columns of data by the fields they hold, as the books have them."""
        with self.engine.connect() as connection:
            table = sa.Table("_m2p_columns", sa.MetaData(), autoload_with=self.engine)
            rows = connection.execute(sa.select(table.c.path, table.c.column_name).where(table.c.table_name == name))
            return {tuple(json.loads(path)): column for path, column in rows}

    def loads(self) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            table = sa.Table("_m2p_loads", sa.MetaData(), autoload_with=self.engine)
            return [dict(row) for row in connection.execute(sa.select(table).order_by(table.c.finished_at)).mappings()]


def counts(result: dict[str, Any]) -> tuple[int, ...]:
    """Return inserted, updated, unchanged and deleted."""
    return tuple(result[name] for name in ("inserted", "updated", "unchanged", "deleted"))


def number(value: Any) -> Decimal | None:
    """Return a number that a database may give as number or, exact, as text."""
    return None if value is None else Decimal(value)


def in_utc(value: datetime | None) -> datetime | None:
    """Return an instant; databases without time zones have it in UTC."""
    return value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC) if value else None
