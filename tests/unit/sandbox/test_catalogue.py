"""Products are the same for the same seed, and catalogues keep what was done to them."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest

from airflow_provider_m2p.sandbox.catalogue import Catalogue, decode, encode
from airflow_provider_m2p.sandbox.products import EPOCH, amend, make_product
from airflow_provider_m2p.sandbox.state import State

opened: list[State] = []


@pytest.fixture(autouse=True)
def close_states() -> Iterator[None]:
    yield
    while opened:
        opened.pop().close()


def new_state() -> State:
    opened.append(State())
    return opened[-1]


def catalogue(state: State | None = None, seed: int = 1, size: int = 50, tenant: str = "ACME_CORP") -> Catalogue:
    return Catalogue(state or new_state(), tenant, seed=seed, size=size)


def test_seed_and_tenant_decide() -> None:
    assert catalogue().rows() == catalogue().rows()
    assert catalogue(size=60).rows()[:50] == catalogue().rows()
    assert catalogue(seed=2).rows() != catalogue().rows()
    assert catalogue(tenant="GLOBEX").rows() != catalogue().rows()


def test_what_is_made_is_what_is_read() -> None:
    for number in range(300):
        product = make_product(1, "ACME_CORP", number)
        again = decode(encode(product))
        assert again == product
        assert repr(again) == repr(product)  # 8500.00 equals 8500, but is not the same


@pytest.mark.parametrize("text", ["0.1", "8500.00", "15250.75", "0.00", "-0.0", "1E+400", "9007199254740993.5"])
def test_numbers_keep_their_digits(text: str) -> None:
    assert encode(Decimal(text)) == text.encode()
    assert str(decode(text.encode())) == text


def test_ids_are_unique_in_large_catalogues() -> None:
    rows = catalogue(size=5000).products()
    assert len({row["productId"] for row in rows}) == 5000
    assert {len(row["productId"]) for row in rows} == {10}


def test_evolving_is_repeatable_and_says_what_it_did() -> None:
    first, second = catalogue(), catalogue()
    for _ in range(5):
        assert first.evolve(add=3, change=4, remove=2) == second.evolve(add=3, change=4, remove=2)
    assert first.rows() == second.rows()
    assert len(first.rows()) == 55


def test_evolving_an_empty_catalogue() -> None:
    empty = catalogue(size=0)
    assert empty.evolve(add=0) == {"added": [], "changed": [], "removed": []}
    assert len(empty.evolve(add=2)["added"]) == 2


def test_an_amended_product_always_differs() -> None:
    for number in range(100):
        product = make_product(1, "ACME_CORP", number)
        changed = amend(product, random.Random(number), EPOCH + timedelta(days=3650))
        assert {name for name in product if changed[name] != product[name]} >= {"updatedAt"}
        assert changed["productId"] == product["productId"]


def test_changes_survive_in_the_state() -> None:
    state = new_state()
    before = catalogue(state)
    before.evolve()
    before.put({"productId": "mine", "price": Decimal("1.10")})
    before.remove(before.products()[7]["productId"])
    after = catalogue(state)
    assert after.rows() == before.rows()
    known = {row["productId"] for row in after.products()}
    assert not known & set(after.evolve()["added"])


def test_a_reader_sees_a_list_before_or_after_a_change() -> None:
    shared = catalogue()
    seen: set[int] = set()

    def read() -> None:
        seen.update(len(shared.rows()) for _ in range(300))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(100):
        shared.put({"productId": "flickering"})
        shared.remove("flickering")
    reader.join()
    assert seen <= {50, 51}
