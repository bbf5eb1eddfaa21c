"""The demo's check is worth something only if it notices whatever is wrong."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tools.verify import Table, compare

PRODUCTS: list[dict[str, Any]] = [
    {
        "productId": "a1",
        "active": True,
        "fee": Decimal("0.10"),
        "limits": {"daily": 5, "currencyCodeISO": "INR"},
        "tags": [{"tax": Decimal("1.5")}],
        "createdAt": "2026-01-02T03:04:05.678Z",
        "note": "",
    },
    {"productId": "A1", "active": False, "fee": None, "note": None},
]
META = {"_m2p_tenant_id": "ACME_CORP", "_m2p_deleted_at": None}
TABLE = Table(
    {
        "product_id": "text",
        "active": "boolean",
        "fee": "text",
        "limits__daily": "bigint",
        "limits__currency_code_iso": "text",
        "tags": "json",
        "created_at": "timestamp",
        "note": "text",
        "_m2p_tenant_id": "text",
        "_m2p_deleted_at": "timestamp",
    },
    [
        {
            "product_id": "a1",
            "active": 1,
            "fee": "0.10",
            "limits__daily": 5,
            "limits__currency_code_iso": "INR",
            "tags": '[{"tax":1.50}]',
            "created_at": "2026-01-02 03:04:05.678000",
            "note": "",
            **META,
        },
        {
            **dict.fromkeys(("fee", "limits__daily", "limits__currency_code_iso", "tags", "created_at", "note")),
            "product_id": "A1",
            "active": 0,
            **META,
        },
        {**dict.fromkeys(("fee", "note")), "product_id": "gone", **META, "_m2p_deleted_at": "2026-01-03 00:00:00"},
    ],
)


def test_an_exact_copy_has_no_differences() -> None:
    verdict = compare(PRODUCTS, TABLE, "ACME_CORP")
    assert verdict.differences == []
    assert (verdict.rows, verdict.columns, verdict.values, verdict.marked_deleted) == (2, 8, 16, 1)


def test_native_types_of_a_database_are_the_same_values() -> None:
    table = copy.deepcopy(TABLE)
    table.rows[0] |= {
        "active": True,
        "fee": Decimal("0.1"),
        "tags": [{"tax": Decimal("1.50")}],
        "created_at": datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
    }
    assert compare(PRODUCTS, table, "ACME_CORP").differences == []


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [
        (0, "active", 0),
        (0, "active", None),
        (0, "fee", 0.1),
        (0, "fee", "0.1000000000000000055"),
        (0, "fee", "much"),
        (0, "limits__daily", 6),
        (0, "limits__daily", None),
        (0, "limits__currency_code_iso", "inr"),
        (0, "tags", '[{"tax":1.51}]'),
        (0, "tags", [{"tax": 1.3}]),
        (0, "created_at", "2026-01-02 03:04:05"),
        (0, "note", None),
        (0, "_m2p_tenant_id", "GLOBEX"),
        (1, "note", ""),
        (1, "fee", "0"),
        (1, "product_id", "a1"),
        (1, "_m2p_deleted_at", "2026-01-03 00:00:00"),
        (2, "_m2p_deleted_at", None),
    ],
)
def test_one_wrong_value_is_found(row: int, column: str, value: Any) -> None:
    table = copy.deepcopy(TABLE)
    table.rows[row][column] = value
    assert compare(PRODUCTS, table, "ACME_CORP").differences


@pytest.mark.parametrize(("column", "column_type"), [("active", "bigint"), ("limits__daily", "boolean")])
def test_a_column_of_the_wrong_type_is_found(column: str, column_type: str) -> None:
    table = copy.deepcopy(TABLE)
    table.types[column] = column_type
    assert compare(PRODUCTS, table, "ACME_CORP").differences


def test_missing_and_surplus_rows_and_columns_are_found() -> None:
    table = copy.deepcopy(TABLE)
    del table.rows[1]
    assert compare(PRODUCTS, table, "ACME_CORP").differences == ["product 'A1' is not in the table"]
    table = copy.deepcopy(TABLE)
    table.rows.append({**table.rows[1], "product_id": "b2"})
    assert compare(PRODUCTS, table, "ACME_CORP").differences == ["row 'b2' is not on the platform"]
    table = copy.deepcopy(TABLE)
    del table.types["tags"]
    assert compare(PRODUCTS, table, "ACME_CORP").differences == ["column tags is missing"]
