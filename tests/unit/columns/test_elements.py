from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_m2p.columns.elements import element_rows, parent_json
from airflow_provider_m2p.columns.kinds import Kind
from tests.unit.columns.documents import VALUES, normal, parse, plain, spell

PARENT = parent_json([("id",), ("no",)], [Kind.TEXT, Kind.INT], ("a", "7"))


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES, max_size=5))
def test_each_element_is_a_row_with_its_parent_and_position(array: list[object]) -> None:
    rows = [parse(bytes(row).decode()) for row in element_rows(spell(array), PARENT)]
    assert len(rows) == len(array)
    for position, (row, element) in enumerate(zip(rows, array, strict=True)):
        assert row.pop("_m2p_parent") == {"id": "a", "no": 7}
        assert row.pop("_m2p_position") == position
        expected = normal(plain(element))
        assert row == (expected if isinstance(expected, dict) else {"value": expected})


def test_a_field_cannot_pass_for_the_parent() -> None:
    (row,) = element_rows('[{"_m2p_position":9,"_m2p_parent":{"id":"b"}}]', PARENT)
    assert parse(bytes(row).decode()) == {"_m2p_parent": {"id": "a", "no": 7}, "_m2p_position": 0}


@pytest.mark.parametrize("empty", ["{}", "{ }"])
def test_an_empty_object_is_a_row(empty: str) -> None:
    (row,) = element_rows(f"[{empty}]", PARENT)
    assert parse(bytes(row).decode()) == {"_m2p_parent": {"id": "a", "no": 7}, "_m2p_position": 0}


@pytest.mark.parametrize(
    ("kind", "cell", "value"),
    [
        (Kind.TEXT, '"quoted"\n', '"quoted"\n'),
        (Kind.INT, "12345678901234567", 12345678901234567),
        (Kind.BOOL, "true", True),
        (Kind.DATE, "2025-01-01", "2025-01-01"),
        (Kind.TEXT, "1", "1"),
    ],
)
def test_a_key_keeps_its_value(kind: Kind, cell: str, value: object) -> None:
    parent = parent_json([("id",)], [kind], (cell,)).decode()
    assert parse("{" + parent + "}") == {"_m2p_parent": {"id": value}}


def test_a_nested_key_stays_nested() -> None:
    parent = parent_json(
        [("a", "b", "c"), ("a", "b", "d"), ("b",)], [Kind.TEXT, Kind.NUMBER, Kind.TEXT], ("x", "1.50", "y")
    )
    assert parent == b'"_m2p_parent":{"a":{"b":{"c":"x","d":1.50}},"b":"y"}'
