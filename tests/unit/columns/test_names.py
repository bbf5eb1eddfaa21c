from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_m2p.columns.names import META_PREFIX, assign, cut, join, show, snake
from tests.unit.columns.documents import HOSTILE

ANY_NAME = st.sampled_from(HOSTILE) | st.text(max_size=6) | st.text("aA_1é", max_size=80)
PATHS = st.lists(st.lists(ANY_NAME, min_size=1, max_size=3).map(tuple), max_size=12, unique=True)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("productId", "product_id"),
        ("ProductID", "product_id"),
        ("currencyCodeISO", "currency_code_iso"),
        ("ISOCode", "iso_code"),
        ("already_snake", "already_snake"),
        ("kebab-case name", "kebab_case_name"),
        ("__odd__name__", "odd_name"),
        ("_m2p_tenant_id", "m2p_tenant_id"),
        ("1stFee", "_1st_fee"),
        ("²", "_²"),
        ("", "_"),
        ("'; DROP TABLE x; --", "drop_table_x"),
        ("per%cent:colon", "per_cent_colon"),
        ("nul\x00new\nline", "nul_new_line"),
        ("Gebühr", "gebühr"),
        ("e\u0301", "é"),
        ("价格", "价格"),
        ("a\U0001d4b3b", "a_b"),
        ("SELECT", "select"),
    ],
)
def test_snake_case(name: str, column: str) -> None:
    assert snake(name) == column


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30))
def test_a_column_name_is_made_of_words_only(name: str) -> None:
    column = snake(name)
    assert column == "_" or column.replace("_", "a").isalnum()
    assert not column[0].isdigit()
    assert not column.startswith(META_PREFIX)


@settings(max_examples=150, deadline=None)
@given(PATHS, PATHS, st.sampled_from([30, 63, 64, 9999]), st.integers(0, 2**32).map(random.Random))
def test_names_are_unique_short_stable_and_do_not_depend_on_the_order(
    first: list[tuple[str, ...]], later: list[tuple[str, ...]], limit: int, chance: random.Random
) -> None:
    names = assign(first, {}, limit)
    assert assign(chance.sample(first, len(first)), {}, limit) == names
    taken = {name: path for path, name in names.items()}
    more = assign([path for path in later if path not in names], taken, limit)
    together = [*names.values(), *more.values()]
    assert len({name.casefold() for name in together}) == len(together)
    assert all(0 < len(name.encode()) <= limit and not name.startswith(META_PREFIX) for name in together)


def test_the_first_in_the_alphabet_gets_the_plain_name() -> None:
    names = assign([("product_id",), ("productId",), ("ProductID",)], {}, 63)
    assert names["ProductID",] == "product_id"
    assert names["productId",].startswith("product_id_")
    assert len(set(names.values())) == 3


def test_a_name_that_exists_is_never_given_away() -> None:
    assert assign([("productId",)], {"PRODUCT_ID": ("product_id",)}, 63)["productId",].startswith("product_id_")


def test_a_letter_that_folds_to_two_makes_no_name_twice() -> None:
    assert len(set(assign([("maß",), ("Maß",)], {}, 63).values())) == 2


def test_nested_and_flat_names_do_not_meet() -> None:
    names = assign([("a", "b"), ("a__b",), ("a_b",)], {}, 63)
    assert names["a", "b"] == "a__b"
    assert len(set(names.values())) == 3


def test_a_name_that_imitates_the_mark_of_another_gets_its_own() -> None:
    mark = assign([("product_id",), ("productId",)], {}, 63)["product_id",]
    names = assign([("product_id",), ("productId",), (mark.capitalize(),)], {}, 63)
    assert len(set(names.values())) == 3


def test_a_cut_name_does_not_break_a_character() -> None:
    names = assign([("é" * 40,), ("é" * 41,)], {}, 63)
    assert len(set(names.values())) == 2
    assert all(name.startswith("é" * 27 + "_") and len(name) == 36 for name in names.values())


def test_cut_leaves_short_names_alone() -> None:
    assert cut("products__fees", ("fees",), 63) == "products__fees"
    assert len(cut("x" * 70, ("fees",), 63)) == 63
    assert cut("x" * 70, ("fees",), 63) != cut("x" * 70, ("taxes",), 63)
    assert cut("x" * 70, ("fees", "tax"), 63) != cut("x" * 70, ("fees.tax",), 63)


def test_join() -> None:
    assert join(("limits", "dailyATM")) == "limits__daily_atm"


def test_show_is_printable_and_short() -> None:
    assert show(("limits", "daily")) == "limits.daily"
    assert show(("", "new\nline")) == "''.'new\\nline'"
    assert len(show(("x" * 500,))) == 200
