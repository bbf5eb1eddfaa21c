"""How tables change shape: new columns, wider types, policies, hostile names, columns of others."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_m2p.exceptions import M2PConfigError, M2PLoadError, M2PSchemaError
from tests.integration.warehouse.streams import Pages, Warehouse, counts, in_utc, number
from tests.unit.columns.documents import HOSTILE, instant_of, parse

MODES = ["append", "replace", "upsert", "history"]


def changes(result: dict[str, Any]) -> list[tuple[str, ...]]:
    return [(c["change"], c.get("column", c["field"]), c.get("from", ""), c.get("type", "")) for c in result["schema_changes"]]


def value_of(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


WIDENINGS = [
    ("int-number", "1", "2.50", "number"),
    ("int-big", "1", "12345678901234567890", "number"),
    ("int-text", "1", '"x"', "text"),
    ("number-text", "8500.00", '"x"', "text"),
    ("bool-text", "true", '"x"', "text"),
    ("bool-int", "false", "0", "text"),
    ("date-text", '"2025-09-25"', '"soon"', "text"),
    ("date-instant", '"2025-09-25"', '"2025-09-25T00:00:00Z"', "text"),
    ("instant-text", '"2025-09-25T06:53:54.25+05:30"', '"soon"', "text"),
    ("json-text", '[1.10,{"a":"b"}]', '"x"', "text"),
    ("int-json", "1", "[1]", "text"),
    ("text-int", '"x"', "1", "text"),
]


def assert_kept(found: Any, before: str, kind: str) -> None:
    """See that a column holds a value that was sent before the column became one of this kind."""
    value = value_of(before)
    if kind == "number":
        assert number(found) == value
    elif isinstance(value, bool | list):
        assert parse(found) == value
    elif isinstance(value, int | Decimal):
        assert Decimal(found) == value
    else:
        assert found == value or datetime.fromisoformat(found) == instant_of(value) is not None


def assert_new(found: Any, after: str) -> None:
    value = value_of(after)
    assert (Decimal(found) if isinstance(value, int | Decimal) else found) == (after if isinstance(value, list) else value)


@pytest.mark.parametrize(("before", "after", "kind"), [w[1:] for w in WIDENINGS], ids=[w[0] for w in WIDENINGS])
def test_a_column_widens_and_keeps_what_it_holds(warehouse: Warehouse, before: str, after: str, kind: str) -> None:
    unchanged = f'{{"id":"a","v":{before}}}'
    warehouse.load(f'[{unchanged},{{"id":"n","v":null}},{{"id":"z","v":{before}}}]'.encode())
    later = f'[{unchanged},{{"id":"n"}},{{"id":"z","v":{after}}}]'.encode()
    result = warehouse.load(later)
    assert counts(result) == (0, 1, 2, 0)
    widened = [] if kind == "text" and before == '"x"' else [("widen", "v", kind)]
    assert [(c["change"], c["column"], c["type"]) for c in result["schema_changes"]] == widened
    rows = {row["id"]: row["v"] for row in warehouse.read()}
    assert_kept(rows["a"], before, kind)
    assert rows["n"] is None
    assert_new(rows["z"], after)
    assert changes(warehouse.load(later)) == []


def test_columns_widen_in_a_history_and_keep_what_its_past_holds(warehouse: Warehouse) -> None:
    names = [name.replace("-", "_") for name, *_ in WIDENINGS]

    def row(key: str, values: list[str]) -> str:
        fields = ",".join(f'"{name}":{value}' for name, value in zip(names, values, strict=True))
        return f'{{"id":"{key}",{fields}}}'

    before, after = ([widening[n] for widening in WIDENINGS] for n in (1, 2))
    nothing = row("n", ["null"] * len(names))
    warehouse.load(f"[{row('a', before)},{nothing},{row('z', before)}]".encode(), write_mode="history")
    later = f'[{row("a", before)},{{"id":"n"}},{row("z", after)}]'.encode()
    result = warehouse.load(later, write_mode="history")
    assert counts(result) == (0, 1, 2, 0)
    assert {c["column"]: c["type"] for c in result["schema_changes"] if c["change"] == "widen"} == {
        name: kind for name, (_, was, _, kind) in zip(names, WIDENINGS, strict=True) if was != '"x"'
    }
    assert len(result["schema_changes"]) == len(names) - 1
    rows = {(found["id"], found["_m2p_valid_to"] is None): found for found in warehouse.read(meta=True)}
    for name, (_, was, now, kind) in zip(names, WIDENINGS, strict=True):
        assert_kept(rows["a", True][name], was, kind)
        assert_kept(rows["z", False][name], was, kind)
        assert rows["n", True][name] is None
        assert_new(rows["z", True][name], now)
    assert changes(warehouse.load(later, write_mode="history")) == []


TURNS = [
    ("date", '"2025-09-25"', '"soon"'),
    ("instant", '"2025-09-25T06:53:54.250+05:30"', '""'),
    ("array", '["b",{"z":1.10,"a":null}]', "7"),
]


@pytest.mark.parametrize(("first", "other"), [turn[1:] for turn in TURNS], ids=[turn[0] for turn in TURNS])
@pytest.mark.parametrize("reviewed", [False, True])
def test_values_that_turn_out_to_be_texts_keep_their_spelling(
    warehouse: Warehouse, first: str, other: str, reviewed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    pages = Pages([f'[{{"id":"a","v":{first}}},{{"id":"n"}}]'.encode(), f'[{{"id":"z","v":{other}}}]'.encode()], total_rows=3)
    loader = warehouse.loader()
    if reviewed and warehouse.way in ("mariadb", "portable"):
        with pytest.raises(M2PConfigError, match="cannot be rehearsed there"):
            loader.stage(pages)
        return
    if reviewed:
        loader.stage(pages)
    result = (loader.publish() if reviewed else loader.run(pages)).as_dict()
    assert (result["rows_read"], result["pages"], result["duplicates"]) == (3, 2, 0)
    texts = {row["id"]: row["v"] for row in warehouse.read()}
    spelled = '["b",{"a":null,"z":1.10}]' if first.startswith("[") else first.strip('"')
    assert texts == {"a": spelled, "n": None, "z": other.strip('"')}
    loses = warehouse.way in ("psycopg", "psycopg2") and not first.startswith('"2025-09-25"')
    assert (pages.read_again is not None) is loses
    assert caplog.text.count("Reading the list once more.") == loses
    assert pages.closed
    assert pages.read_again is None or pages.read_again.closed
    assert not any(name.startswith("_m2p_stage_") for name in warehouse.tables())


def test_rows_that_stay_as_they_are_need_no_second_reading_when_a_field_becomes_text(warehouse: Warehouse) -> None:
    known = b'[{"id":"a","v":"2025-09-25T06:53:54Z"},{"id":"b","v":"2025-09-25T06:53:55Z"}]'
    warehouse.load(known)
    pages = Pages([known, b'[{"id":"z","v":"soon"}]'])
    assert counts(warehouse.loader().run(pages).as_dict()) == (1, 0, 2, 0)
    assert pages.read_again is None
    assert warehouse.read(id="z") == [{"id": "z", "v": "soon"}]


def test_fields_that_become_text_one_after_the_other_have_the_list_read_once_for_each_kind(postgres: Warehouse) -> None:
    instant, array = b'"2025-09-25T06:53:54Z"', b"[1]"
    pages = Pages([b'[{"id":"a","v":%b,"w":%b}]' % (instant, array), b'[{"id":"b","v":"","w":%b}]' % array, b'[{"id":"c","w":""}]'])
    postgres.loader().run(pages)
    assert pages.read_again is not None
    assert pages.read_again.read_again is not None
    assert pages.read_again.read_again.read_again is None
    assert [(row["v"], row["w"]) for row in postgres.read()] == [("2025-09-25T06:53:54Z", "[1]"), ("", "[1]"), (None, "")]


def test_a_type_is_inferred_over_the_whole_load_not_the_first_page(warehouse: Warehouse) -> None:
    values = ["1", "2.5", "null", '"2025-01-01"', "true"]
    warehouse.load(*(f'[{{"id":{n},"v":{value}}}]'.encode() for n, value in enumerate(values)))
    assert [row["v"] for row in sorted(warehouse.read(), key=lambda r: r["id"])] == ["1", "2.5", None, "2025-01-01", "true"]


def test_a_new_field_adds_a_column_and_a_vanished_one_stays(warehouse: Warehouse) -> None:
    warehouse.load([{"id": "a", "old": 1}, {"id": "b", "old": 2}])
    result = warehouse.load([{"id": "a", "new": {"x": True}}, {"id": "b", "old": 2}])
    assert changes(result) == [("add", "new__x", "", "bool")]
    assert counts(result) == (0, 1, 1, 0)
    assert [(r["id"], r["old"], r["new__x"]) for r in warehouse.read()] == [("a", None, True), ("b", 2, None)]


@pytest.mark.parametrize("mode", ["upsert", "replace"])
def test_the_key_widens_where_the_database_can(warehouse: Warehouse, mode: str) -> None:
    warehouse.load([{"id": 1, "v": 1}, {"id": 2, "v": 1}], write_mode=mode)
    if warehouse.way == "portable":
        with pytest.raises(M2PSchemaError, match="key column 'id' would have to change from int to text.*Load into a new table"):
            warehouse.load([{"id": 1, "v": 1}, {"id": "x"}], write_mode=mode, max_delete_ratio=1)
        assert len(warehouse.read()) == 2
        return
    result = warehouse.load([{"id": 1, "v": 1}, {"id": "x", "v": 1}], write_mode=mode, max_delete_ratio=1)
    assert changes(result) == [("widen", "id", "int", "text")]
    assert counts(result) == (1, 0, 1, 1)
    assert {row["id"] for row in warehouse.read()} == ({"1", "2", "x"} if mode == "upsert" else {"1", "x"})
    assert counts(warehouse.load([{"id": 1, "v": 1}, {"id": "x", "v": 1}], write_mode=mode)) == (0, 0, 2, 0)
    assert counts(warehouse.load([{"id": 1, "v": 2}, {"id": "x", "v": 1}], write_mode=mode)) == (0, 1, 1, 0)


@pytest.mark.parametrize("mode", ["upsert", "replace", "history"])
@pytest.mark.parametrize("key", [2**63, -(10**30)])
def test_a_key_beyond_64_bits_widens_a_table_of_whole_numbers(warehouse: Warehouse, mode: str, key: int) -> None:
    warehouse.load([{"id": 1}, {"id": 2}], write_mode=mode)
    rows = [{"id": 1}, {"id": key}, {"id": 2}]
    if warehouse.way == "portable":
        with pytest.raises(M2PSchemaError, match="key column 'id' would have to change from int to number"):
            warehouse.load(rows, write_mode=mode)
        return
    assert counts(warehouse.load(rows[:1], rows[1:], write_mode=mode)) == (1, 0, 2, 0)
    assert {number(row["id"]) for row in warehouse.read()} == {1, 2, key}
    assert counts(warehouse.load(rows, write_mode=mode)) == (0, 0, 3, 0)


def test_keys_of_a_kind_that_the_table_does_not_have_yet_are_new(warehouse: Warehouse) -> None:
    """The first page makes the key text; the keys of the next ones are not to be found among the numbers of the table."""
    if warehouse.way == "portable":
        return  # it refuses to widen a key: see above
    warehouse.load([{"id": n} for n in range(6)])
    pages = [[{"id": 1}, {"id": "x"}], [{"id": "2"}, {"id": "y"}], [{"id": 3}], [{"id": "z"}]]
    result = warehouse.load(*pages, max_delete_ratio=1)
    assert changes(result) == [("widen", "id", "int", "text")]
    assert counts(result) == (3, 0, 3, 3)
    assert counts(warehouse.load(*pages)) == (0, 0, 6, 0)


def test_freeze_lists_every_change_and_writes_nothing(warehouse: Warehouse) -> None:
    with pytest.raises(M2PSchemaError, match=r"does not exist, and schema_policy='freeze' forbids to create it"):
        warehouse.load([{"id": "a"}], schema_policy="freeze")
    warehouse.load([{"id": "a", "n": 1}])
    before = warehouse.read(meta=True)
    assert counts(warehouse.load([{"id": "a", "n": 1}], schema_policy="freeze")) == (0, 0, 1, 0)
    with pytest.raises(M2PSchemaError, match=r"widen n from int to number; add new bool; add o__x text\. Nothing was written"):
        warehouse.load([{"id": "b", "n": Decimal("2.5"), "new": True, "o": {"x": "secret"}}], schema_policy="freeze", max_delete_ratio=1)
    assert warehouse.read(meta=True) == before


def test_ignore_drops_unknown_fields_and_says_so(warehouse: Warehouse) -> None:
    warehouse.load([{"id": "a", "n": 1}])
    result = warehouse.load([{"id": "a", "n": 2, "new": 1, "o": {"x": 1}}, {"id": "b", "o": 1}], schema_policy="ignore")
    assert sorted(changes(result)) == [("ignore", "new", "", ""), ("ignore", "o", "", ""), ("ignore", "o.x", "", "")]
    assert {change["field"]: change["values"] for change in result["schema_changes"]} == {"new": 1, "o": 1, "o.x": 1}
    assert [(row["id"], row["n"]) for row in warehouse.read()] == [("a", 2), ("b", None)]
    assert "ignore" in warehouse.loads()[-1]["schema_changes"]


def test_values_that_are_ignored_are_counted(first_class: Warehouse) -> None:
    first_class.load([{"id": "a"}])
    pages: list[list[dict[str, Any]]] = [
        [{"id": f"{page}-{n}", "new": None if n % 3 else n, "o": {"x": n} if n % 2 else None} for n in range(120)]
        for page in range(3)
    ]
    pages[2][70] = {"id": "2-70", "new": 1, "o": 7, "later": False}  # of another form than all before it
    result = first_class.load(*pages, schema_policy="ignore", max_delete_ratio=1)
    ignored = {change["field"]: change["values"] for change in result["schema_changes"]}
    assert ignored == {"new": 121, "o.x": 180, "o": 1, "later": 1}


def test_fields_once_ignored_arrive_when_the_policy_is_evolve_again(warehouse: Warehouse) -> None:
    rows = [{"id": "a", "n": 1, "new": 1}, {"id": "b", "n": 1}]
    warehouse.load([{"id": "a", "n": 1}, {"id": "b", "n": 1}])
    assert counts(warehouse.load(rows, schema_policy="ignore")) == (0, 0, 2, 0)
    rows[0]["n"] = rows[1]["n"] = 2
    assert counts(warehouse.load(rows, schema_policy="ignore")) == (0, 2, 0, 0)
    assert counts(warehouse.load(rows)) == (0, 1, 1, 0)
    assert [row["new"] for row in warehouse.read()] == [1, None]


def test_rows_arrive_anew_when_they_are_flattened_otherwise(warehouse: Warehouse) -> None:
    rows = [{"id": "a", "o": {"x": 1}}, {"id": "b"}]
    warehouse.load(rows, max_depth=0)
    assert counts(warehouse.load(rows)) == (0, 1, 1, 0)
    assert [row["o__x"] for row in warehouse.read()] == [1, None]


def test_ignore_creates_a_table_that_is_missing(first_class: Warehouse) -> None:
    first_class.load([{"id": "a", "n": 1}], schema_policy="ignore")
    assert first_class.read() == [{"id": "a", "n": 1}]


@pytest.mark.parametrize("order", [1, -1])
def test_colliding_names_across_loads(warehouse: Warehouse, order: int) -> None:
    first, second = [("productId", "one"), ("product_id", "two")][::order]
    warehouse.load([{"id": "a", first[0]: first[1]}])
    warehouse.load([{"id": "a", second[0]: second[1], first[0]: first[1]}])
    warehouse.load([{"id": "b", "ProductID": "three", "PRODUCT-ID": "four"}, {"id": "a", second[0]: second[1], first[0]: first[1]}])
    fields = warehouse.fields()
    rows = {row["id"]: row for row in warehouse.read()}
    assert fields[first[0],] == "product_id"
    assert [rows["a"][fields[name,]] for name, _ in (first, second)] == [first[1], second[1]]
    assert [rows["b"][fields[name,]] for name in ("ProductID", "PRODUCT-ID")] == ["three", "four"]


RESERVED = ("select", "table", "order", "group", "user", "end", "null", "primary", "xmin", "ctid", "rowid", "oid", "rank", "value")


def test_hostile_names_are_columns_like_others(warehouse: Warehouse) -> None:
    names = [*HOSTILE, *RESERVED, *(name.upper() for name in RESERVED), "'; DROP TABLE products; --", "🙂", "%(id)s", ":id", "?", "c0", "ord"]
    names = sorted(set(names) - {"id"})
    row = {"id": "a"} | {name: f"v{n}" for n, name in enumerate(names)}
    warehouse.load([row])
    nested = {"id": "b", "nest": dict(row)}
    warehouse.load([row, nested])
    row[names[0]] = 5
    assert counts(warehouse.load([row, nested])) == (0, 1, 1, 0)
    fields = warehouse.fields()
    found = {r["id"]: r for r in warehouse.read()}
    assert {name: found["a"][fields[name,]] for name in names} == {n: str(row[n]) for n in names}
    assert {name: found["b"][fields["nest", name]] for name in names} == {n: nested["nest"][n] for n in names}  # type: ignore[index]
    assert max(len(column.encode()) for column in fields.values()) <= {"mariadb": 64}.get(warehouse.way, 9999 if warehouse.way == "sqlite" else 63)


def test_names_over_the_limit_stay_apart(warehouse: Warehouse) -> None:
    names = ["x" * 70 + str(n) for n in range(3)] + ["é" * 63]
    row = {"id": "a"} | {name: n for n, name in enumerate(names)}
    warehouse.load([row])
    warehouse.load([row | {"x" * 71: 9}])
    fields = warehouse.fields()
    (found,) = warehouse.read()
    assert [found[fields[name,]] for name in [*names, "x" * 71]] == [0, 1, 2, 3, 9]


TABLES = ["Order", "select", 'we"ird', "per%cent", "co:lon", "semi;colon", "back`tick", "sp ace", "tüb", "a.b"]


@pytest.mark.parametrize(("mode", "table"), [*(("upsert", table) for table in TABLES), ("append", " ".join(TABLES[2:]))])
def test_any_table_name(warehouse: Warehouse, table: str, mode: str) -> None:
    for n in range(2):
        warehouse.load([{"id": "a", "n": n}], table=table, write_mode=mode, load_id="x")
    warehouse.load([{"id": "a", "n": "x", "new": 1}], table=table, write_mode=mode, load_id="x")
    assert warehouse.read(table) == [{"id": "a", "n": "x", "new": 1}]
    assert not [name for name in warehouse.tables() if "stage_" in name or "wider" in name]


def test_a_schema_of_its_own(postgres: Warehouse) -> None:
    postgres.execute('CREATE SCHEMA "Odd %schema:x"')
    for n in (1, "x"):
        postgres.load([{"id": "a", "n": n}], schema="Odd %schema:x")
    names = sa.inspect(postgres.engine).get_table_names(schema="Odd %schema:x")
    assert sorted(names) == ["_m2p_columns", "_m2p_loads", "_m2p_staged", "products"]
    assert postgres.tables() == set()


def test_two_schemas_keep_their_own_books(postgres: Warehouse) -> None:
    for schema in ("one", "two"):
        postgres.execute(f"CREATE SCHEMA {schema}")
        assert counts(postgres.load([{"id": "a"}], schema=schema, load_id="x")) == (1, 0, 0, 0)
    assert counts(postgres.load([{"id": "a"}], schema="one")) == (0, 0, 1, 0)


def test_more_columns_than_the_database_takes(warehouse: Warehouse) -> None:
    limit = {"sqlite": 2000, "mariadb": 1017, "portable": 1000}.get(warehouse.way, 1600)
    warehouse.load([{"id": "a"}])
    with pytest.raises(M2PSchemaError, match=rf"need \d+ columns, and a table of this database has at most {limit}\. Nothing was written"):
        warehouse.load([{"id": "b"} | {f"f{n}": True for n in range(2500)}], max_delete_ratio=1)
    assert warehouse.read() == [{"id": "a"}]
    assert not [name for name in warehouse.tables() if "stage_" in name]


def test_hundreds_of_columns(warehouse: Warehouse) -> None:
    # In MySQL's InnoDB each text takes up to 40 of the 8126 bytes that a row may have, and the stage has texts.
    row = {"id": "a"} | {f"f{n}": True for n in range(190 if warehouse.way == "mariadb" else 700)}
    warehouse.load([row])
    assert counts(warehouse.load([row, {"id": "b", "f3": False}])) == (1, 0, 1, 0)
    assert sum(value is not None for value in warehouse.read()[1].values()) == 2


# -- what others did to the table --------------------------------------------------------------------------------------


def test_columns_of_others_survive(warehouse: Warehouse) -> None:
    warehouse.load([{"id": "a", "n": 1}])
    warehouse.execute("ALTER TABLE products ADD COLUMN remark VARCHAR(20) DEFAULT 'none' NOT NULL")
    warehouse.execute("UPDATE products SET remark = 'mine'")
    warehouse.load([{"id": "a", "n": 2}, {"id": "b", "n": 1}])
    warehouse.load([{"id": "a", "n": "x"}, {"id": "b", "n": 1}])  # in SQLite this makes the table anew
    warehouse.load([{"id": "a", "n": "x"}, {"id": "b", "n": 1}, {"id": "c", "n": 1}])
    assert [(row["id"], row["n"], row["remark"]) for row in warehouse.read()] == [("a", "x", "mine"), ("b", "1", "none"), ("c", "1", "none")]


def test_a_unique_index_of_others_is_no_reason_not_to_append(first_class: Warehouse) -> None:
    first_class.load([{"id": "a"}], write_mode="append")
    first_class.execute("CREATE UNIQUE INDEX mine ON products (id)")
    assert counts(first_class.load([{"id": "b"}], write_mode="append")) == (1, 0, 0, 0)


@pytest.mark.parametrize("unique", [True, False])
def test_indexes_views_and_triggers_of_others_survive_a_rebuild(sqlite: Warehouse, unique: bool) -> None:
    sqlite.load([{"id": "a", "n": 1}])
    sqlite.execute(f"CREATE {'UNIQUE' if unique else ''} INDEX mine ON products (n)")
    sqlite.execute("CREATE VIEW dear AS SELECT id FROM products WHERE n > 0")
    sqlite.execute("CREATE TABLE seen (id TEXT)")
    sqlite.execute("CREATE TRIGGER watch AFTER INSERT ON products BEGIN INSERT INTO seen VALUES (new.id); END")
    sqlite.load([{"id": "a", "n": "x"}, {"id": "b", "n": "y"}])
    with sqlite.engine.connect() as connection:
        objects = connection.execute(sa.text("SELECT type, name, tbl_name FROM sqlite_master WHERE name IN ('mine', 'dear', 'watch')")).all()
        assert sorted(map(tuple, objects)) == [("index", "mine", "products"), ("trigger", "watch", "products"), ("view", "dear", "dear")]
        assert connection.execute(sa.text("SELECT id FROM dear ORDER BY id")).scalars().all() == ["a", "b"]
        assert connection.execute(sa.text("SELECT id FROM seen")).scalars().all() == ["b"]


def test_a_view_in_the_way_of_a_wider_type_is_a_clear_refusal(postgres: Warehouse) -> None:
    postgres.load([{"id": "a", "n": 1}])
    postgres.execute("CREATE VIEW dear AS SELECT n FROM products")
    with pytest.raises(M2PLoadError, match=r"cannot alter type of a column used by a view.*Nothing was written"):
        postgres.load([{"id": "a", "n": "x"}])
    assert postgres.read() == [{"id": "a", "n": 1}]


def test_a_dropped_column_heals(warehouse: Warehouse) -> None:
    rows = [{"id": "a", "n": 1, "m": "x"}, {"id": "b", "m": "y"}]
    warehouse.load(rows)
    warehouse.execute("ALTER TABLE products DROP COLUMN n")
    result = warehouse.load(rows)
    assert changes(result) == [("add", "n", "", "int")]
    assert [(row["id"], row["n"], row["m"]) for row in warehouse.read()] == [("a", 1, "x"), ("b", None, "y")]
    assert counts(warehouse.load(rows)) == (0, 0, 2, 0)


@pytest.mark.parametrize("mode", ["upsert", "history"])
def test_a_dropped_column_heals_for_every_tenant(warehouse: Warehouse, mode: str) -> None:
    rows = [{"id": "a", "n": 1}]
    for tenant in ("ACME_CORP", "GLOBEX"):
        warehouse.load(rows, tenant_id=tenant, write_mode=mode)
    warehouse.execute("ALTER TABLE products DROP COLUMN n")
    for tenant in ("ACME_CORP", "GLOBEX"):
        warehouse.load(rows, tenant_id=tenant, write_mode=mode)
        assert counts(warehouse.load(rows, tenant_id=tenant, write_mode=mode)) == (0, 0, 1, 0)
    live = [row for row in warehouse.read(meta=True) if row.get("_m2p_valid_to") is None]
    assert [(row["_m2p_tenant_id"], row["n"]) for row in live] == [("ACME_CORP", 1), ("GLOBEX", 1)]


def test_a_renamed_column_is_not_forgotten(warehouse: Warehouse) -> None:
    warehouse.load([{"id": "a", "n": 1}])
    warehouse.execute("ALTER TABLE products RENAME COLUMN n TO kept")
    warehouse.load([{"id": "a", "n": 1}])
    assert warehouse.read() == [{"id": "a", "kept": 1, "n": 1}]


def test_a_column_that_was_made_for_a_field_beforehand_is_taken(warehouse: Warehouse) -> None:
    warehouse.load([{"id": "a"}])
    warehouse.execute("ALTER TABLE products ADD COLUMN unit_fee BIGINT")
    assert changes(warehouse.load([{"id": "a", "unitFee": 1}])) == [("adopt", "unit_fee", "int", "int")]
    assert warehouse.read() == [{"id": "a", "unit_fee": 1}]
    warehouse.load([{"id": "a", "unitFee": Decimal("1.5"), "unit_fee": "other"}])
    (row,) = warehouse.read()
    assert number(row["unit_fee"]) == Decimal("1.5")
    assert row[warehouse.fields()["unit_fee",]] == "other"


def test_a_column_that_was_made_beforehand_is_widened_for_the_first_values(warehouse: Warehouse) -> None:
    warehouse.load([{"id": "a"}])
    warehouse.execute("ALTER TABLE products ADD COLUMN fee BIGINT")
    warehouse.execute("UPDATE products SET fee = 7")
    assert changes(warehouse.load([{"id": "b", "fee": Decimal("0.1")}], complete=False)) == [("adopt", "fee", "int", "number")]
    assert [number(row["fee"]) for row in warehouse.read()] == [7, Decimal("0.1")]


@pytest.mark.parametrize(("value", "text"), [('"2025-01-01T05:30:00+05:30"', "2025-01-01T05:30:00+05:30"), ("1.50", "1.50")])
def test_a_text_that_was_made_beforehand_takes_values_as_they_were_sent(first_class: Warehouse, value: str, text: str) -> None:
    first_class.load([{"id": "a"}])
    first_class.execute("ALTER TABLE products ADD COLUMN f TEXT")
    first_class.load(f'[{{"id":"a","f":{value}}}]'.encode())
    assert first_class.read() == [{"id": "a", "f": text}]


def test_two_fields_cannot_both_take_a_column_made_beforehand(warehouse: Warehouse) -> None:
    warehouse.load([{"id": "a"}])
    warehouse.execute("ALTER TABLE products ADD COLUMN unit_fee BIGINT")
    warehouse.load([{"id": "a", "unit_fee": 2, "unitFee": 1}])
    (row,) = warehouse.read()
    fields = warehouse.fields()
    assert (row[fields["unitFee",]], row[fields["unit_fee",]]) == (1, 2)
    assert fields["unitFee",] == "unit_fee"  # the first in alphabetical order


@pytest.mark.parametrize("type_name", ["FLOAT", "VARCHAR(5)", "NUMERIC(9,2)", "SMALLINT"])
def test_a_column_that_cannot_hold_a_field_exactly_is_not_taken(warehouse: Warehouse, type_name: str) -> None:
    warehouse.load([{"id": "a"}])
    warehouse.execute(f"ALTER TABLE products ADD COLUMN fee {type_name}")
    with pytest.raises(M2PSchemaError, match="Column 'fee' of table 'products' has the type .* cannot hold the field 'fee' exactly"):
        warehouse.load([{"id": "a", "fee": Decimal("1.5")}])
    assert warehouse.read() == [{"id": "a", "fee": None}]


def test_sqlites_numeric_is_no_exact_column(sqlite: Warehouse) -> None:
    sqlite.load([{"id": "a"}])
    sqlite.execute("ALTER TABLE products ADD COLUMN fee NUMERIC")
    with pytest.raises(M2PSchemaError, match="cannot hold the field 'fee' exactly"):
        sqlite.load(b'[{"id":"a","fee":12345678901234567890.123456789}]')


def test_dates_widen_whatever_the_date_style(postgres: Warehouse) -> None:
    options = {"options": "-c datestyle=German -c timezone=Asia/Kolkata"}
    indian = Warehouse("psycopg", postgres.url.update_query_dict(options))
    indian.load([{"id": "a", "d": "2025-09-05", "t": "2025-09-05T06:53:54Z"}])
    assert postgres.read()[0]["d"] == date(2025, 9, 5)
    assert in_utc(postgres.read()[0]["t"]) == datetime(2025, 9, 5, 6, 53, 54, tzinfo=UTC)
    indian.load([{"id": "a", "d": "2025-09-05", "t": "2025-09-05T06:53:54Z"}, {"id": "b", "d": "x", "t": "y"}])
    assert postgres.read()[0] == {"id": "a", "d": "2025-09-05", "t": "2025-09-05T06:53:54.000000Z"}
    indian.load([{"id": "c", "e": "2025-09-05"}], [{"id": "d", "e": "x"}], complete=False)  # in the stage
    assert [row["e"] for row in postgres.read()] == [None, None, "2025-09-05", "x"]
    indian.close()


@pytest.mark.parametrize("index", ["UNIQUE INDEX mine ON products (n)", "INDEX mine ON products (n, m)"])
def test_an_index_goes_with_a_column_that_becomes_text_in_mariadb(mariadb: Warehouse, index: str) -> None:
    mariadb.load([{"id": 1, "n": 1, "m": 7}])
    mariadb.execute(f"CREATE {index}")
    mariadb.load([{"id": 1, "n": "x", "m": 7}])
    assert mariadb.read() == [{"id": 1, "n": "x", "m": 7}]


def test_indexes_and_checks_of_others_survive_a_wider_number_in_mariadb(mariadb: Warehouse) -> None:
    rows = [{"id": 1, "n": 1, "m": 7}, {"id": 2, "n": 2, "m": 7}]
    mariadb.load(rows)
    mariadb.execute("CREATE INDEX one ON products (n)")
    mariadb.execute("CREATE UNIQUE INDEX two ON products (n, m)")
    mariadb.execute("ALTER TABLE products ADD CONSTRAINT small CHECK (n < m)")
    wider = [{"id": 1, "n": Decimal("1.5"), "m": 7}, rows[1]]
    assert counts(mariadb.load(wider)) == (0, 1, 1, 0)
    assert mariadb.read() == wider
    table = mariadb.table()
    assert {index.name: [column.name for column in index.columns] for index in table.indexes} == {"one": ["n"], "two": ["n", "m"]}
    assert "small" in {constraint.name for constraint in table.constraints}
    with pytest.raises(M2PSchemaError, match="Column 'n' of table 'products' has to become text, which the unique index 'two' does not allow"):
        mariadb.load([wider[0], {"id": 2, "n": "x", "m": 7}])
    mariadb.execute("DROP INDEX two ON products")
    with pytest.raises(M2PLoadError, match="Somebody else's index, check, foreign key or generated column has a column that must change: drop it"):
        mariadb.load([wider[0], {"id": 2, "n": "x", "m": 7}])
    mariadb.execute("ALTER TABLE products DROP CONSTRAINT small")
    mariadb.load([wider[0], {"id": 2, "n": "x", "m": 7}])
    assert [row["n"] for row in mariadb.read()] == ["1.5", "x"]


@pytest.mark.parametrize("depth", [0, 1, 32])
def test_each_depth_has_hashes_of_its_own(sqlite: Warehouse, depth: int) -> None:
    row = [{"id": "a", "n": {"x": 1}}]
    sqlite.load(row, max_depth=depth)
    changes = sqlite.load(row, max_depth=32 - depth)["schema_changes"]
    assert bool(changes) == (depth != 1)


def test_ignore_needs_a_table_that_is_known(first_class: Warehouse) -> None:
    first_class.load([{"id": "a", "v": 1}])
    first_class.execute("DELETE FROM _m2p_columns")
    with pytest.raises(M2PSchemaError, match=r"'products' was not made by a load.*Load once with schema_policy='evolve'"):
        first_class.load([{"id": "a", "v": 2}], schema_policy="ignore")
    first_class.load([{"id": "a", "v": 2}])
    first_class.load([{"id": "a", "v": 3, "w": 1}], schema_policy="ignore")
    assert first_class.read() == [{"id": "a", "v": 3}]


@pytest.mark.parametrize("way", ["table", "books", "child table"])
def test_a_search_path_that_leads_elsewhere_is_refused(postgres: Warehouse, way: str) -> None:
    child_tables = way == "child table"
    postgres.load([{"id": "a", "fees": [1]}], table="others" if way == "books" else "products", child_tables=child_tables)
    if way != "books":
        postgres.execute("DROP TABLE _m2p_columns, _m2p_loads, _m2p_staged")
    if child_tables:
        postgres.execute("DROP TABLE products")
    postgres.execute("CREATE SCHEMA etl")
    other = Warehouse("psycopg", postgres.url.update_query_dict({"options": "-csearch_path=etl,public"}))
    try:
        with pytest.raises(M2PConfigError, match=r"search_path of this connection leads to public\.\w+, but .* 'etl'\. Name the schema"):
            other.load([{"id": "a", "fees": [2]}], child_tables=child_tables)
        assert other.load([{"id": "b"}], schema="etl")["inserted"] == 1
        assert other.load([{"id": "c"}], schema="public", complete=False)["table"] == "public.products"
    finally:
        other.close()


def test_what_else_is_called_like_a_child_table_in_the_search_path_does_not_matter(postgres: Warehouse) -> None:
    postgres.execute("CREATE SCHEMA etl")
    other = Warehouse("psycopg", postgres.url.update_query_dict({"options": "-csearch_path=etl,public"}))
    try:
        for value in (1, 2):
            other.load([{"id": "a", "fees": [value]}], child_tables=True)
            postgres.execute("CREATE OR REPLACE VIEW products__active AS SELECT * FROM etl.products")
            postgres.execute("CREATE TABLE IF NOT EXISTS products__notes (note text)")
        assert other.read("products__fees") == [{"id": "a", "value": 2}]
    finally:
        other.close()
