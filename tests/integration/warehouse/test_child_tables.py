"""Arrays as tables of their own, in step with their rows."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_m2p.exceptions import M2PSchemaError
from tests.integration.warehouse import model
from tests.integration.warehouse.effort import PATIENCE, effort
from tests.integration.warehouse.streams import Warehouse, counts

pytestmark = PATIENCE

FEES = b'[{"id":"a","fees":[{"code":"L","amount":1.10},{"code":"R","amount":2}]},{"id":"b","fees":[]},{"id":"c","n":1}]'
LATER = b'[{"id":"a","fees":[{"code":"L","amount":1.20}]},{"id":"b","fees":[{"code":"N","more":{"x":[1]}}]},{"id":"c","n":1}]'


def fees(warehouse: Warehouse, **where: object) -> list[tuple[object, ...]]:
    rows = warehouse.read("products__fees", meta=True, **where)
    return sorted((row["id"], row["_m2p_position"], row["code"], str(row["amount"])) for row in rows)


def test_elements_are_rows_with_their_parents_key_and_their_place(warehouse: Warehouse) -> None:
    result = warehouse.load(FEES, child_tables=True)

    assert counts(result) == (3, 0, 0, 0)
    assert [change["type"] for change in result["schema_changes"] if change["field"] == "fees"] == ["child"]
    assert "fees" not in warehouse.table().c
    amounts = [(row[0], row[1], row[2], float(str(row[3]))) for row in fees(warehouse)]
    assert amounts == [("a", 0, "L", 1.1), ("a", 1, "R", 2.0)]


def test_a_page_without_rows_has_no_elements(first_class: Warehouse) -> None:
    assert first_class.load([], [{"id": "a", "fees": [{"v": 1}]}], child_tables=True)["inserted"] == 1
    assert [row["v"] for row in first_class.read("products__fees")] == [1]


def test_plain_elements_stand_in_a_column_value(warehouse: Warehouse) -> None:
    warehouse.load(b'[{"id":"a","tags":["x",null,"y"]},{"id":"b","tags":["z"]}]', child_tables=True)

    rows = warehouse.read("products__tags", meta=True)
    assert [(row["id"], row["_m2p_position"], row["value"]) for row in rows] == [
        ("a", 0, "x"), ("a", 1, None), ("a", 2, "y"), ("b", 0, "z"),
    ]  # fmt: skip


def test_replace_keeps_elements_in_step(warehouse: Warehouse) -> None:
    warehouse.load(FEES, child_tables=True, write_mode="replace")
    result = warehouse.load(LATER, child_tables=True, write_mode="replace")

    assert counts(result) == (0, 2, 1, 0)
    assert [(row[0], row[1], row[2]) for row in fees(warehouse)] == [("a", 0, "L"), ("b", 0, "N")]
    assert warehouse.load(LATER, child_tables=True, write_mode="replace")["unchanged"] == 3

    warehouse.load(
        b'[{"id":"b","fees":[{"code":"N","more":{"x":[1]}}]},{"id":"c","n":1}]', child_tables=True, write_mode="replace"
    )
    assert [(row[0], row[1], row[2]) for row in fees(warehouse)] == [("b", 0, "N")]


def test_upsert_marks_elements_that_are_gone_and_revives_those_that_return(first_class: Warehouse) -> None:
    warehouse = first_class
    warehouse.load(FEES, child_tables=True)
    warehouse.load(LATER, child_tables=True)
    assert [(row[0], row[1]) for row in fees(warehouse, _m2p_deleted_at=None)] == [("a", 0), ("b", 0)]
    warehouse.load(FEES, child_tables=True)
    assert [(row[0], row[1]) for row in fees(warehouse, _m2p_deleted_at=None)] == [("a", 0), ("a", 1)]


def test_history_of_elements(first_class: Warehouse) -> None:
    warehouse = first_class
    for rows in (FEES, LATER, LATER, FEES):
        warehouse.load(rows, child_tables=True, write_mode="history")

    rows = warehouse.read("products__fees", meta=True)
    ours = sorted(
        (row["_m2p_valid_from"], row["_m2p_valid_to"] is None, str(row["amount"])) for row in rows if row["id"] == "a"
    )
    assert [row[1] for row in ours].count(True) == 2
    first = sorted((r for r in rows if r["id"] == "a" and r["_m2p_position"] == 0), key=lambda r: r["_m2p_valid_from"])
    assert [r["_m2p_valid_to"] for r in first[:-1]] == [r["_m2p_valid_from"] for r in first[1:]]
    assert len(first) == 3


def test_append_twice_is_once(first_class: Warehouse) -> None:
    for _ in range(2):
        first_class.load(FEES, child_tables=True, write_mode="append", load_id="same")
    assert len(fees(first_class)) == 2
    first_class.load(FEES, child_tables=True, write_mode="append", load_id="other")
    assert len(fees(first_class)) == 4


def test_a_partial_read_touches_the_elements_of_the_rows_it_read_alone(first_class: Warehouse) -> None:
    first_class.load(FEES, child_tables=True)
    changed = b'{"id":"b","fees":[{"code":"N"}]}'
    for rows in (b"[%s]" % changed, FEES.replace(b'{"id":"b","fees":[]}', changed)):
        first_class.load(rows, child_tables=True, complete=False)
        live = fees(first_class, _m2p_deleted_at=None)
        assert [(row[0], row[1]) for row in live] == [("a", 0), ("a", 1), ("b", 0)]


def test_of_a_row_that_came_twice_the_elements_of_the_last_count(first_class: Warehouse) -> None:
    result = first_class.load(FEES, b'[{"id":"a","fees":[{"code":"Z"}]}]', child_tables=True)
    assert result["duplicates"] == 1
    assert [(row[0], row[2]) for row in fees(first_class)] == [("a", "Z")]


def test_a_field_that_is_not_always_an_array_is_refused(first_class: Warehouse) -> None:
    with pytest.raises(M2PSchemaError, match=r"'fees' is not always an array"):
        first_class.load(FEES, b'[{"id":"d","fees":"none"}]', child_tables=True)
    assert "products" not in first_class.tables()
    first_class.load(FEES, child_tables=True)
    with pytest.raises(M2PSchemaError, match="child_tables=False, into another table"):
        first_class.load(FEES, b'[{"id":"d","fees":"none"}]', child_tables=True)


@pytest.mark.parametrize("values", [([1], {}), ({}, [1]), ([1], {"x": 1})])
def test_objects_that_stay_whole_are_no_arrays_wherever_they_come(first_class: Warehouse, values: tuple[Any, Any]) -> None:
    pages = [[{"id": n, "fees": value} for n in range(60)] for value in values]
    with pytest.raises(M2PSchemaError, match=r"'fees' is not always an array"):
        first_class.load(*pages, child_tables=True, max_depth=0)
    assert "products" not in first_class.tables()


def test_a_table_with_child_tables_stays_one(first_class: Warehouse) -> None:
    first_class.load(FEES, child_tables=True)
    with pytest.raises(M2PSchemaError, match="child_tables=True"):
        first_class.load(LATER)


def test_tenants_have_elements_of_their_own(first_class: Warehouse) -> None:
    first_class.load(FEES, child_tables=True, write_mode="replace", tenant_id="ONE")
    first_class.load(FEES, child_tables=True, write_mode="replace", tenant_id="TWO")
    first_class.load(
        b'[{"id":"a","fees":[]},{"id":"b","fees":[]},{"id":"c","n":1}]',
        child_tables=True,
        write_mode="replace",
        tenant_id="ONE",
    )
    assert {row["_m2p_tenant_id"] for row in first_class.read("products__fees", meta=True)} == {"TWO"}


@pytest.mark.parametrize("mode", ["replace", "upsert", "history"])
def test_a_load_notes_the_bytes_of_its_own_tenants_rows_alone(first_class: Warehouse, mode: str) -> None:
    def load(tenant: str, fee: int) -> None:
        rows = [{"id": "a", "fees": [fee]}, {"id": "b", "fees": []}]
        first_class.load(rows, child_tables=True, write_mode=mode, tenant_id=tenant)

    load("ONE", 1)
    load("TWO", 2)
    before = first_class.read(meta=True, _m2p_tenant_id="TWO")
    load("ONE", 3)
    assert first_class.read(meta=True, _m2p_tenant_id="TWO") == before
    assert all(row["_m2p_raw_hash"] for row in first_class.read(meta=True))


TABLES = (f"t{n}" for n in itertools.count())
ELEMENTS = st.fixed_dictionaries({}, optional={"code": st.sampled_from("LRN"), "amount": st.none() | st.integers(0, 2)})
ROWS = st.fixed_dictionaries(
    {"id": st.sampled_from("abcd")},
    optional={
        "n": st.integers(0, 1),
        "fees": st.none() | st.lists(ELEMENTS, max_size=3),
        "tags": st.none() | st.lists(st.none() | st.sampled_from("xyz"), max_size=3),
    },
)


@pytest.mark.parametrize("mode", ["append", "replace", "upsert", "history"])
@effort(8)
@given(
    # Rows, some of them twice; where the second page begins; whether the list was read whole; and the load's id.
    st.lists(
        st.tuples(st.lists(ROWS, max_size=6), st.integers(0, 6), st.sampled_from([True, True, False]), st.integers(0, 9)),
        min_size=1,
        max_size=6,
    )
)
def test_elements_are_in_step_with_their_rows_whatever_comes(
    first_class: Warehouse, mode: str, loads: list[tuple[list[dict[str, Any]], int, bool, int]]
) -> None:
    table = next(TABLES)
    expected = model.Model(mode, ("fees", "tags"))
    for attempt, (rows, cut, complete, load) in enumerate(loads):
        spec = {"load_id": f"{load}", "attempt": attempt, "write_mode": mode, "child_tables": True, "max_delete_ratio": 1}
        pages = [page for page in (rows[:cut], rows[cut:]) if page]
        total = len({row["id"] for row in rows})
        result = first_class.load(*pages, table=table, complete=complete, total_rows=total, **spec)
        assert result["duplicates"] == len(rows) - total
        expected.load(f"{load}", rows, attempt=attempt, complete=complete)
        assert model.found(first_class, table, mode, ("fees", "tags")) == expected.state()
    for name in first_class.tables():
        if name.partition("__")[0] == table:
            first_class.execute(f"DROP TABLE {name}")
