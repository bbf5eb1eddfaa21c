"""The tables of arrays: what they are called, what their keys are, and when their rows are written again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_m2p.exceptions import M2PSchemaError
from tests.integration.warehouse.streams import Warehouse

MODES = ["replace", "upsert", "history"]


def counts(result: dict[str, Any]) -> tuple[int, int, int, int]:
    return tuple(result[name] for name in ("inserted", "updated", "unchanged", "deleted"))  # type: ignore[return-value]


def current(warehouse: Warehouse, table: str, *columns: str) -> list[Any]:
    """Return columns of the rows that stand for an element as it is now."""
    read = warehouse.read(table, meta=True)
    now = [row for row in read if not row.get("_m2p_deleted_at") and not row.get("_m2p_valid_to")]
    return sorted(tuple(row[column] for column in columns) for row in now)


def test_arrays_with_much_the_same_name_have_tables_of_their_own(warehouse: Warehouse) -> None:
    one = {"id": "a", "fees": [{"x": 1}, {"x": 2}]}
    both = one | {"Fees": [{"x": 9}], "a_b": [1], "aB": [2]}
    warehouse.load([one], child_tables=True)
    warehouse.load([both], child_tables=True)
    names = {path[0]: name for path, name in warehouse.fields().items()}
    tables = {field: f"products__{name}" for field, name in names.items() if field != "id"}
    assert len({name.lower() for name in tables.values()}) == 4
    assert tables["fees"] == "products__fees"
    assert [row["x"] for row in warehouse.read(tables["fees"])] == [1, 2]
    assert [row["x"] for row in warehouse.read(tables["Fees"])] == [9]
    assert [warehouse.read(tables[field])[0]["value"] for field in ("a_b", "aB")] == [1, 2]
    assert counts(warehouse.load([both], child_tables=True)) == (0, 0, 1, 0)
    assert counts(warehouse.load([both | {"Fees": [{"x": 8}]}], child_tables=True)) == (0, 1, 0, 0)
    assert [row["x"] for row in warehouse.read(tables["Fees"])] == [8]
    columns = warehouse.loader(child_tables=True).columns()
    assert {tables[field] for field in tables} < set(columns)


@pytest.mark.parametrize("mode", MODES)
def test_arrays_of_different_rows_with_much_the_same_name(warehouse: Warehouse, mode: str) -> None:
    catalogue: list[dict[str, Any]] = [{"id": "a", "fees": [1]}, {"id": "b", "Fees": [2]}]
    for version in range(3):
        warehouse.load([row | {"v": version} for row in catalogue], child_tables=True, write_mode=mode)
    names = {path[0]: f"products__{name}" for path, name in warehouse.fields().items()}
    assert current(warehouse, names["fees"], "id", "value") == [("a", 1)]
    assert current(warehouse, names["Fees"], "id", "value") == [("b", 2)]


def test_long_tables_with_the_same_beginning_have_tables_of_their_own(warehouse: Warehouse) -> None:
    names = [f"{'m2p_landing_zone_' * 3}{end}" for end in ("eu", "us")]
    for number, name in enumerate(names):
        warehouse.load([{"id": "a", "limits": [number]}], child_tables=True, table=name)
    tables = [set(warehouse.loader(child_tables=True, table=name).columns()) - {name} for name in names]
    (one,), (other,) = tables
    assert one != other
    assert [warehouse.read(table)[0]["value"] for table in (one, other)] == [0, 1]


def test_a_table_that_has_the_arrays_of_another_is_refused(warehouse: Warehouse) -> None:
    warehouse.load([{"id": "a", "b": {"c": [1]}}], child_tables=True, table="a")
    with pytest.raises(M2PSchemaError, match=r"arrays 'c' of 'a__b' belong into table 'a__b__c', but that was made for something else"):
        warehouse.load([{"id": "a", "c": [2]}], child_tables=True, table="a__b")
    assert [row["value"] for row in warehouse.read("a__b__c")] == [1]
    assert "a__b" not in warehouse.tables() or warehouse.way == "mariadb"


def test_no_level_of_objects_is_flattened(warehouse: Warehouse) -> None:
    rows = [{"id": "a", "fees": [1, {"x": 1}]}]
    warehouse.load(rows, child_tables=True, max_depth=0)
    assert len(warehouse.read("products__fees")) == 2
    assert counts(warehouse.load(rows, child_tables=True, max_depth=0)) == (0, 0, 1, 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_key_is_of_one_kind_in_parent_and_child(warehouse: Warehouse, mode: str) -> None:
    # All parents that have elements have keys of a narrower kind than others.
    for narrow, wide in (("2025-01-01", "x"), ("2025-01-01T00:00:00Z", "y"), (7, "z")):
        table = f"of_{wide}"
        load = {"child_tables": True, "write_mode": mode, "table": table}
        warehouse.load([{"id": wide}, {"id": narrow, "fees": [1]}], **load)
        warehouse.load([{"id": wide}, {"id": narrow, "fees": [2, 3]}], **load)
        assert current(warehouse, f"{table}__fees", "id", "value") == [(str(narrow), 2), (str(narrow), 3)]


def test_a_key_that_widens_does_so_in_child_tables_too(warehouse: Warehouse) -> None:
    wider = [{"id": 1, "fees": [1]}, {"id": 2}, {"id": "x"}]
    warehouse.load(wider[:2], child_tables=True)
    if warehouse.way == "portable":
        with pytest.raises(M2PSchemaError, match="key column 'id' would have to change from int to text"):
            warehouse.load(wider, child_tables=True)
        return
    warehouse.load(wider, child_tables=True)
    assert counts(warehouse.load([{"id": 1, "fees": [4]}, {"id": 2}, {"id": "x"}], child_tables=True)) == (0, 1, 2, 0)
    assert current(warehouse, "products__fees", "id", "value") == [("1", 4)]


@pytest.mark.parametrize(
    "key",
    [("k" * 70,), ("ctid",), ("rowid",), ("pId", "p_id"), ("o.id", "id"), ("_m2p_id",), ("value", "x")],
    ids=lambda key: "-".join(key)[:12],
)
def test_a_key_is_called_alike_in_parent_and_child(warehouse: Warehouse, key: tuple[str, ...]) -> None:
    def row(number: int, *fees: Any) -> dict[str, Any]:
        own: dict[str, Any] = {"fees": [{"id": fee, "value": fee} for fee in fees]}
        for place, name in enumerate(key):
            *above, field = name.split(".")
            (own.setdefault(above[0], {}) if above else own)[field] = f"{number if place == 0 else 0}"
        return own

    load: dict[str, Any] = {"child_tables": True, "key_columns": key}
    warehouse.load([row(1, 1, 2), row(2, 3)], **load)
    result = warehouse.load([row(1, 1, 5), row(2, 3)], **load)
    assert counts(result) == (0, 1, 1, 0)
    columns = warehouse.loader(**load).columns()
    names = {".".join(column.path): column.name for column in columns["products"]}
    of_child = {".".join(column.path): column.name for column in columns["products__fees"]}
    assert {name: of_child[name] for name in key} == {name: names[name] for name in key}
    assert current(warehouse, "products__fees", names[key[0]], of_child["fees.value"]) == [("1", 1), ("1", 5), ("2", 3)]


def test_fields_called_like_what_elements_get(warehouse: Warehouse) -> None:
    row = {"id": "a", "_m2p_parent": {"id": "b", "_m2p_tenant_id": "c"}, "_m2p_position": 7}
    for _ in range(2):
        warehouse.load([row])
    values = {path: warehouse.read(meta=True)[0][name] for path, name in warehouse.fields().items()}
    assert values == {("id",): "a", ("_m2p_parent", "id"): "b", ("_m2p_parent", "_m2p_tenant_id"): "c", ("_m2p_position",): 7}


@pytest.mark.parametrize("mode", MODES)
def test_elements_are_read_anew_when_the_policy_or_the_depth_changes(warehouse: Warehouse, mode: str) -> None:
    load = {"child_tables": True, "write_mode": mode}
    full = [{"id": "a", "fees": [{"x": 1, "y": {"z": {"w": 2}}}]}]
    warehouse.load([{"id": "a", "fees": [{"x": 1}]}], **load)
    warehouse.load(full, schema_policy="ignore", **load)
    warehouse.load(full, max_depth=1, **load)
    ((x, z),) = current(warehouse, "products__fees", "x", "y__z")
    assert (x, json.loads(z)) == (1, {"w": 2})
    assert counts(warehouse.load(full, **load)) == (0, 0, 1, 0)
    assert current(warehouse, "products__fees", "x", "y__z__w") == [(1, 2)]


@pytest.mark.parametrize("mode", ["replace", "upsert", "history"])
def test_elements_are_read_anew_when_the_depth_is_again_what_it_was(warehouse: Warehouse, mode: str) -> None:
    load = {"child_tables": True, "write_mode": mode}
    rows = [{"id": "a", "fees": [{"x": 1, "y": {"z": {"w": 2}}}]}, {"id": "b", "fees": []}]
    warehouse.load(rows, **load)
    for _ in range(2):
        assert counts(warehouse.load(rows, max_depth=1, **load)) == (0, 0, 2, 0)
        ((z, w),) = current(warehouse, "products__fees", "y__z", "y__z__w")
        assert (json.loads(z), w) == ({"w": 2}, None)
        assert counts(warehouse.load(rows, **load)) == (0, 0, 2, 0)
        assert current(warehouse, "products__fees", "y__z", "y__z__w") == [(None, 2)]


def test_arrays_that_are_always_empty_are_no_change_of_a_frozen_table(warehouse: Warehouse) -> None:
    rows = [{"id": "a", "fees": []}]
    warehouse.load(rows, child_tables=True)
    for policy in ("evolve", "freeze", "ignore"):
        assert counts(warehouse.load(rows, child_tables=True, schema_policy=policy)) == (0, 0, 1, 0)
