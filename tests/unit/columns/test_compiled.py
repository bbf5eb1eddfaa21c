from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_m2p.columns.compiled import escape, speakable


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("", ""),
        ("plain", "plain"),
        ("a\tb", "a\\tb"),
        ("a\nb\r", "a\\nb\\r"),
        ("\\N", "\\\\N"),
        ("\\.", "\\\\."),
        ("\x0b\x1e\u2028", "\x0b\x1e\u2028"),
    ],
)
def test_escape_as_copy_has_it(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@given(st.lists(st.text('"\\\x00\x1fa2\U000f0000', max_size=5), min_size=2, max_size=2, unique=True))
def test_no_two_names_become_one(names: list[str]) -> None:
    one, other = map(speakable, names)
    assert one != other
    assert not set('"\\\x00\x1f') & set(one + other)


@pytest.mark.parametrize("name", ["", "productId", "é", "a.b", "a b"])
def test_most_names_stay(name: str) -> None:
    assert speakable(name) == name
