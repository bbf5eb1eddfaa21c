"""
Compare a table with the record of what the platform served at each load that was applied to it.

Like :mod:`tools.verify`, which compares the fields, it shares no code with the package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tools.verify import KEY, Table, compare, read_table

Product = dict[str, Any]


@dataclass(frozen=True)
class Served:
    """
    What one applied load read.

    :param load_id: the load's id.
    :param products: the list as it was.
    """

    load_id: str
    products: list[Product]


@dataclass(frozen=True)
class Record:
    """
    All that was applied to one tenant's rows of a table, oldest first.

    :param mode: the write mode of all these loads.
    :param arrays: the fields that child tables hold.
    """

    tenant_id: str
    table: str
    mode: str
    served: list[Served]
    arrays: tuple[str, ...] = ()

    def differences(self, url: str) -> list[str]:
        """
        Say in what the table, and its child tables, differ from the record.

        :param url: ``sqlite:///<path>`` or ``postgresql://...``.
        """
        where = f"_m2p_tenant_id = '{self.tenant_id}'"
        loads = f"tenant_id = '{self.tenant_id}' AND table_name = '{self.table}'"
        books = read_table(url, "_m2p_loads", f"{loads} ORDER BY finished_at").rows
        applied = list(dict.fromkeys(row["load_id"] for row in books))
        known = [load.load_id for load in self.served]
        if applied != known:
            return [f"_m2p_loads has {applied}, not {known}"]
        moments = {row["load_id"]: row["finished_at"] for row in books}
        parents = [replace(load, products=[self._without_arrays(p) for p in load.products]) for load in self.served]
        found = self._compare(read_table(url, self.table, where), parents, moments)
        for name in self.arrays:
            table = read_table(url, f"{self.table}__{_snake(name)}", where)
            for row in table.rows:
                row[KEY] = f"{row[KEY]}/{row['_m2p_position']}"
            elements = [replace(load, products=list(_elements(load.products, name))) for load in self.served]
            found += [f"{name}: {text}" for text in self._compare(table, elements, moments)]
        return found

    def _without_arrays(self, product: Product) -> Product:
        return {name: value for name, value in product.items() if name not in self.arrays}

    def _compare(self, table: Table, served: Sequence[Served], moments: dict[str, Any]) -> list[str]:
        if self.mode == "history":
            return self._compare_history(table, served, moments)
        if self.mode == "append":
            found = [] if len(table.rows) == sum(len(load.products) for load in served) else ["the row count is wrong"]
            for load in served:
                found += self._same(table, load.products, lambda row, id=load.load_id: row["_m2p_load_id"] == id)
            return found
        found = self._same(table, served[-1].products, lambda row: row.get("_m2p_deleted_at") is None)
        if self.mode == "upsert":
            gone = {product["productId"]: product for load in served for product in load.products}
            for product in served[-1].products:
                del gone[product["productId"]]
            found += self._same(table, list(gone.values()), lambda row: row["_m2p_deleted_at"] is not None)
        return found

    def _compare_history(self, table: Table, served: Sequence[Served], moments: dict[str, Any]) -> list[str]:
        """Compare the table as of every load: as intervals begin and end with loads, there is no gap or overlap."""
        ends = {None, *moments.values()}
        found = [
            f"a version of {row[KEY]!r} is valid from {row['_m2p_valid_from']} to {row['_m2p_valid_to']}: no such load"
            for row in table.rows
            if row["_m2p_valid_from"] not in ends or row["_m2p_valid_to"] not in ends
        ]
        for load in served:
            at = moments[load.load_id]
            found += self._same(
                table,
                load.products,
                lambda row, at=at: (
                    row["_m2p_valid_from"] <= at and (row["_m2p_valid_to"] is None or at < row["_m2p_valid_to"])
                ),
            )
        versions = sum(1 for _ in _versions(served))
        if len(table.rows) != versions:
            found.append(f"there are {len(table.rows)} versions, not {versions}")
        return found

    def _same(self, table: Table, products: list[Product], chosen: Any) -> list[str]:
        rows = [{**row, "_m2p_deleted_at": None} for row in table.rows if chosen(row)]
        return compare(products, Table(table.types, rows), self.tenant_id).differences


def _versions(served: Sequence[Served]) -> Iterator[Product]:
    """Yield each product whenever it is another than at the load before."""
    before: dict[str, Product] = {}
    for load in served:
        now = {product["productId"]: product for product in load.products}
        yield from (product for key, product in now.items() if _spelled(before.get(key)) != _spelled(product))
        before = now


def _spelled(product: Product | None) -> str | None:
    """Return all that makes a state: 1.0 and 1.00 are two, null and a missing field are one."""
    if product is None:
        return None
    return str(sorted((name, str(value)) for name, value in product.items() if value is not None))


def _elements(products: list[Product], name: str) -> Iterator[Product]:
    for product in products:
        for place, element in enumerate(product.get(name) or ()):
            yield {**element, "productId": f"{product['productId']}/{place}"}


def _snake(name: str) -> str:
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
