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
            batches.append(_batch(reader, page))
            rows += len(page.rows)
            if max_rows is not None and rows > max_rows:
                raise ValueError(f"more than {max_rows} rows")
    nullable = {Kind.BOOL: pd.BooleanDtype(), Kind.INT: pd.Int64Dtype()}
    frame: dict[str, Any] = {}
    for place, (name, kind) in enumerate(_columns(reader.shape)):
        arrow_type = _arrow_type(kind)
        column = pa.chunked_array([_column(batch, place, arrow_type) for batch in batches], arrow_type)
        if kind is Kind.NUMBER:
            try:
                frame[name] = _decimals(column)
            except ArithmeticError as error:
                raise M2PResponseError(f"Column {name!r} has a number that no Decimal can hold.") from error
        elif kind in nullable:
            frame[name] = column.to_pandas(types_mapper=lambda _, dtype=nullable[kind]: dtype)
        else:
            # Given a mapper, even one that maps nothing, pyarrow copies texts twice, by way of Python's.
            frame[name] = column.to_pandas()
    return pd.DataFrame(frame, index=pd.RangeIndex(rows))


def write_parquet(pages: Pages, path: WritablePath) -> int:
    """
    Write all rows to one Parquet file, holding one page in memory, and return how many there were.

    The types of the columns are known only after the last page. So the pages are set down in a local temporary file
    first, in the types that the rows so far allow; the file at ``path`` is written at the end, whole.

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
                batch = _batch(reader, page)
                _measure(batch, reader.shape, digits)
                with pa.ipc.new_stream(spool, batch.schema) as stream:
                    stream.write_batch(batch)
        columns = _columns(reader.shape)
        types = [_arrow_type(kind, digits.get(place, (0, 0))) for place, (_, kind) in enumerate(columns)]
        schema = pa.schema([(name, arrow_type) for (name, _), arrow_type in zip(columns, types, strict=True)])
        with pq.ParquetWriter(finished, schema) as writer:
            for batch in _batches(spool):
                typed = [_column(batch, place, field.type) for place, field in enumerate(schema)]
                writer.write_batch(pa.record_batch(typed, schema=schema))
                rows += batch.num_rows
        finished.seek(0)
        with path.open("wb") as out:
            shutil.copyfileobj(finished, out, 1 << 20)
    return rows


def _columns(shape: Shape) -> list[tuple[str, Kind]]:
    named = names.assign([column.path for column in shape.columns], {}, _NO_LIMIT)
    return [(named[column.path], kind) for column in shape.columns if (kind := column.kind) is not None]


def _batch(reader: RowReader, page: Page) -> pa.RecordBatch:
    """Return a page as columns of whole numbers, truths and texts: what the rows so far allow."""
    import pyarrow as pa

    types = {int: pa.int64(), bool: pa.bool_(), str: pa.large_string()}
    arrays = [pa.array(values, types[kind]) for kind, values in reader.read_columns(page.rows, page.number)]
    # The count of rows must survive where there is no column yet.
    arrays.append(pa.nulls(len(page.rows)))
    return pa.record_batch(arrays, [f"c{place}" for place in range(len(arrays))])


def _column(batch: pa.RecordBatch, place: int, arrow_type: pa.DataType) -> pa.Array:
    """Return a column of a page as another type, all null if the page came before the column."""
    import pyarrow as pa

    if place >= batch.num_columns - 1:
        return pa.nulls(batch.num_rows, arrow_type)
    column = batch.column(place)
    if pa.types.is_integer(column.type) and pa.types.is_decimal(arrow_type):
        # pyarrow wants room for the 19 digits that such a number might have, whether it has them or not.
        column = column.cast(pa.large_string())
    return column if column.type == arrow_type else column.cast(arrow_type)


def _decimals(texts: pa.ChunkedArray) -> pd.Series[Any]:
    """Return numbers as decimals; equal ones, which are many in a list of products, are one object."""
    import numpy as np
    import pandas as pd

    encoded = texts.dictionary_encode().combine_chunks()
    distinct = np.array([*map(Decimal, encoded.dictionary.to_pylist()), None], dtype=object)
    return pd.Series(distinct[encoded.indices.fill_null(len(distinct) - 1).to_numpy()], dtype=object)


def _batches(spool: BinaryIO) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    size = spool.seek(0, 2)
    spool.seek(0)
    while spool.tell() < size:
        with pa.ipc.open_stream(spool) as stream:
            yield from stream


def _measure(batch: pa.RecordBatch, shape: Shape, digits: dict[int, tuple[int, int]]) -> None:
    """Note how many digits before and after the point the numbers of each column need."""
    import pyarrow as pa

    for place, column in enumerate(shape.columns):
        # What is whole so far may yet share its column with fractions.
        if column.kind in (Kind.INT, Kind.NUMBER):
            whole, fraction = digits.get(place, (0, 0))
            for text in _column(batch, place, pa.large_string()).drop_null().unique().to_pylist():
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
