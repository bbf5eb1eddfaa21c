from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from airflow_provider_m2p.client import Page
from airflow_provider_m2p.exceptions import M2PResponseError


def page(*rows: bytes) -> Page:
    return Page(3, [msgspec.Raw(row) for row in rows], None, None, "run-p3")


def test_records_are_exact() -> None:
    row = (
        b'{"big": 123456789012345678901234567890, "money": 8500.00, "tenth": 0.1, "tiny": 1e-30, "none": null, '
        b'"text": "8500.00", "nested": {"n": 12345678901234567890.123456789}, "list": [1.50], "huge": 1e400}'
    )
    (record,) = page(row).records()
    assert record == {
        "big": 123456789012345678901234567890,
        "money": Decimal("8500.00"),
        "tenth": Decimal("0.1"),
        "tiny": Decimal("1e-30"),
        "none": None,
        "text": "8500.00",
        "nested": {"n": Decimal("12345678901234567890.123456789")},
        "list": [Decimal("1.50")],
        "huge": Decimal("1e400"),
    }
    assert str(record["money"]) == "8500.00"


def test_no_rows() -> None:
    assert page().records() == []


def test_a_page_may_have_escapes_unless_it_is_known_to_have_none() -> None:
    assert page().has_escapes


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (b"5", "is not an object"),
        (b"null", "is not an object"),
        (b'["secret value"]', "is not an object"),
        (b'{"a": "\xff"}', "is not valid JSON"),
        (b'{"a": "\\ud800"}', "is not valid JSON"),
        (b'{"a":' + b"1" * 5000 + b"}", "has a number of thousands of digits"),
        (b'{"a": 1e99999999999999999999}', "has a number that no decimal can hold"),
        (b'{"a":' + b"[" * 100_000, "is nested too deeply"),
    ],
)
def test_rows_that_are_no_records_are_named_by_position(row: bytes, problem: str) -> None:
    with pytest.raises(M2PResponseError, match=rf"^Page 3, row 2 .*{problem}.*run-p3") as caught:
        page(b"{}", b"{}", row, b"{}").records()
    assert "secret" not in str(caught.value)
