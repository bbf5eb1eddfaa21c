"""Arbitrary JSON objects in, read back equal."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.exceptions import M2PLoadError, M2PSchemaError
from tests.integration.warehouse.effort import PATIENCE, effort
from tests.integration.warehouse.streams import Warehouse, counts, in_utc
from tests.unit.columns.documents import (
    NAMES,
    PLAIN,
    ROWS,
    Number,
    Object,
    Path,
    date_of,
    instant_of,
    kind,
    leaves,
    normal,
    parse,
    plain,
    spell,
)

pytestmark = PATIENCE
TABLES = (f"t{n}" for n in itertools.count())


def same(found: Any, value: Any, column: Kind) -> bool:
    """Tell whether a database's value is the value that was sent."""
    if found is None or value is None:
        return found is None and value is None
    if column is Kind.BOOL:
        return found in (0, 1) and bool(found) is value
    if isinstance(value, Number):
        # Text where the column is mixed, or where the database has no exact number.
        assert not isinstance(found, float)
        return Decimal(found) == Decimal(value.text)
    if column is Kind.DATE:
        return bool(found == date_of(value))
    if column is Kind.INSTANT:
        return in_utc(found) == instant_of(value)
    if isinstance(value, bool):
        return bool(found == str(value).lower())
    if isinstance(value, dict | list):
        return bool(parse(found) == normal(value))
    # An instant that was stored before its column became text is there in UTC.
    return found == value or (instant_of(value) is not None and instant_of(found) == instant_of(value))


def has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any("\x00" in name or has_nul(item) for name, item in value.items())
    return any(map(has_nul, value)) if isinstance(value, list) else isinstance(value, str) and "\x00" in value


def unstorable(warehouse: Warehouse, row: dict[Path, Any]) -> bool:
    """Tell whether a row holds what PostgreSQL cannot. As the escape that it is in JSON, text can hold it."""
    if warehouse.way == "portable":
        return any(isinstance(value, str) and has_nul(value) for value in row.values())
    return warehouse.is_postgres and any(map(has_nul, row.values()))


def keyed(rows: list[Object]) -> list[Object]:
    """Give each row a key of its own."""
    return [
        Object((*((name, value) for name, value in row.pairs if name != "id"), ("id", f"k{n}"))) for n, row in enumerate(rows)
    ]


def pages_of(rows: list[Object], chance: random.Random) -> Iterator[bytes]:
    while rows:
        size = chance.randint(1, len(rows))
        yield f"[{','.join(spell(row, chance) for row in rows[:size])}]".encode()
        rows = rows[size:]


def check(warehouse: Warehouse, table: str, rows: list[Object]) -> None:
    expected = [leaves(plain(row)) for row in rows]
    kinds = {path: kind([row[path] for row in expected if path in row]) for row in expected for path in row}
    fields = warehouse.fields(table)
    assert set(fields) == set(kinds)
    found = {row["id"]: row for row in warehouse.read(table)}
    assert all(set(row) == set(fields.values()) for row in found.values())
    assert sorted(found) == sorted(row["id",] for row in expected)
    for row in expected:
        for path, column in fields.items():
            value_kind = kinds[path]
            assert value_kind is not None
            got = found[row["id",]][column]
            assert same(got, row.get(path), value_kind), (path, got, row.get(path), value_kind)


@effort(12)
@given(st.lists(ROWS, min_size=1, max_size=6).map(keyed), st.integers(0, 2**32).map(random.Random))
@example(keyed([Object((("a", Number("1")),)), Object((("a", "2025-01-01"),))]), random.Random(1))
@example(keyed([Object((("a", Number("2.50")),)), Object((("a", "\\N"),)), Object((("a", [Number("1.10")]),))]), random.Random(1))
@example(keyed([Object((("a", [1 == 1]),)), Object((("a", "x\ty\\z\n"),))]), random.Random(2))
def test_rows_come_back_equal_and_so_do_those_of_later_loads(
    warehouse: Warehouse, rows: list[Object], chance: random.Random
) -> None:
    table = next(TABLES)
    first = rows[: chance.randint(1, len(rows))]
    for part in (first, rows):
        if any(unstorable(warehouse, leaves(plain(row))) for row in part):
            with pytest.raises((M2PSchemaError, M2PLoadError), match="NUL"):
                warehouse.load(*pages_of(part, chance), table=table)
            return
        result = warehouse.load(*pages_of(part, chance), table=table)
        assert result["rows_read"] == len(part)
        check(warehouse, table, part)
    again = warehouse.load(*pages_of(rows, chance), table=table)
    assert counts(again) == (0, 0, len(rows), 0)
    assert again["schema_changes"] == []
    check(warehouse, table, rows)
    warehouse.execute(f"DROP TABLE {table}")


@effort(12)
@given(st.lists(st.tuples(NAMES, PLAIN), min_size=1, max_size=6, unique_by=lambda pair: pair[0]))
def test_the_second_load_of_a_changed_row_changes_all_of_it(warehouse: Warehouse, pairs: list[tuple[str, Any]]) -> None:
    table = next(TABLES)
    if any(unstorable(warehouse, {("x",): value}) for _, value in pairs):
        return
    one, two = keyed([Object(tuple(pairs))]), keyed([Object(tuple((name, None) for name, _ in pairs))])
    for rows in (one, two, one):
        warehouse.load(*pages_of(rows, random.Random(0)), table=table)
    check(warehouse, table, one)
    warehouse.execute(f"DROP TABLE {table}")


KEYS = {
    "text": ['"a"', '"a\'b"', '"%s:x"', '"\\\\N"', '"a\\tb"', '""', '" a "', '"A"', '"a\\nb"', '"é"', '"e\u0301"', '"💶"', '"\\u001e"', '"a "'],
    "int": ["1", "2", "-3", "9223372036854775807", "0"],
    "mixed": ["1", '"a"', "2.5", "true", "12345678901234567890"],
    "number": ["1.5", "2.25", "12345678901234567890", "3"],
    "bool": ["true", "false"],
    "date": ['"2025-01-01"', '"2024-02-29"'],
    "instant": ['"2025-01-01T00:00:00Z"', '"2025-01-01T00:00:00.5+05:30"'],
}


def check_keys(warehouse: Warehouse, mode: str, rows: list[dict[str, str]]) -> None:
    """See that loads find the rows of earlier ones again, whatever of them has changed; keys are given as JSON."""

    def load(value: int, *, space: str = "", first: int | None = None) -> tuple[int, ...]:
        values = [value if first is None else first, *[value] * (len(rows) - 1)]
        objects = [
            "{" + space + "".join(f'"{name}":{key},' for name, key in row.items()) + f'"n":{n}}}'
            for row, n in zip(rows, values, strict=True)
        ]
        return counts(warehouse.load(f"[{','.join(objects)}]".encode(), write_mode=mode, key_columns=tuple(rows[0])))

    assert load(1)[0] == len(rows)
    assert load(1) == (0, 0, len(rows), 0)
    assert load(1, space=" ") == (0, 0, len(rows), 0)
    assert load(2) == (0, len(rows), 0, 0)
    assert load(2, first=3) == (0, 1, len(rows) - 1, 0)
    found = warehouse.read(meta=True)
    live = [row for row in found if row.get("_m2p_valid_to") is None]
    assert len(live) == len(rows)
    assert len(found) == len(rows) * (1 if mode == "upsert" else 2) + (1 if mode == "history" else 0)
    assert sorted(row["n"] for row in live) == [2] * (len(rows) - 1) + [3]


@pytest.mark.parametrize("kind", KEYS)
def test_any_value_can_be_a_key(warehouse: Warehouse, kind: str) -> None:
    check_keys(warehouse, "upsert", [{"id": key} for key in KEYS[kind]])


@pytest.mark.parametrize("kinds", [("text", "int", "bool", "date"), ("mixed", "number", "instant")], ids="-".join)
def test_a_history_finds_keys_of_all_kinds_again(warehouse: Warehouse, kinds: tuple[str, ...]) -> None:
    rows = [{kind: KEYS[kind][n % len(KEYS[kind])] for kind in kinds} for n in range(len(KEYS[kinds[0]]))]
    check_keys(warehouse, "history", rows)


NUMBERS = [
    "12345678901234567890.123456789",
    "0.1",
    "1e400",
    "1E-30",
    "-0.000000000000000000000000000000000000001",
    "9" * 40 + "." + "9" * 30,
    "1.10",
    "123456789012345678901234567890",
]


def test_numbers_are_exact(warehouse: Warehouse) -> None:
    fields = ",".join(f'"n{n}":{number},"j{n}":[{number}]' for n, number in enumerate(NUMBERS))
    warehouse.load(f'[{{"id":"a",{fields}}}]'.encode())
    (row,) = warehouse.read()
    for n, number in enumerate(NUMBERS):
        assert not isinstance(row[f"n{n}"], float)
        assert Decimal(row[f"n{n}"]) == Decimal(number)
        assert parse(row[f"j{n}"]) == [Decimal(number)]


def test_a_number_beyond_postgresql_is_refused_without_its_digits(postgres: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    warehouse = postgres
    warehouse.load([{"id": "a"}])
    with pytest.raises((M2PLoadError, M2PSchemaError), match="overflows") as error:
        warehouse.load(b'[{"id":"b","n":7.123e-99999}]')
    assert "7.123" not in str(error.value) + caplog.text
    assert warehouse.read() == [{"id": "a"}]


@pytest.mark.parametrize("value", ['"a\\u0000b"', '["a\\u0000b"]', '[{"a\\u0000b":1}]', '{"x":[["\\u0000"]]}', '["\\\\\\u0000"]'])
def test_nul_is_refused_by_postgresql_before_anything_is_written(postgres: Warehouse, value: str) -> None:
    warehouse = postgres
    warehouse.load([{"id": "a"}])
    page = f'[{{"id":"a","new":1}},{{"id":"b","secret":{value}}},{{"id":"c","secret":{value}}}]'.encode()
    with pytest.raises(M2PSchemaError, match=r"Page 0 holds NUL characters, which PostgreSQL cannot store: secret\S* \(2 rows\)") as e:
        warehouse.load(page)
    assert "a\\" not in str(e.value)
    assert warehouse.read() == [{"id": "a"}]
    assert len(warehouse.loads()) == 1


LIKE_NUL = ['"a\\\\u0000b"', '["a\\\\u0000b"]', '["\\\\\\\\u0000"]', '[{"\\\\u0000":1}]']


def test_what_only_looks_like_nul_is_stored(postgres: Warehouse) -> None:
    fields = ",".join(f'"v{n}":{value}' for n, value in enumerate(LIKE_NUL))
    postgres.load(f'[{{"id":"a",{fields}}}]'.encode())
    (row,) = postgres.read()
    assert row["v0"] == parse(LIKE_NUL[0])
    assert [parse(row[f"v{n}"]) for n in (1, 2, 3)] == [parse(value) for value in LIKE_NUL[1:]]


@pytest.mark.parametrize("way", ["sqlite", "mariadb"])
def test_nul_is_stored_where_it_can_be(way: str, request: pytest.FixtureRequest) -> None:
    warehouse: Warehouse = request.getfixturevalue(way)
    warehouse.load(b'[{"id":"a\\u0000b","v":"\\u0000","j":["\\u0000"]}]')
    (row,) = warehouse.read()
    assert (row["id"], row["v"], parse(row["j"])) == ("a\x00b", "\x00", ["\x00"])


def test_nothing_and_an_empty_text_are_two_things(warehouse: Warehouse) -> None:
    warehouse.load(b'[{"id":"a","t":"","u":"x"},{"id":"b","t":null,"u":""},{"id":"c","u":null}]')
    assert [(row["t"], row["u"]) for row in warehouse.read()] == [("", "x"), (None, ""), (None, None)]


def test_types_are_those_that_an_engineer_expects(postgres: Warehouse) -> None:
    warehouse = postgres
    warehouse.load(
        b'[{"id":"a","i":1,"n":1.5,"b":true,"d":"2025-01-01","t":"2025-01-01T00:00:00Z","j":[1],"o":{"x":"y"},"m":1},'
        b'{"id":"b","m":true}]'
    )
    types = {c["name"]: str(c["type"]) for c in sa.inspect(warehouse.engine).get_columns("products")}
    assert {k: v for k, v in types.items() if not k.startswith("_m2p")} == {
        "id": 'TEXT COLLATE "C"',  # bytes, not words
        "i": "BIGINT",
        "n": "NUMERIC",
        "b": "BOOLEAN",
        "d": "DATE",
        "t": "TIMESTAMP",
        "j": "JSONB",
        "o__x": "TEXT",
        "m": "TEXT",
    }
