from __future__ import annotations

import pytest

from airflow_provider_m2p.columns.kinds import Kind, Tokens
from airflow_provider_m2p.columns.shape import Shape
from airflow_provider_m2p.exceptions import M2PSchemaError
from tests.unit.columns.documents import raw


def observed(*texts: str, shape: Shape | None = None) -> Shape:
    shape = shape or Shape()
    for page, text in enumerate(texts):
        shape.observe([raw(text)], page)
    return shape


def kinds(shape: Shape) -> dict[str, Kind | None]:
    return {".".join(column.path): column.kind for column in shape.columns}


def test_columns_of_a_page_follow_those_of_the_pages_before() -> None:
    assert list(kinds(observed('{"b":1,"a":{"y":1,"x":2}}', '{"c":1,"a":{"z":1}}'))) == ["b", "a.y", "a.x", "a.z", "c"]


def test_null_makes_no_column() -> None:
    assert kinds(observed('{"a":null,"b":{"c":null}}')) == {}


def test_an_empty_object_is_a_value_until_fields_are_seen() -> None:
    assert kinds(observed('{"a":{}}')) == {"a": Kind.JSON}
    assert kinds(observed('{"a":{}}', '{"a":{"b":1}}')) == {"a": Kind.JSON, "a.b": Kind.INT}


def test_a_field_can_be_a_value_here_and_an_object_there() -> None:
    assert kinds(observed('{"a":1}', '{"a":{"b":true}}')) == {"a": Kind.INT, "a.b": Kind.BOOL}


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (0, {"a": Kind.JSON}),
        (1, {"a.b": Kind.JSON}),
        (2, {"a.b.c": Kind.JSON}),
        (3, {"a.b.c.d": Kind.INT}),
        (8, {"a.b.c.d": Kind.INT}),
    ],
)
def test_objects_below_the_depth_are_json(depth: int, expected: dict[str, Kind]) -> None:
    assert kinds(observed('{"a":{"b":{"c":{"d":1}}}}', shape=Shape(max_depth=depth))) == expected


def test_stored_columns_keep_their_order_and_kind() -> None:
    shape = Shape((("id",),))
    shape.add_column(("id",), Kind.TEXT)
    shape.add_column(("a", "b"), Kind.NUMBER)
    observed('{"new":1,"a":{"b":1},"id":"x"}', shape=shape)
    assert [(c.path, c.kind, c.position) for c in shape.columns] == [
        (("id",), Kind.TEXT, 0),
        (("a", "b"), Kind.NUMBER, 1),
        (("new",), Kind.INT, 2),
    ]


def test_a_shape_that_does_not_grow_ignores_what_it_does_not_know() -> None:
    shape = Shape(grows=False)
    shape.add_column(("a",), Kind.TEXT)
    observed('{"a":1,"b":{"c":1,"d":null}}', shape=shape)
    assert [column.path for column in shape.columns] == [("a",)]
    assert list(shape.ignored) == [("b", "c")]


def test_always_means_in_every_object_that_could_have_it() -> None:
    shape = observed('{"a":{"b":1},"c":1}', '{"c":null}')
    always = {node.path: node.always for node in shape.root.walk()}
    assert always == {(): True, ("a",): False, ("a", "b"): True, ("c",): False}


def test_tokens_of_a_mixed_field() -> None:
    shape = observed('{"a":1}', '{"a":"x"}', '{"a":[1]}')
    assert shape.columns[0].tokens == Tokens.INT | Tokens.STRING | Tokens.ARRAY
    assert shape.columns[0].kind is Kind.TEXT


def test_a_key_with_a_dot_in_its_own_name_is_refused_by_what_it_is() -> None:
    for row in ('{"a.b":{"c":1}}', '{"a.b.c":1}', '{"a":{"b.c":1,"b":{"c":null}}}'):
        with pytest.raises(M2PSchemaError, match=r"'a\.b\.c' cannot be a field with a dot in its own name, .* Set key_columns to other"):
            observed(row, shape=Shape((("a", "b", "c"),)))


def test_a_nested_key_is_found() -> None:
    shape = Shape((("ref", "id"),))
    observed('{"ref":{"id":1}}', shape=shape)
    for row in ('{"ref":1}', '{"ref":{"x":1}}', '{"ref.id":1}', '{"ref":[{"id":1}]}'):
        with pytest.raises(M2PSchemaError, match=r"1 of 1 rows of page 0 lack a value of the key \(ref\.id\)"):
            observed(row, shape=shape)
