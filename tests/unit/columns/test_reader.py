from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_m2p.columns.kinds import Kind, Tokens
from airflow_provider_m2p.columns.reader import RowReader, Rows, row_hash, row_hashes
from airflow_provider_m2p.columns.shape import Shape
from airflow_provider_m2p.exceptions import M2PResponseError, M2PSchemaError
from tests.unit.columns.documents import (
    NAMES,
    NUMBERS,
    PLAIN,
    ROWS,
    TEXTS,
    VALUES,
    Number,
    Object,
    Path,
    agrees,
    kind,
    leaves,
    objects,
    plain,
    raw,
    spell,
)

SEEDS = st.integers(0, 2**32).map(random.Random)
UNESCAPED = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}


def read(reader: RowReader, texts: list[str], page: int = 0, *, has_escapes: bool | None = None) -> Rows:
    if has_escapes is None:
        has_escapes = any("\\" in text for text in texts)
    return reader.read([raw(text) for text in texts], page, has_escapes=has_escapes)


def read_one(text: str, **shape: Any) -> dict[Path, str | None]:
    reader = RowReader(Shape(**shape))
    rows = read(reader, [text])
    return {column.path: cell for column, cell in zip(reader.shape.columns, cells_of(rows)[0], strict=True)}


def cells_of(rows: Rows) -> list[tuple[str | None, ...]]:
    return list(zip(*rows.columns, strict=True)) if rows.columns else [()] * len(rows.lines)


def cells_of_line(line: bytes) -> tuple[str | None, ...]:
    """Read a line as PostgreSQL's COPY does."""
    cells: list[str | None] = []
    for cell in line.decode().split("\t"):
        text, rest = "", cell
        while rest:
            piece = rest[:2] if rest[0] == "\\" else rest[0]
            text += UNESCAPED.get(piece, piece)
            rest = rest[len(piece) :]
        cells.append(None if cell == "\\N" else text)
    return tuple(cells)


def split(rows: list[Object], chance: random.Random) -> list[list[Object]]:
    pages: list[list[Object]] = [[]]
    for row in rows:
        if chance.getrandbits(1):
            pages.append([])
        pages[-1].append(row)
    return pages


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, max_size=8), SEEDS, st.sampled_from([0, 1, 8]))
@example([Object((("a", Object((("x", True),))),)), Object(())], random.Random(1), 8)
@example([Object((("a", Object((("x", Number("1")),))),)), Object((("a", None),))], random.Random(2), 8)
@example([Object((("n", Number("1")), ("n", "x"))), Object((("n", "y"),))], random.Random(1), 8)
@example([Object((("n", "2025-01-01"),)), Object((("n", "2025-01-01\n2025-01-02"),))], random.Random(5), 8)
@example([Object((("n", Number("1")),)), Object((("n", Number("1.0")),)), Object((("n", True),))], random.Random(5), 8)
def test_cells_are_what_a_plain_model_says_whatever_the_pages(rows: list[Object], chance: random.Random, depth: int) -> None:
    reader = RowReader(Shape(max_depth=depth))
    values: dict[Path, list[Any]] = {}
    for number, page in enumerate(split(rows, chance)):
        read_rows = read(reader, [spell(row, chance) for row in page], number)
        assert len(read_rows.lines) == len(cells_of(read_rows)) == len(page)
        for row, line, cells in zip(page, read_rows.lines, cells_of(read_rows), strict=True):
            expected = leaves(plain(row), depth)
            found = {column.path: cell for column, cell in zip(reader.shape.columns, cells, strict=True)}
            assert set(expected) <= set(found)
            for path, cell in found.items():
                assert agrees(cell, expected.get(path)), (path, cell, expected.get(path))
            assert cells_of_line(line) == cells or not cells
            for path, value in expected.items():
                values.setdefault(path, []).append(value)
    assert {column.path: column.kind for column in reader.shape.columns} == {p: kind(v) for p, v in values.items()}
    assert len({column.path for column in reader.shape.columns}) == len(reader.shape.columns)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, max_size=8), SEEDS)
def test_columns_hold_what_cells_say(rows: list[Object], chance: random.Random) -> None:
    reader, by_column = RowReader(Shape()), RowReader(Shape())
    for number, page in enumerate(split(rows, chance)):
        texts = [spell(row, chance) for row in page]
        cells = cells_of(read(reader, texts, number))
        columns = by_column.read_columns([raw(text) for text in texts], number)
        assert len(columns) == len(reader.shape.columns)
        for place, (kind_of_values, values) in enumerate(columns):
            assert all(value is None or type(value) is kind_of_values for value in values)
            texts_of_values = [str(v).lower() if isinstance(v, bool) else v if v is None else str(v) for v in values]
            assert texts_of_values == [row[place] for row in cells]


@pytest.mark.parametrize("odd", [None, '{"n":null}', '{"n":"x","new":1}', '{"n":1e3}', '{"o":{}}', '{"o":null}', '{"o":1}'])
def test_a_page_is_read_in_order_wherever_the_row_stands_that_does_not_fit(odd: str | None) -> None:
    rows = [f'{{"n":{n}.50,"o":{{"on":{"true" if n % 2 else "false"}}}}}' for n in range(1000)]
    if odd is not None:
        rows[777] = odd
    reader = RowReader(Shape())
    found = read(reader, rows)
    again = read(reader, rows)
    assert (found.lines, found.columns) == (again.lines, again.columns)
    assert [cells_of_line(line) for line in found.lines] == cells_of(found)
    for n, cells in enumerate(cells_of(found)):
        if n != 777 or odd is None:
            assert cells[:2] == (f"{n}.50", "true" if n % 2 else "false")
    kinds = [kind_of_values for kind_of_values, _ in reader.read_columns([raw(row) for row in rows], 0)]
    assert kinds[:2] == [str, bool]


@pytest.mark.parametrize("empty", ['"o":{}', '"o": { }', '"o":{"p":{\n}}', '"o":{},"o":{"x":null},"o":{}'])
@pytest.mark.parametrize("size", [1, 2, 3, 200])
def test_an_empty_object_is_a_value_wherever_pages_begin(empty: str, size: int) -> None:
    rows = ['{"o":{"x":1,"p":{"a":1}},"t":"{}"}', '{"o":{"y":2,"p":{"b":2}}}'] * 50
    rows += ['{"o":{"x":null,"p":null},"t":"{}"}', '{"o":null}', "{}", '{"t":"{}"}', f"{{{empty}}}", '{"o":{"p":{"b":null}},"t":"{ }"}']
    path = ("o", "p") if '"p"' in empty else ("o",)
    reader = RowReader(Shape())
    found: list[str | None] = []
    for number, start in enumerate(range(0, len(rows), size)):
        page = read(reader, rows[start : start + size], number)
        paths = [column.path for column in reader.shape.columns]
        found += page.columns[paths.index(path)] if path in paths else [None] * len(rows[start : start + size])
    assert {column.path: column.kind for column in reader.shape.columns}[path] is Kind.JSON
    assert found == [None] * 104 + ["{}", None]


def test_an_object_below_an_optional_one_may_be_empty() -> None:
    reader = RowReader(Shape())
    read(reader, ['{"o":1}', '{"o":{"p":{"x":1}}}', '{"o":{"p":{"y":1}}}'])
    rows = ['{"o":{"p":{}}}', '{"o":2}', '{"o":{"p":{"x":null}}}', '{"o":{"p":null}}', '{"o":{}}']
    assert read(reader, rows) == read(reader, rows)
    cells = [dict(zip([c.path for c in reader.shape.columns], row, strict=True)) for row in cells_of(read(reader, rows))]
    assert [(row["o",], row["o", "p"]) for row in cells] == [(None, "{}"), ("2", None), (None, None), (None, None), ("{}", None)]


@pytest.mark.parametrize("value", ['{"x":1,"y":{"z":2}}', '{"new":1}', "{}", "[1]"])
@pytest.mark.parametrize("stored", [Kind.INT, Kind.TEXT])
def test_columns_below_the_depth_stay_empty(value: str, stored: Kind) -> None:
    shape = Shape(max_depth=0)
    shape.add_column(("o", "x"), stored)
    shape.add_column(("o", "y", "z"), Kind.BOOL)
    reader = RowReader(shape)
    for number in range(2):
        assert cells_of(read(reader, [f'{{"o":{value}}}', '{"o":null}'], number)) == [(None, None, value), (None, None, None)]
    assert [column.kind for column in shape.columns] == [stored, Kind.BOOL, Kind.JSON]


def test_an_object_with_the_key_is_flattened_at_any_depth() -> None:
    key = ("o", "p", "id")
    reader = RowReader(Shape((key,), max_depth=0))
    for number in range(2):
        rows = read(reader, ['{"o":{"p":{"id":1,"id":2,"q\\"":{"r\\"":1}},"s":{"t":1}},"u":{"v\\"":1}}'], number)
        assert dict(zip((".".join(c.path) for c in reader.shape.columns), cells_of(rows)[0], strict=True)) == {
            "o.p.id": "2",
            'o.p.q"': '{"r\\"":1}',
            "o.s": '{"t":1}',
            "u": '{"v\\"":1}',
        }


def shuffled(value: Any, chance: random.Random) -> Any:
    """Return the same value with the keys of its objects in another order."""
    if isinstance(value, Object):
        pairs = [(name, shuffled(item, chance)) for name, item in dict(value.pairs).items()]
        return Object(tuple(chance.sample(pairs, len(pairs))))
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


def hash_after(columns_of: list[str], text: str) -> str:
    reader = RowReader(Shape())
    for number, page in enumerate(columns_of):
        read(reader, [page], number)
    return row_hash(read(reader, [text], has_escapes=True).lines[0])


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS, SEEDS)
def test_a_row_hash_depends_neither_on_the_order_of_keys_nor_on_columns_added_later(
    row: Object, other: Object, chance: random.Random
) -> None:
    row = Object((*row.pairs, ("id", "x")))  # rows without a key are in no table
    text = spell(shuffled(row, random.Random(0)))
    before = hash_after([text], text)
    assert hash_after([text], spell(shuffled(row, chance), chance)) == before
    assert hash_after([text, spell(other)], text) == before


@settings(max_examples=60, deadline=None)
@given(st.lists(objects(PLAIN, st.sampled_from("ab")), min_size=2, max_size=2))
def test_two_rows_have_one_hash_only_if_they_mean_the_same(rows: list[Object]) -> None:
    texts = [spell(row) for row in rows]
    reader = RowReader(Shape())
    one, other = (row_hash(line) for line in read(reader, [*texts, '{"a":"x","b":"x"}']).lines[:2])
    cells = [[leaves(plain(row)).get(path) for path in (("a",), ("b",))] for row in rows]
    same = all(agrees(None if y is None else str(getattr(y, "text", y)), x) for x, y in zip(*cells, strict=True))
    if one == other:
        # What differs only in its sort (the number 1, the text "1") is one cell, and one state.
        as_text = [[str(getattr(v, "text", v)).lower() if v is not None else None for v in row] for row in cells]
        assert as_text[0] == as_text[1] or {"-0", "0"} & {*map(str, as_text[0])}
    elif cells[0] == cells[1]:
        assert not same


def test_how_a_number_is_spelled_is_part_of_the_hash() -> None:
    assert hash_after(['{"n":1.5}'], '{"n":1.0}') != hash_after(['{"n":1.5}'], '{"n":1.00}')


def test_an_empty_text_and_none_are_two_states_in_the_middle_and_at_the_end() -> None:
    columns = ['{"a":"x","b":"x","c":"x"}']
    rows = ['{"a":"x","b":"","c":"x"}', '{"a":"x","b":null,"c":"x"}', '{"a":"x","b":""}', '{"a":"x"}', '{"a":"x","c":""}']
    assert len({hash_after(columns, row) for row in rows}) == 5
    assert hash_after(columns, '{"a":"x","b":null}') == hash_after(columns, '{"a":"x"}')


def test_the_hashes_of_many_rows_are_those_of_each() -> None:
    rows = read(RowReader(Shape()), ['{"a":"x","b":"x","c":"x"}', '{"a":"x"}', '{"b":"x"}', '{"c":"x"}', "{}"])
    assert row_hashes(rows.lines) == [row_hash(line) for line in rows.lines]


def test_a_wide_sparse_row_is_hashed_in_linear_time() -> None:
    columns = ["{%s}" % ",".join(f'"f{n}":1' for n in range(3000))]
    reader = RowReader(Shape())
    read(reader, columns)
    rows = read(reader, ['{"f0":1,"f2998":1}'] * 300)
    assert len({row_hash(line) for line in rows.lines}) == 1  # minutes, if each of the nulls were a place to start from


KEYS = st.sampled_from(["id", "x"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(PLAIN | st.lists(PLAIN, max_size=1), objects(PLAIN, NAMES)), min_size=1, max_size=5),
    SEEDS,
    st.booleans(),
)
def test_a_row_without_its_key_is_never_read(rows: list[tuple[Any, Object]], chance: random.Random, nested: bool) -> None:
    reader = RowReader(Shape((("k", "id"),) if nested else (("id",),)))
    for number, (key, rest) in enumerate(rows):
        pairs = tuple(pair for pair in rest.pairs if pair[0] not in ("id", "k"))
        own: tuple[str, Any] = ("k", Object((("id", key), ("x", None)))) if nested else ("id", key)
        text = spell(Object((*pairs, own)), chance)
        if key is None or isinstance(key, list):
            with pytest.raises(M2PSchemaError, match="key"):
                read(reader, [text], number)
            return
        place = [column.path for column in reader.shape.columns]
        cells = cells_of(read(reader, [text], number))[0]
        place = [column.path for column in reader.shape.columns]
        assert agrees(cells[place.index(reader.shape.key[0])], key)


@pytest.mark.parametrize("keys", [["1"], ["1.5"], ['"a"'], ["true"], ['"2025-01-01"'], ["1", '"a"']])
@pytest.mark.parametrize("later", ["{}", '{"id":null}', '{"id":[1]}', '{"id":{}}', '{"id":{"a":1}}', '{"k":1}'])
def test_a_later_row_without_its_key_is_refused_though_the_code_is_compiled(keys: list[str], later: str) -> None:
    reader = RowReader(Shape((("id",),)))
    read(reader, [f'{{"id":{key}}}' for key in keys] + ['{"id":%s,"k":1}' % keys[0]])
    with pytest.raises(M2PSchemaError, match="1 of 2 rows of page 3 lack a value of the key"):
        read(reader, [f'{{"id":{keys[0]}}}', later], 3)


@pytest.mark.parametrize(("key", "row"), [(("id",), '{"id":"a"}'), (("k", "id"), '{"k":{"id":"a"}}')])
@pytest.mark.parametrize("odd", ["{}", '{"id":null}', '{"k":null}', '{"k":{"id":null}}'])
def test_a_row_without_its_stored_key_is_refused_after_many_that_have_it(key: Path, row: str, odd: str) -> None:
    shape = Shape((key,))
    shape.add_column(key, Kind.TEXT)
    with pytest.raises(M2PSchemaError, match="1 of 61 rows of page 0 lack a value of the key"):
        read(RowReader(shape), [row] * 60 + [odd])


def test_a_row_with_half_its_key_is_refused() -> None:
    reader = RowReader(Shape((("id",), ("no",))))
    with pytest.raises(M2PSchemaError, match=r"1 of 2 rows of page 0 lack a value of the key \(id, no\)"):
        read(reader, ['{"id":1,"no":1}', '{"id":2}'])


def test_the_refusal_of_a_missing_key_lists_what_there_is() -> None:
    with pytest.raises(M2PSchemaError, match=r"No row of page 0 has the key column 'productId'.*limits\.daily, product_code"):
        read(RowReader(Shape((("productId",),))), ['{"product_code":"x","limits":{"daily":1}}'])


@pytest.mark.parametrize("row", ["1", '"a"', "null", "[]", "[{}]", "true", "1.5"])
def test_a_row_that_is_no_object_is_refused(row: str) -> None:
    reader = RowReader(Shape())
    with pytest.raises(M2PResponseError, match="Page 4, row 1 is not an object"):
        read(reader, ["{}", row], 4)
    read(reader, ['{"a":1}'])
    with pytest.raises(M2PResponseError, match="Page 5, row 0 is not an object"):
        read(reader, [row], 5)


@pytest.mark.parametrize("row", ["{", '{"a":tru}', '{"a":01}', '{"a":NaN}', '{"a":Infinity}', '{"a":"\\ud800"}', "", '{"a":1}}'])
def test_what_is_no_json_is_refused_without_a_word_of_it(row: str) -> None:
    for reader in (RowReader(Shape()), RowReader(Shape())):
        with pytest.raises(M2PResponseError, match="Page 2, row 0 cannot be read"):
            read(reader, [row], 2)
        read(reader, ['{"a":"x"}'])  # and once more with compiled code


@pytest.mark.parametrize("first", ['{"a":[1]}', '{"a":1}', "{}"])
def test_nesting_beyond_reason_is_refused(first: str) -> None:
    reader = RowReader(Shape())
    read(reader, [first])
    with pytest.raises(M2PResponseError):
        read(reader, ['{"a":' + "[" * 100_000 + "]" * 100_000 + "}"], 1)
    with pytest.raises(M2PResponseError):
        read(reader, ['{"a":' * 100_000 + "1" + "}" * 100_000], 1)


def test_integers_of_any_size_but_no_insane_one() -> None:
    assert read_one('{"n":%s}' % ("9" * 4000)) == {("n",): "9" * 4000}
    with pytest.raises(M2PResponseError, match="Page 0, row 0 cannot be read"):
        read_one('{"n":%s}' % ("9" * 5000))


@pytest.mark.parametrize("odd", [2**63, -(2**63) - 1])
def test_an_integer_that_no_column_of_integers_holds_makes_it_one_of_numbers(odd: int) -> None:
    reader = RowReader(Shape())
    read(reader, ['{"n":1}'])
    assert cells_of(read(reader, [f'{{"n":{odd}}}'], 1)) == [(str(odd),)]
    assert reader.shape.columns[0].kind is Kind.NUMBER


@pytest.mark.parametrize("before", ["[1]", "{}", "1.5"])
@pytest.mark.parametrize(("value", "cell"), [('"x"', "x"), ('"12"', "12"), ("true", "true")])
def test_a_value_that_a_column_cannot_hold_makes_it_one_of_texts(before: str, value: str, cell: str) -> None:
    reader = RowReader(Shape())
    read(reader, [f'{{"a":{before}}}'])
    assert cells_of(read(reader, [f'{{"a":{before}}}', f'{{"a":{value}}}'], 1)) == [(before,), (cell,)]
    assert reader.shape.columns[0].kind is Kind.TEXT


def test_a_text_where_numbers_and_objects_were_makes_the_column_one_of_texts() -> None:
    reader = RowReader(Shape())
    read(reader, ['{"o":1}', '{"o":{"p":1}}'])
    assert cells_of(read(reader, ['{"o":2}', '{"o":"x"}'], 1)) == [("2", None), ("x", None)]
    assert reader.shape.columns[0].kind is Kind.TEXT


@pytest.mark.parametrize(("before", "value"), [("{}", "[1]"), ("[1]", "{}")])
def test_an_array_among_objects_is_noticed(before: str, value: str) -> None:
    reader = RowReader(Shape())
    read(reader, [f'{{"a":{before}}}'])
    read(reader, [f'{{"a":{value}}}'], 1)
    assert reader.shape.columns[0].tokens == Tokens.ARRAY | Tokens.JSON


def test_a_number_in_an_array_that_no_decimal_can_hold_is_refused() -> None:
    assert read_one('{"n":1e99999999999999999999}') == {("n",): "1e99999999999999999999"}
    with pytest.raises(M2PResponseError, match="Page 0 holds a value that cannot be read exactly"):
        read_one('{"n":[1e99999999999999999999]}')


@settings(max_examples=60, deadline=None)
@given(VALUES.filter(lambda value: isinstance(value, list)), SEEDS)
def test_arrays_are_json_with_sorted_keys_and_without_space(value: Any, chance: random.Random) -> None:
    text = spell(Object((("a", shuffled(value, random.Random(0))),)))
    cell = read_one(text)["a",]
    assert read_one(spell(Object((("a", shuffled(value, chance)),)), chance))["a",] == cell
    assert agrees(cell, plain(shuffled(value, chance)))


def test_the_cache_of_canonical_texts_stays_bounded() -> None:
    reader = RowReader(Shape())
    for start in range(0, 20_000, 1000):
        rows = read(reader, [f'{{"a":[{n}]}}' for n in range(start, start + 1000)])
        assert [cells[0] for cells in cells_of(rows)] == [f"[{n}]" for n in range(start, start + 1000)]


def test_a_shape_that_does_not_grow_reads_only_its_columns() -> None:
    first = RowReader(Shape())
    read(first, ['{"id":"a","limits":{"daily":1},"both":1}'])
    shape = Shape((("id",),), grows=False)
    for column in first.shape.columns:
        assert column.kind is not None
        shape.add_column(column.path, column.kind)
    reader = RowReader(shape)
    for times in (1, 2, 3):
        rows = read(reader, ['{"id":"b","new":[1],"limits":{"daily":2,"x":"y"},"both":{"x":1}}', '{"id":"c","limits":5}'])
        assert cells_of(rows) == [("b", "2", None), ("c", None, None)]
        assert shape.ignored == dict.fromkeys([("new",), ("limits",), ("limits", "x"), ("both", "x")], times)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NUMBERS | TEXTS | st.booleans() | st.none()), min_size=1, max_size=6), SEEDS)
def test_stored_columns_read_like_fresh_ones(values: list[tuple[Any]], chance: random.Random) -> None:
    fresh = RowReader(Shape())
    texts = [spell(Object((("a", value),)), chance) for (value,) in values]
    expected = read(fresh, texts)
    stored = Shape()
    for column in fresh.shape.columns:
        assert column.kind is not None
        stored.add_column(column.path, column.kind)
    again = RowReader(stored)
    assert [(rows.lines, cells_of(rows)) for rows in (read(again, [text]) for text in texts)] == [
        ([line], [cells]) for line, cells in zip(expected.lines, cells_of(expected), strict=True)
    ]
    assert [column.kind for column in stored.columns] == [column.kind for column in fresh.shape.columns]


class Attentive(Shape):
    """Notes how many rows it took in at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.observed: list[int] = []

    def observe(self, rows: Any, page: int) -> None:
        self.observed.append(len(rows))
        super().observe(rows, page)


def test_what_rows_look_like_is_learned_from_a_page_once() -> None:
    # Such rows have to be spelled anew, which is found out for each part of the page.
    whole = [raw(f'{{"id":{n},"o":{{"x":1}},"o":{{"y":{n}}}}}') for n in range(300)]
    shape = Attentive()
    reader = RowReader(shape)
    parts = [reader.read(whole[at : at + 100], 0, whole=whole) for at in range(0, 300, 100)]
    assert [row for part in parts for row in cells_of(part)] == [(str(n), str(n)) for n in range(300)]
    assert shape.observed == [50, 300]
