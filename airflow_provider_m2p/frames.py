"""
Rows as a pandas DataFrame or a Parquet file, with the columns and the exactness that the warehouse has.

Numbers with a fraction are ``Decimal`` (in Parquet a decimal type wide enough for the column, else text), integers
nullable, instants in UTC, arrays JSON texts. No number passes through a binary float.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

from airflow_provider_m2p.columns import names
from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.columns.reader import RowReader
from airflow_provider_m2p.columns.shape import Shape
from airflow_provider_m2p.exceptions import M2PResponseError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from airflow_provider_m2p.client.page import Page

_MAX_DIGITS: Final = 76
_NO_LIMIT: Final = 1 << 16
_PLAIN: Final = re.compile(r"-?(\d+)(?:\.(\d+))?")


class WritablePath(Protocol):
    """What is needed of a path: ``pathlib.Path`` and Airflow's ``ObjectStoragePath`` have it."""

    def open(self, mode: str) -> Any: ...


class Pages(Protocol):
    """What is needed of pages: a stream of them has it, and a generator."""

    def __iter__(self) -> Iterator[Page]: ...

    def close(self) -> None: ...


def to_dataframe(pages: Pages, *, max_rows: int | None = None) -> pd.DataFrame:
    """
    Return all rows as one DataFrame.

    :param pages: closed at the end.
    :param max_rows: the most rows that may be held in memory.
    :raises M2PResponseError: a row cannot be understood.
    :raises ValueError: there are more rows than ``max_rows``.
    """
    import pandas as pd
    import pyarrow as pa

    reader = RowReader(Shape())
    batches: list[pa.RecordBatch] = []
    rows = 0
    with closing(pages):
        for page in pages:
            batches.append(_texts(reader, page))
            rows += len(page.rows)
            if max_rows is not None and rows > max_rows:
                raise ValueError(f"more than {max_rows} rows")
    frame: dict[str, Any] = {}
    for place, (name, kind) in enumerate(_columns(reader.shape)):
        column = pa.chunked_array([_column(batch, place) for batch in batches], pa.large_string())
        if kind is Kind.NUMBER:
            try:
                values = [None if text is None else Decimal(text) for text in column.to_pylist()]
            except ArithmeticError as error:
                raise M2PResponseError(f"Column {name!r} has a number that no Decimal can hold.") from error
            frame[name] = pd.Series(values, dtype=object)
        else:
            frame[name] = _cast(column, _arrow_type(kind)).to_pandas(types_mapper=_nullable().get)
    return pd.DataFrame(frame, index=pd.RangeIndex(rows))


def write_parquet(pages: Pages, path: WritablePath) -> int:
    """
    Write all rows to one Parquet file, holding one page in memory, and return how many there were.

    The types of the columns are known only after the last page. So the pages are set down as text in a local
    temporary file first; the file at ``path`` is written at the end, whole.

    :param pages: closed at the end.
    :param path: where the file goes; whatever is there is replaced.
    :raises M2PResponseError: a row cannot be understood.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    reader = RowReader(Shape())
    digits: dict[int, tuple[int, int]] = {}
    rows = 0
    with tempfile.TemporaryFile() as spool, tempfile.TemporaryFile() as finished:
        with closing(pages):
            for page in pages:
                batch = _texts(reader, page)
                _measure(batch, reader.shape, digits)
                with pa.ipc.new_stream(spool, batch.schema) as stream:
                    stream.write_batch(batch)
        columns = _columns(reader.shape)
        types = [_arrow_type(kind, digits.get(place, (0, 0))) for place, (_, kind) in enumerate(columns)]
        schema = pa.schema([(name, arrow_type) for (name, _), arrow_type in zip(columns, types, strict=True)])
        spool.seek(0)
        with pq.ParquetWriter(finished, schema) as writer:
            for batch in _batches(spool):
                typed = [_cast(_column(batch, place), field.type) for place, field in enumerate(schema)]
                writer.write_batch(pa.record_batch(typed, schema=schema))
                rows += batch.num_rows
        finished.seek(0)
        with path.open("wb") as out:
            shutil.copyfileobj(finished, out, 1 << 20)
    return rows


def _columns(shape: Shape) -> list[tuple[str, Kind]]:
    named = names.assign([column.path for column in shape.columns], {}, _NO_LIMIT)
    return [(named[column.path], kind) for column in shape.columns if (kind := column.kind) is not None]


def _texts(reader: RowReader, page: Page) -> pa.RecordBatch:
    """Return a page as columns of texts."""
    import pyarrow as pa

    cells = reader.read(page.rows, page.number, lines=False, has_escapes=page.has_escapes).cells
    texts = [pa.array(column, pa.large_string()) for column in zip(*cells, strict=True)]
    # The count of rows must survive where there is no column yet.
    texts.append(pa.nulls(len(page.rows)))
    return pa.record_batch(texts, [f"c{place}" for place in range(len(texts))])


def _column(batch: pa.RecordBatch, place: int) -> pa.Array:
    """Return a column of a page, all null if the page came before the column."""
    import pyarrow as pa

    return batch.column(place) if place < batch.num_columns - 1 else pa.nulls(batch.num_rows, pa.large_string())


def _batches(spool: BinaryIO) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    size = spool.seek(0, 2)
    spool.seek(0)
    while spool.tell() < size:
        with pa.ipc.open_stream(spool) as stream:
            yield from stream


def _measure(batch: pa.RecordBatch, shape: Shape, digits: dict[int, tuple[int, int]]) -> None:
    """Note how many digits before and after the point the numbers of each column need."""
    for place, column in enumerate(shape.columns):
        if column.kind is Kind.NUMBER:
            whole, fraction = digits.get(place, (0, 0))
            for text in _column(batch, place).drop_null().to_pylist():
                match = _PLAIN.fullmatch(text)
                if match is None:
                    whole = _MAX_DIGITS + 1  # an exponent: no bound that is worth a type
                    break
                whole = max(whole, len(match[1]))
                fraction = max(fraction, len(match[2] or ""))
            digits[place] = whole, fraction


def _arrow_type(kind: Kind, digits: tuple[int, int] = (_MAX_DIGITS, 1)) -> pa.DataType:
    import pyarrow as pa

    if kind is Kind.NUMBER and sum(digits) <= _MAX_DIGITS:
        return pa.decimal128(38, digits[1]) if sum(digits) <= 38 else pa.decimal256(_MAX_DIGITS, digits[1])
    types = {
        Kind.BOOL: pa.bool_(),
        Kind.INT: pa.int64(),
        Kind.DATE: pa.date32(),
        Kind.INSTANT: pa.timestamp("us", "UTC"),
    }
    return types.get(kind, pa.large_string())


def _cast(texts: pa.Array | pa.ChunkedArray, arrow_type: pa.DataType) -> Any:
    return texts if texts.type == arrow_type else texts.cast(arrow_type)


def _nullable() -> dict[pa.DataType, Any]:
    import pandas as pd
    import pyarrow as pa

    return {pa.bool_(): pd.BooleanDtype(), pa.int64(): pd.Int64Dtype()}
