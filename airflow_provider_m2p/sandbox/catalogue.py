"""A tenant's products, kept as the bytes that go on the wire."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

import msgspec

from airflow_provider_m2p.sandbox.products import EPOCH, Product, amend, make_product
from airflow_provider_m2p.sandbox.state import State

# Decimals are written as JSON numbers digit for digit: 8500.00 stays 8500.00.
encode = msgspec.json.Encoder(decimal_format="number").encode
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=Decimal)


def decode(body: bytes) -> Any:
    """Read JSON exactly: whole numbers as int, those with a fraction as Decimal."""
    return _decoder.decode(body)


class Catalogue:
    """
    The approved products of one tenant, in a stable order.

    Safe to change while it is served: a reader sees the list before a change or after it.

    :param tenant: tenant id.
    :param size: how many products the seed makes; what was changed since comes from the state.
    """

    def __init__(self, state: State, tenant: str, *, seed: int, size: int) -> None:
        self._state = state
        self._tenant = tenant
        self._seed = seed
        self._lock = state.lock
        made = (make_product(seed, tenant, number) for number in range(size))
        self._rows: dict[str, bytes] = {product["productId"]: encode(product) for product in made}
        self._next = size
        self._listed: list[bytes] | None = None
        for product_id, body in state.products_changed(tenant):
            self._apply(product_id, body)

    def rows(self) -> list[bytes]:
        """Every product, in order. Do not change the list."""
        with self._lock:
            if self._listed is None:
                self._listed = list(self._rows.values())
            return self._listed

    def products(self) -> list[Product]:
        """Every product with its exact values."""
        return [decode(row) for row in self.rows()]

    def get(self, product_id: str) -> Product | None:
        with self._lock:
            row = self._rows.get(product_id)
        return None if row is None else decode(row)

    def put(self, product: Product) -> None:
        """Add a product, or put it in the place of the one with its id."""
        self._store(product["productId"], encode(product))

    def remove(self, product_id: str) -> None:
        with self._lock:
            if product_id not in self._rows:
                raise KeyError(product_id)
            self._store(product_id, None)

    def new_product(self) -> Product:
        """A product that is not in the list yet."""
        with self._lock:
            while True:
                number = self._next + self._state.next_number(f"products/{self._tenant}")
                product = make_product(self._seed, self._tenant, number)
                if product["productId"] not in self._rows:
                    return product

    def evolve(self, *, add: int = 2, change: int = 5, remove: int = 1) -> dict[str, list[str]]:
        """
        Change the catalogue as a day at the tenant's would; the same steps after the same start, every time.

        :return: the ids ``added``, ``changed`` and ``removed``.
        """
        with self._lock:
            step = self._state.next_number(f"evolve/{self._tenant}")
            rng = Random(f"{self._seed}/{self._tenant}/evolve/{step}")
            touched = rng.sample(list(self._rows), min(change + remove, len(self._rows)))
            removed, changed = touched[:remove], touched[remove:]
            at = EPOCH + timedelta(days=3650, minutes=step)
            for product_id in changed:
                self._store(product_id, encode(amend(decode(self._rows[product_id]), rng, at)))
            for product_id in removed:
                self._store(product_id, None)
            added = [self.new_product() for _ in range(add)]
            for product in added:
                self.put(product)
            return {
                "added": [product["productId"] for product in added],
                "changed": changed,
                "removed": removed,
            }

    def _store(self, product_id: str, body: bytes | None) -> None:
        with self._lock:
            self._state.keep_product(self._tenant, product_id, body)
            self._apply(product_id, body)

    def _apply(self, product_id: str, body: bytes | None) -> None:
        if body is None:
            self._rows.pop(product_id, None)
        else:
            self._rows[product_id] = body
        self._listed = None
