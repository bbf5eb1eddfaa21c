from __future__ import annotations

import itertools
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_m2p.columns.kinds import TOKENS_OF, Kind, Num, Tokens, all_are, kind_of, tokens_of, utc
from tests.unit.columns.documents import DATES, INSTANTS, TEXTS, date_of, instant_of

ALL_TOKENS = [2**bit for bit in range(9)]
SETS = st.sets(st.sampled_from(ALL_TOKENS)).map(lambda tokens: reduce(or_, tokens, 0))


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (True, Tokens.BOOL),
        (0, Tokens.INT),
        (2**63 - 1, Tokens.INT),
        (2**63, Tokens.BIGINT),
        (-(2**63), Tokens.INT),
        (-(2**63) - 1, Tokens.BIGINT),
        (Num("1.0"), Tokens.FRACTION),
        ("1.0", Tokens.STRING),
        ("", Tokens.STRING),
        ([], Tokens.ARRAY),
        ({}, Tokens.JSON),
        ("2025-09-25", Tokens.DATE),
        ("2025-9-25", Tokens.STRING),
        ("20250925", Tokens.STRING),
        ("2025-02-29", Tokens.STRING),
        ("2024-02-29", Tokens.DATE),
        ("1900-02-29", Tokens.STRING),
        ("2000-02-29", Tokens.DATE),
        ("0000-01-01", Tokens.STRING),
        ("0001-01-01", Tokens.DATE),
        ("9999-12-31", Tokens.DATE),
        ("2025-06-31", Tokens.STRING),
        ("2025-09-25 ", Tokens.STRING),
        ("2025-09-2٥", Tokens.STRING),
        ("2025-09-25T06:53:54Z", Tokens.INSTANT),
        ("2025-09-25T06:53:54.1Z", Tokens.INSTANT),
        ("2025-09-25T06:53:54.123456+05:30", Tokens.INSTANT),
        ("2025-09-25T06:53:54.123456789Z", Tokens.STRING),
        ("2025-09-25T06:53:54", Tokens.STRING),
        ("2025-09-25 06:53:54Z", Tokens.STRING),
        ("2025-09-25T06:53:54+0530", Tokens.STRING),
        ("2025-09-25T06:53:54+15:00", Tokens.STRING),
        ("2025-09-25T06:53:54z", Tokens.STRING),
        ("2025-09-25T24:00:00Z", Tokens.STRING),
        ("2016-12-31T23:59:60Z", Tokens.STRING),
        ("2025-09-25T06:60:00Z", Tokens.STRING),
        ("2025-02-29T06:53:54Z", Tokens.STRING),
        ("2024-02-29T06:53:54Z", Tokens.INSTANT),
        ("0001-01-01T00:00:00+05:30", Tokens.STRING),
        ("9999-12-31T23:59:59-05:30", Tokens.STRING),
        ("2025-09-25T06:53:54Z\n", Tokens.STRING),
    ],
)
def test_tokens(value: Any, token: int) -> None:
    assert tokens_of(value) == token
    if isinstance(value, str) and not isinstance(value, Num):
        assert all_are(Kind.DATE, [value]) == (token == Tokens.DATE)
        assert all_are(Kind.INSTANT, [value]) == (token == Tokens.INSTANT)


@settings(max_examples=300, deadline=None)
@given(st.lists(DATES | INSTANTS | TEXTS, max_size=4))
def test_dates_and_instants_are_those_that_exist(texts: list[str]) -> None:
    tokens = [tokens_of(text) for text in texts]
    for text, token in zip(texts, tokens, strict=True):
        assert (token == Tokens.DATE) == (date_of(text) is not None)
        assert (token == Tokens.INSTANT) == (instant_of(text) is not None)
    assert all_are(Kind.DATE, texts) == all(token == Tokens.DATE for token in tokens)
    assert all_are(Kind.INSTANT, texts) == all(token == Tokens.INSTANT for token in tokens)


@pytest.mark.parametrize("kind", [Kind.DATE, Kind.INSTANT])
def test_texts_that_are_two_dates_together_are_none(kind: Kind) -> None:
    text = {Kind.DATE: "2025-09-25", Kind.INSTANT: "2025-09-25T06:53:54Z"}[kind]
    assert all_are(kind, [text] * 1000)
    assert not all_are(kind, [text, f"{text}\n{text}"])
    assert not all_are(kind, [text, ""])
    assert all_are(kind, [])


@settings(max_examples=200, deadline=None)
@given(INSTANTS.filter(lambda text: instant_of(text) is not None))
def test_an_instant_is_the_same_in_utc(text: str) -> None:
    spelled = utc(text)
    assert len(spelled) == 32
    assert spelled[10] == " "
    assert spelled.endswith("+00:00")
    assert datetime.fromisoformat(spelled) == datetime.fromisoformat(text).astimezone(UTC)


@settings(max_examples=100, deadline=None)
@given(SETS, SETS, SETS)
def test_the_kind_depends_on_what_was_seen_not_on_its_order(one: int, two: int, three: int) -> None:
    kinds = {kind_of(a | b | c) for a, b, c in itertools.permutations([one, two, three])}
    assert len(kinds) == 1


def width(kind: Kind) -> int:
    return {Kind.NUMBER: 1, Kind.TEXT: 2}.get(kind, 0)


@settings(max_examples=100, deadline=None)
@given(SETS.filter(bool), SETS)
def test_what_is_stored_stays_or_widens(stored_tokens: int, seen: int) -> None:
    stored = kind_of(stored_tokens)
    assert stored is not None
    kind = kind_of(seen, stored)
    assert kind is not None
    assert kind is stored or width(kind) > width(stored)
    assert kind_of(TOKENS_OF[kind], stored) is kind
    assert kind_of(seen, kind) is kind  # once widened it does not widen again


def test_nothing_seen_is_no_kind() -> None:
    assert kind_of(Tokens.NONE) is None
    assert kind_of(Tokens.NONE, Kind.DATE) is Kind.DATE


@pytest.mark.parametrize(
    ("tokens", "kind"),
    [
        (Tokens.BIGINT, Kind.NUMBER),
        (Tokens.INT | Tokens.FRACTION, Kind.NUMBER),
        (Tokens.BOOL | Tokens.INT, Kind.TEXT),
        (Tokens.DATE | Tokens.INSTANT, Kind.TEXT),
        (Tokens.DATE | Tokens.STRING, Kind.TEXT),
        (Tokens.ARRAY | Tokens.JSON, Kind.JSON),
        (Tokens.ARRAY | Tokens.STRING, Kind.TEXT),
    ],
)
def test_mixtures(tokens: int, kind: Kind) -> None:
    assert kind_of(tokens) is kind
