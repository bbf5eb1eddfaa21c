from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.columns.names import assign
from airflow_provider_m2p.exceptions import M2PResponseError
from airflow_provider_m2p.frames import to_dataframe, write_parquet
from tests.integration.warehouse.streams import Pages, Rows
from tests.unit.columns.documents import (
    ROWS,
    Object,
    date_of,
    instant_of,
    kind,
    leaves,
    normal,
    parse,
    plain,
    spell,
)

ROW = (
    b'{"id":"a","no":12345678901234567,"big":12345678901234567890,"fee":8500.00,"on":true,"day":"2025-09-25",'
    b'"at":"2025-09-25T06:53:54.5+05:30","limits":{"daily":1e400},"tags":["x",1.10],"mixed":1}'
)
OTHER = b'{"id":"b","fee":-0.125,"mixed":"x","new":null}'


def frame(*pages: Rows, **options: Any) -> pd.DataFrame:
    stream = Pages(pages)
    try:
        return to_dataframe(stream, **options)
    finally:
        assert stream.closed


def parquet(path: Path, *pages: Rows) -> pa.Table:
    stream = Pages(pages)
    rows = write_parquet(stream, path)
    assert stream.closed
    table = pq.read_table(path)
    assert table.num_rows == rows
    return table


@pytest.mark.parametrize("pages", [[b"[" + ROW + b"," + OTHER + b"]"], [b"[" + ROW + b"]", b"[]", b"[" + OTHER + b"]"]])
def test_a_frame_has_exact_types(pages: list[bytes]) -> None:
    df = frame(*pages)
    assert df.dtypes.astype(str).to_dict() | {"id": "", "day": "", "tags": "", "mixed": ""} == {
        "id": "",
        "no": "Int64",
        "big": "object",
        "fee": "object",
        "on": "boolean",
        "day": "",
        "at": "datetime64[us, UTC]",
        "limits__daily": "object",
        "tags": "",
        "mixed": "",
    }
    first, second = df.iloc[0], df.iloc[1]
    assert first["no"] == 12345678901234567
    assert (str(first["big"]), str(first["fee"]), str(second["fee"])) == ("12345678901234567890", "8500.00", "-0.125")
    assert first["at"] == dt.datetime(2025, 9, 25, 1, 23, 54, 500000, tzinfo=dt.UTC)
    assert first["day"] == dt.date(2025, 9, 25)
    assert first["limits__daily"] == Decimal("1e400")
    assert first["tags"] == '["x",1.10]'
    assert list(df["mixed"]) == ["1", "x"]
    assert all(pd.isna(second[name]) or second[name] is None for name in ("no", "big", "on", "day", "at", "tags"))


def test_parquet_has_exact_types(tmp_path: Path) -> None:
    table = parquet(tmp_path / "x.parquet", b"[" + ROW + b"]", b"[]", b"[" + OTHER + b"]", b"[{}]")
    assert [str(field.type) for field in table.schema] == [
        "large_string",
        "int64",
        "decimal128(38, 0)",
        "decimal128(38, 3)",
        "bool",
        "date32[day]",
        "timestamp[us, tz=UTC]",
        "large_string",  # an exponent fits no decimal type
        "large_string",
        "large_string",
    ]
    assert table.column("fee").to_pylist() == [Decimal("8500.00"), Decimal("-0.125"), None]
    assert table.column("limits__daily").to_pylist() == ["1e400", None, None]


@pytest.mark.parametrize(
    ("numbers", "arrow_type"),
    [
        (["0." + "1" * 38], "decimal256(76, 38)"),
        (["1" * 38 + ".0"], "decimal256(76, 1)"),
        (["1" * 37 + ".0"], "decimal128(38, 1)"),
        (["1" * 40, "0." + "1" * 36], "decimal256(76, 36)"),
        (["1" * 41, "0." + "1" * 36], "large_string"),
        (["-5", "0." + "1" * 20], "decimal128(38, 20)"),
        (["1.25", "12.5"], "decimal128(38, 2)"),
        ([str(2**63 - 1), "0." + "1" * 57], "decimal256(76, 57)"),
        (["5", "0." + "1" * 75], "decimal256(76, 75)"),
        (["1" * 77], "large_string"),
        (["1.5", "1e2"], "large_string"),
    ],
)
def test_decimals_are_as_wide_as_all_of_the_column(tmp_path: Path, numbers: list[str], arrow_type: str) -> None:
    table = parquet(tmp_path / "x.parquet", *(b'[{"n":%s}]' % n.encode() for n in numbers))
    assert str(table.schema.field("n").type) == arrow_type
    assert [Decimal(n) for n in table.column("n").to_pylist()] == [Decimal(n) for n in numbers]


def test_whole_numbers_before_the_first_fraction_keep_their_digits(tmp_path: Path) -> None:
    numbers = [str(2**63 - 1), str(-(2**63)), "0." + "1" * 37]
    pages = [b'[{"n":%s}]' % number.encode() for number in numbers]
    table = parquet(tmp_path / "x.parquet", *pages)
    assert str(table.schema.field("n").type) == "decimal256(76, 37)"
    assert table.column("n").to_pylist() == [Decimal(number) for number in numbers]
    assert [str(number) for number in frame(*pages)["n"]] == numbers


@pytest.mark.parametrize(
    ("first", "then", "texts"),
    [
        ("true", '"x"', ["true", "x"]),
        ("12345678901234567", '"x"', ["12345678901234567", "x"]),
        ("1.00", "true", ["1.00", "true"]),
        ("1e5", '"x"', ["1e5", "x"]),
        ('"2025-09-25T06:53:54.5+05:30"', "1", ["2025-09-25T06:53:54.5+05:30", "1"]),
        ('"2025-09-25"', '"2025-09-25T06:53:54Z"', ["2025-09-25", "2025-09-25T06:53:54Z"]),
    ],
)
def test_a_column_that_becomes_text_shows_earlier_values_as_sent(
    tmp_path: Path, first: str, then: str, texts: list[str]
) -> None:
    pages = [b'[{"a":%s}]' % value.encode() for value in (first, then)]
    assert list(frame(*pages)["a"]) == texts
    assert parquet(tmp_path / "x.parquet", *pages).column("a").to_pylist() == texts


def test_numbers_are_spelled_as_sent() -> None:
    numbers = ["18.00", "18.0", "18", "-0.0", "1E+2", "100", "18.00", "0.0000001"]
    df = frame(b"[%s]" % b",".join(b'{"n":%s}' % number.encode() for number in numbers))
    assert [n.as_tuple() for n in df["n"]] == [Decimal(number).as_tuple() for number in numbers]


def test_a_frame_can_be_written_to() -> None:
    df = frame(b"[" + ROW + b"," + ROW + b"]")
    for name in df:
        df.loc[0, name] = None
    assert df.loc[0].isna().all()
    assert df.loc[1].notna().all()


def test_an_empty_list_is_an_empty_frame_and_an_empty_file(tmp_path: Path) -> None:
    assert frame().shape == (0, 0)
    assert frame(b"[]", b"[]").shape == (0, 0)
    assert parquet(tmp_path / "x.parquet", b"[]").shape == (0, 0)


def test_rows_without_a_field_are_counted(tmp_path: Path) -> None:
    assert parquet(tmp_path / "x.parquet", b"[{},{}]", b'[{"a":1}]').column("a").to_pylist() == [None, None, 1]
    assert list(frame(b"[{},{}]", b'[{"a":1}]')["a"].isna()) == [True, True, False]


def test_columns_have_the_names_of_the_warehouse() -> None:
    assert list(frame(b'[{"productId":1,"product_id":2,"limits":{"dailyATM":1}}]')) == [
        "product_id",
        *assign([("product_id",)], {"product_id": ("productId",)}, 63).values(),
        "limits__daily_atm",
    ]


def test_no_more_rows_than_memory_may_hold() -> None:
    assert len(frame(b"[{},{}]", max_rows=2)) == 2
    with pytest.raises(ValueError, match="more than 2 rows"):
        frame(b"[{},{}]", b"[{}]", max_rows=2)


def test_a_bad_row_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(M2PResponseError, match="Page 1, row 0 is not an object"):
        parquet(tmp_path / "x.parquet", b"[{}]", b"[1]")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_replaced_only_when_all_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    parquet(path, b'[{"a":1}]')
    with pytest.raises(M2PResponseError):
        write_parquet(Pages([b'[{"a":2}]', b"[1]"]), path)
    assert pq.read_table(path).to_pylist() == [{"a": 1}]


class Memory:
    """A path as Airflow's ``ObjectStoragePath``: all it can do is open."""

    def __init__(self) -> None:
        self.content = b""

    def open(self, mode: str) -> Any:
        assert mode == "wb"
        memory = self

        class File(io.BytesIO):
            def close(self) -> None:
                memory.content = self.getvalue()
                super().close()

        return File()


def expected(value: Any, column: Kind, exponents: bool) -> Any:
    """Return a model's value as Parquet gives it back."""
    if value is None:
        return None
    if column is Kind.NUMBER:
        return Decimal(value.text)
    if column is Kind.INT:
        return int(value.text)
    if column is Kind.DATE:
        return date_of(value)
    if column is Kind.INSTANT:
        return instant_of(value)
    return value if isinstance(value, bool) and column is Kind.BOOL else normal(value)


def same(found: Any, value: Any, column: Kind) -> bool:
    if value is None or found is None:
        return found is None and value is None
    if column is Kind.NUMBER:
        return bool(Decimal(found) == value)
    if column is Kind.TEXT and not isinstance(value, str):
        return bool(parse(found) == value)
    return bool((parse(found) if column is Kind.JSON else found) == value)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(ROWS, max_size=4), max_size=4))
def test_arbitrary_rows_come_back_equal_from_both(pages: list[list[Object]]) -> None:
    rows = [leaves(plain(row)) for page in pages for row in page]
    texts = [f"[{','.join(spell(row) for row in page)}]".encode() for page in pages]
    memory = Memory()
    assert write_parquet(Pages(texts), memory) == len(rows)
    table = pq.read_table(io.BytesIO(memory.content))
    df = frame(*texts)
    kinds = {path: kind([row[path] for row in rows if path in row]) for row in rows for path in row}
    named = assign(list(kinds), {}, 1 << 16)
    assert set(df) == set(table.column_names) == set(named.values())
    for path, name in named.items():
        column = kinds[path]
        assert column is not None
        values = [expected(row.get(path), column, True) for row in rows]
        for found in (table.column(name).to_pylist(), [None if v is pd.NaT or v is pd.NA else v for v in df[name]]):
            found = [None if isinstance(v, float) else v for v in found]  # pandas' strings have NaN where there is none
            assert all(same(f, v, column) for f, v in zip(found, values, strict=True)), (path, found, values)


def test_instants_and_dates_at_the_ends_of_the_calendar(tmp_path: Path) -> None:
    rows = b'[{"at":"0001-01-02T00:00:00Z","day":"0001-01-01"},{"at":"9999-12-30T23:59:59.999999-12:00","day":"9999-12-31"}]'
    table = parquet(tmp_path / "x.parquet", rows)
    assert table.column("day").to_pylist() == [dt.date.min, dt.date.max]
    assert table.column("at").to_pylist()[0] == dt.datetime(1, 1, 2, tzinfo=dt.UTC)
    assert len(frame(rows)) == 2


def test_a_number_that_no_decimal_can_hold_stays_text(tmp_path: Path) -> None:
    rows = b'[{"n":1e99999999999999999999}]'
    assert parquet(tmp_path / "x.parquet", rows).column("n").to_pylist() == ["1e99999999999999999999"]
    with pytest.raises(M2PResponseError, match="Column 'n' has a number that no Decimal can hold"):
        frame(rows)
