"""What must not be seen is gone before anything else looks."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest

from airflow_provider_m2p.columns.privacy import Privacy
from airflow_provider_m2p.exceptions import M2PResponseError


def apply(row: bytes, exclude: tuple[str, ...] = (), hashed: tuple[str, ...] = (), tenant: str = "ACME") -> bytes:
    return bytes(Privacy(exclude, hashed, tenant).apply([msgspec.Raw(row)], 0)[0])


def test_nothing_asked_nothing_touched() -> None:
    rows = [msgspec.Raw(b'{ "a" : 1.00 }')]
    assert Privacy((), (), "ACME").apply(rows, 0) is rows


def test_fields_are_left_out_at_any_depth() -> None:
    row = b'{"id":1,"pan":"X","who":{"mobile":"98","age":3},"cards":[{"cvv":1,"kind":"a"},{"cvv":2}]}'
    left = apply(row, exclude=("pan", "who.mobile", "cards.cvv"))
    assert left == b'{"id":1,"who":{"age":3},"cards":[{"kind":"a"},{}]}'


def test_an_object_goes_whole() -> None:
    assert apply(b'{"id":1,"who":{"mobile":"98"}}', exclude=("who",)) == b'{"id":1}'


def test_an_object_that_has_no_other_fields_goes_too() -> None:
    row = b'{"id":1,"who":{"mobile":"98"},"a":{"b":{"c":1}},"d":{"e":1},"f":{},"g":[{"h":1}],"i":{"e":null,"h":1}}'
    left = apply(row, exclude=("who.mobile", "a.b.c", "d.e", "g.h", "i.h"), hashed=("f.x",))
    assert left == b'{"id":1,"f":{},"g":[{}],"i":{"e":null}}'


DOTTED = b'{"a.b.c":1,"a":{"b.c":2,"b":{"c":3,"d":0},"x":0},"a.b":{"c":4,"x":[0]},"a.b.c.d":0,"b.c":0,"l":[{"a.b.c":0}]}'


def test_a_name_means_every_field_that_it_may_stand_for() -> None:
    left = apply(DOTTED, exclude=("a.b.c",))
    assert left == b'{"a":{"b":{"d":0},"x":0},"a.b":{"x":[0]},"a.b.c.d":0,"b.c":0,"l":[{"a.b.c":0}]}'
    assert apply(DOTTED, exclude=("l.a.b.c", "a.b.c.d")) == DOTTED.replace(b'"a.b.c.d":0,', b"").replace(b'{"a.b.c":0}', b"{}")
    hashed = msgspec.json.decode(apply(DOTTED, hashed=("a.b.c",)))
    assert [len(value) for value in (hashed["a.b.c"], hashed["a"]["b.c"], hashed["a"]["b"]["c"], hashed["a.b"]["c"])] == [64] * 4


@pytest.mark.parametrize("row", [b'{"card.pan":"4111"}', b'{"card":{"pan":"4111"}}', b'{"card":[{"pan":"4111"}]}'])
def test_a_name_with_a_dot_is_seen_however_it_is_meant(row: bytes) -> None:
    privacy = Privacy(("card.pan",), (), "ACME")
    assert b"4111" not in bytes(privacy.apply([msgspec.Raw(row)], 0)[0])
    assert privacy.unseen == []


def test_a_name_is_seen_though_it_may_also_stand_for_a_field_that_is_not_there() -> None:
    privacy = Privacy(("a.b.c",), (), "ACME")
    (row,) = privacy.apply([msgspec.Raw(b'{"a":{"b.c":1},"a.b":{"x":1}}')], 0)
    assert (bytes(row), privacy.unseen) == (b'{"a.b":{"x":1}}', [])


def test_hashes_are_equal_for_equal_values_of_one_tenant() -> None:
    one = apply(b'{"m":"98765"}', hashed=("m",))
    assert one == apply(b'{"m":"98765"}', hashed=("m",))
    assert one != apply(b'{"m":"98765"}', hashed=("m",), tenant="GLOBEX")
    assert sha256(b"ACME\x0098765").hexdigest().encode() in one
    assert b"98765" not in one


@pytest.mark.parametrize("value", [b"1", b"1.50", b"true", b'["x"]', b'{"y":1}'])
def test_values_of_any_kind_are_hashed(value: bytes) -> None:
    assert len(msgspec.json.decode(apply(b'{"m":' + value + b"}", hashed=("m",)))["m"]) == 64


def test_hashes_of_objects_do_not_depend_on_the_order_of_keys() -> None:
    one, other = (b'{"m":[{"x":1.50,"y":{"a":1,"b":2}}]}', b'{"m": [{"y":{"b":2,"a":1},"x":1.50}]}')
    assert apply(one, hashed=("m",)) == apply(other, hashed=("m",))
    assert apply(one, hashed=("m",)) != apply(one.replace(b"1.50", b"1.5"), hashed=("m",))


def test_null_stays_null() -> None:
    assert apply(b'{"m":null}', hashed=("m",)) == b'{"m":null}'


def test_other_numbers_keep_their_spelling() -> None:
    row = b'{"pan":1,"a":8500.00,"b":12345678901234567890.123456789,"c":123456789012345678901234567890,"d":[1e3,-0.0,{"e":1E-400}]}'
    assert apply(row, exclude=("pan",)) == row.replace(b'"pan":1,', b"")


def test_fields_that_no_row_has_are_named() -> None:
    privacy = Privacy(("mobile", "who.mobile", "cards.cvv"), ("pan",), "ACME")
    privacy.apply([msgspec.Raw(b'{"who":{"mobile":1},"cards":[{"cvv":1},{"kind":"a"}]}')], 0)
    assert privacy.unseen == ["mobile", "pan"]


def test_a_row_that_nests_beyond_reason_is_refused() -> None:
    for depth in (3_000, 100_000):
        with pytest.raises(M2PResponseError, match="Page 3, row 0"):
            Privacy(("a.b",), (), "ACME").apply([msgspec.Raw(b'{"a":' + b"[" * depth + b"]" * depth + b"}")], 3)


@pytest.mark.parametrize("row", [b'{"a":SECRET}', b'{"a":"SECRET\xff"}'])
def test_a_row_that_cannot_be_read_is_refused_without_its_values(row: bytes) -> None:
    with pytest.raises(M2PResponseError, match="Page 3, row 0") as caught:
        Privacy(("a",), (), "ACME").apply([msgspec.Raw(row)], 3)
    assert "SECRET" not in str(caught.value)
