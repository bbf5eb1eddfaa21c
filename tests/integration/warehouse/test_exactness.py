"""What is stored is what was sent, whatever way it went there."""

from __future__ import annotations

import contextlib
import json
import re
from decimal import Decimal

import pytest
import sqlalchemy as sa

from airflow_provider_m2p.exceptions import M2PSchemaError
from tests.integration.warehouse.streams import Pages, Warehouse, counts, number
from tests.unit.columns.documents import parse


@pytest.mark.parametrize("known", [False, True])
def test_an_empty_object_is_kept_wherever_pages_begin(first_class: Warehouse, known: bool) -> None:
    rows = [b'{"id":"a","o":{"x":1}}', b'{"id":"b","o":{"y":2}}', b'{"id":"c","o":{ }}', b'{"id":"d","o":{"x":null}}']
    for table, pages in (("one", [b"[%s]" % b",".join(rows)]), ("many", [b"[%s]" % row for row in rows])):
        if known:
            first_class.load(*pages[:2], table=table)
        first_class.load(*pages, table=table)
        found = {row["id"]: (row["o"] and parse(row["o"]), row["o__x"], row["o__y"]) for row in first_class.read(table)}
        assert found == {"a": (None, 1, None), "b": (None, None, 2), "c": ({}, None, None), "d": (None, None, None)}


@pytest.mark.parametrize("value", ['{"x":1}', '{"x":1,"y":2}', '{"z":{"x":1}}'])
def test_objects_can_be_flattened_less_than_before(first_class: Warehouse, value: str) -> None:
    page = f'[{{"id":"a","o":{value}}},{{"id":"b"}}]'.encode()
    first_class.load(b'[{"id":"a","o":{"x":1}}]')
    assert counts(first_class.load(page, max_depth=0)) == (1, 1, 0, 0)
    assert counts(first_class.load(page, max_depth=0)) == (0, 0, 2, 0)
    one, other = first_class.read()
    assert parse(one.pop("o")) == parse(value)
    assert one == {"id": "a", "o__x": None}
    assert other == {"id": "b", "o__x": None, "o": None}
    first_class.load(b'[{"id":"a","o":{"x":3}},{"id":"b"}]')
    assert first_class.read()[0] == {"id": "a", "o__x": 3, "o": None}


def test_the_object_that_holds_the_key_is_flattened_at_any_depth(first_class: Warehouse) -> None:
    page = b'[{"o":{"id":1,"s":{"t":1}},"u":{"v":1},"items":[{"w":{"x":1}}]}]'
    for expected in ((1, 0, 0, 0), (0, 0, 1, 0)):
        result = first_class.load(page, key_columns=("o.id",), max_depth=0, child_tables=True)
        assert counts(result) == expected
    (row,) = first_class.read()
    assert (row["o__id"], parse(row["o__s"]), parse(row["u"])) == (1, {"t": 1}, {"v": 1})
    (item,) = first_class.read("products__items")
    assert (item["o__id"], parse(item["w"])) == (1, {"x": 1})


@pytest.mark.parametrize("names", [{"exclude_columns": ("nothing",)}, {"hash_columns": ("no.thing",)}])
def test_what_privacy_does_not_touch_stays_as_it_was_sent(first_class: Warehouse, names: dict[str, tuple[str, ...]]) -> None:
    page = b'[{"id":"a","n":1e3,"m":1.50E-2,"t":-0.0,"l":[1e3,1.50]},{"id":"b","t":"x"}]'
    first_class.load(page)
    before = first_class.read()
    assert counts(first_class.load(page, **names)) == (0, 0, 2, 0)
    first_class.load(page, **names, table="other")
    assert first_class.read("other") == before
    assert before[0]["t"] == "-0.0"


def test_personal_data_are_left_out_however_their_names_are_meant(first_class: Warehouse) -> None:
    page = b'[{"id":"a","card.pan":"4111","card":{"pan":"4111"}},{"id":"b","cards":[{"card":{"pan":"4111"}}]}]'
    first_class.load(page, exclude_columns=("card.pan", "cards.card.pan"))
    assert set(first_class.fields()) == {("id",), ("cards",)}
    assert "4111" not in str(first_class.read())


VALUES = {
    "int": ["1", "-3", "9223372036854775807"],
    "number": ["1.5", "12345678901234567890", "100", "-0.25"],
    "bool": ["true", "false"],
    "date": ['"2025-01-01"', '"2024-02-29"'],
    "instant": ['"2025-01-01T00:00:00.000000Z"', '"2025-01-01T00:00:00.500000Z"'],
}


def page_of(values: list[str], *, keys_are_texts: bool = False) -> bytes:
    """Return a page with a row for each value, which is its key (or a text made of it), and stands in another field."""
    keys = [json.dumps(f"k{value.strip(chr(34))}") if keys_are_texts else value for value in values]
    return "[{}]".format(",".join(f'{{"id":{key},"v":{value}}}' for key, value in zip(keys, values, strict=True))).encode()


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_keys_and_values_that_become_text_are_those_that_were_sent(warehouse: Warehouse, values: list[str]) -> None:
    # Standard SQL cannot change a key.
    portable = warehouse.way == "portable"
    if warehouse.is_postgres:
        warehouse.execute(f"ALTER DATABASE {warehouse.url.database} SET timezone TO 'Asia/Kolkata'")
        warehouse.engine.dispose()
    one, more = (page_of(page, keys_are_texts=portable) for page in (values, [*values, '"x"']))
    warehouse.load(one)
    assert counts(warehouse.load(more)) == (1, 0, len(values), 0)
    texts = {text: text for text in (value.strip('"') for value in [*values, '"x"'])}
    if portable:
        texts = {text: re.sub(r"\.?0*Z$", "Z", text) for text in texts}
    assert {row["id"].removeprefix("k" * portable): row["v"] for row in warehouse.read()} == texts
    assert counts(warehouse.load(more)) == (0, 0, len(texts), 0)


@pytest.mark.parametrize("kind", ["number", "bool"])
def test_a_key_becomes_text_in_mariadb_whenever_the_load_dies(mariadb: Warehouse, kind: str) -> None:
    keys = [*VALUES[kind], '"x"']
    for dies_at in range(1, 12):
        mariadb.load(page_of(keys[:-1]))
        done = 0

        def die(connection: sa.Connection, cursor: object, statement: str, *_: object) -> None:
            nonlocal done
            done += statement.startswith(("ALTER TABLE `products`", "UPDATE products"))
            if done == dies_at:  # noqa: B023
                raise ConnectionError

        sa.event.listen(mariadb.engine, "before_cursor_execute", die)
        with contextlib.suppress(ConnectionError):
            mariadb.load(page_of(keys))
        sa.event.remove(mariadb.engine, "before_cursor_execute", die)
        mariadb.load(page_of(keys))
        assert {(row["id"], row["v"]) for row in mariadb.read()} == {(key.strip('"'), key.strip('"')) for key in keys}
        mariadb.execute("DROP TABLE products")
    assert done < dies_at


@pytest.mark.parametrize("first", ["1e3", "-0.0", "1.50E-2", "12345678901234567890.10", "2.00"])
def test_a_number_that_turns_out_to_be_a_text_is_as_it_was_sent_wherever_pages_begin(warehouse: Warehouse, first: str) -> None:
    rows = [f'{{"id":"a","v":{value},"n":{value},"w":1.50}}'.encode() for value in ("1", first)]
    rows = [rows[0], rows[1].replace(b'"a"', b'"b"'), b'{"id":"c","v":"x","n":2}']
    warehouse.load(b"[%s]" % b",".join(rows), table="one")
    pages = Pages([b"[%s]" % row for row in rows])
    warehouse.loader(table="many").run(pages)
    assert warehouse.read("many") == warehouse.read("one")
    assert [row["v"] for row in warehouse.read("many")] == ["1", first, "x"]
    assert [number(row["n"]) for row in warehouse.read("many")] == [1, Decimal(first), 2]
    assert (pages.read_again is not None) is (warehouse.way in ("psycopg", "psycopg2"))
    assert pages.read_again is None or pages.read_again.read_again is None


@pytest.mark.parametrize("fields", [b'"a.b":7,"a":{"b":%d}', b'"a":{"b":%d},"a.b":7'])
def test_the_key_is_the_nested_field_though_another_is_spelled_like_it(first_class: Warehouse, fields: bytes) -> None:
    rows = b'[{%s,"z":1},{%s,"z":1}]' % (fields % 1, fields % 2)
    assert counts(first_class.load(rows, key_columns=("a.b",))) == (2, 0, 0, 0)
    assert counts(first_class.load(rows.replace(b'"z":1}]', b'"z":2}]'), key_columns=("a.b",))) == (0, 1, 1, 0)
    with pytest.raises(M2PSchemaError, match="lack a value of the key"):
        first_class.load(b'[{"a.b":7}]', key_columns=("a.b",))
