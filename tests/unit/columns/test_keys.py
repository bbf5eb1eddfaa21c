from __future__ import annotations

from typing import Any

import msgspec
import pytest

from airflow_provider_m2p.columns.keys import key_reader
from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.columns.names import Path
from airflow_provider_m2p.columns.reader import RowReader
from airflow_provider_m2p.columns.shape import Shape
from tests.unit.columns.documents import raw


def shape_of(*keys: Path, kind: Kind = Kind.TEXT) -> Shape:
    shape = Shape(keys)
    for path in keys:
        shape.add_column(path, kind)
    return shape


def read(shape: Shape, *rows: str) -> Any:
    reader = key_reader(shape)
    assert reader is not None
    return reader([raw(row) for row in rows])


def test_keys_are_read_without_the_rest() -> None:
    assert read(shape_of(("id",)), '{"x":[1,{"id":2}],"id":"a"}', '{"id":"\\u00e9\\n"}') == [("a",), ("é\n",)]
    assert read(shape_of(("id",), kind=Kind.INT), '{"id":-12}') == [("-12",)]


def test_keys_are_in_the_order_of_the_key_whatever_their_names() -> None:
    shape = shape_of(("z",), ("ref", "z"), ("ref", "a"), ("a",))
    assert read(shape, '{"a":"1","ref":{"a":"2","z":"3"},"z":"4"}') == [("4", "3", "2", "1")]


def test_the_last_of_two_equal_keys_counts() -> None:
    assert read(shape_of(("id",)), '{"id":"a","id":"b"}') == [("b",)]


@pytest.mark.parametrize("row", ['{"id":1}', '{"id":null}', "{}", "[]", '{"id":{"id":"a"}}', '{"id":"a"'])
def test_a_row_that_does_not_fit_is_told(row: str) -> None:
    with pytest.raises(msgspec.MsgspecError):
        read(shape_of(("id",)), row)


@pytest.mark.parametrize("kind", [Kind.NUMBER, Kind.BOOL, Kind.DATE, Kind.INSTANT, Kind.JSON])
def test_keys_with_several_spellings_are_not_looked_up(kind: Kind) -> None:
    assert key_reader(shape_of(("id",), kind=kind)) is None


def test_there_is_no_reader_without_a_key_or_before_its_kind_is_known() -> None:
    assert key_reader(Shape()) is None
    assert key_reader(Shape((("id",),))) is None


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "nul\x00"])
@pytest.mark.parametrize("within", [(), ("ref",)])
def test_a_key_that_no_struct_can_name_is_read_all_the_same(within: Path, name: str) -> None:
    shape = shape_of((*within, name))
    assert key_reader(shape) is None
    row = msgspec.json.encode({"ref": {name: "a"}} if within else {name: "a"})
    assert RowReader(shape).read([msgspec.Raw(row)], 0).lines == [b"a"]


def test_a_key_of_text_and_numbers_falls_back_to_the_full_reader() -> None:
    shape = shape_of(("id",))
    RowReader(shape).read([raw('{"id":1}')], 0)
    assert read(shape, '{"id":"a"}') == [("a",)]
    with pytest.raises(msgspec.ValidationError):
        read(shape, '{"id":1}')
