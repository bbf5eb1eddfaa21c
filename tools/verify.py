"""
Compare a loaded table with what the platform serves, field by field.

Shares no code with the package: its own requests, its own flattening, its own reading of the table. So a mistake in the
package cannot hide in the check.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

exact_json = partial(json.loads, parse_float=Decimal)
KEY = "product_id"


@dataclass
class Table:
    """A table as it stands: the declared type of each column, and the rows."""

    types: dict[str, str]
    rows: list[dict[str, Any]]


@dataclass
class Verdict:
    """What a comparison found: nothing in ``differences`` means that all is equal."""

    rows: int = 0
    columns: int = 0
    values: int = 0
    marked_deleted: int = 0
    differences: list[str] = field(default_factory=list)


def served_products(base_url: str, client_id: str, client_secret: str, tenant_id: str) -> list[dict[str, Any]]:
    """Ask the platform for all products, numbers with a fraction as ``Decimal``."""
    headers = {"X-TENANT-ID": tenant_id, "Content-Type": "application/json"}

    def ask(path: str, body: Mapping[str, str] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(base_url + path, data=data, headers=headers)  # noqa: S310 - our own sandbox
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return exact_json(answer.read())

    credentials = {"clientId": client_id, "clientSecret": client_secret, "grantType": "client_credentials"}
    headers["Authorization"] = f"Bearer {ask('/auth/token', credentials)['access_token']}"
    products: list[dict[str, Any]] = []
    while True:
        query = urllib.parse.urlencode({"pageNo": len(products) // 50, "pageSize": 50})
        page = ask(f"/v1/products/?{query}")["result"]
        products += page
        if len(page) < 50:
            return products


def read_table(url: str, table: str, where: str = "1 = 1") -> Table:
    """
    Read a table with its exact values, those in JSON columns included.

    :param url: ``sqlite:///<path>`` or ``postgresql://...``.
    :param table: the table's name.
    :param where: which rows.
    """
    return (_read_sqlite if url.startswith("sqlite") else _read_postgres)(url, table, where)


def _read_sqlite(url: str, table: str, where: str) -> Table:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.row_factory = sqlite3.Row
        types = {row["name"]: row["type"].lower() for row in connection.execute(f"PRAGMA table_info({table})")}
        return Table(types, [dict(row) for row in connection.execute(f"SELECT * FROM {table} WHERE {where}")])


def _read_postgres(url: str, table: str, where: str) -> Table:
    import psycopg
    from psycopg.rows import dict_row
    from psycopg.types.json import set_json_loads

    with psycopg.connect(url, row_factory=dict_row) as connection:
        set_json_loads(exact_json, connection)
        columns = connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %s", [table]
        )
        types = {row["column_name"]: row["data_type"] for row in columns}
        query = f"SELECT * FROM {table} WHERE {where}"
        return Table(types, connection.execute(query).fetchall())  # type: ignore[arg-type]


def compare(products: list[dict[str, Any]], table: Table, tenant_id: str) -> Verdict:
    """Compare the products with the rows that are not marked as deleted."""
    expected = {product["productId"]: dict(_flatten(product)) for product in products}
    live = {row[KEY]: row for row in table.rows if row["_m2p_deleted_at"] is None}
    columns = [name for name in table.types if not name.startswith("_m2p_")]
    verdict = Verdict(rows=len(live), columns=len(columns), marked_deleted=len(table.rows) - len(live))
    found = verdict.differences

    seen = {name for fields in expected.values() for name, value in fields.items() if value is not None}
    found += [f"column {name} is missing" for name in sorted(seen - set(columns))]
    found += [f"product {key!r} is not in the table" for key in expected.keys() - live.keys()]
    found += [f"row {key!r} is not on the platform" for key in live.keys() - expected.keys()]
    if len(expected) != len(products) or len(live) + verdict.marked_deleted != len(table.rows):
        found.append("the key is not unique")

    for key in expected.keys() & live.keys():
        row = live[key]
        if row["_m2p_tenant_id"] != tenant_id:
            found.append(f"row {key!r} belongs to tenant {row['_m2p_tenant_id']!r}")
        for name in columns:
            want, have = expected[key].get(name), row[name]
            verdict.values += 1
            if not _same(want, have, table.types[name]):
                found.append(f"product {key!r}: {name} ({table.types[name]}) is {have!r}, not {want!r}")
    return verdict


def _flatten(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        column = prefix + re.sub(r"([a-z])([A-Z])|([0-9])(?=[A-Z][a-z])", r"\1\3_\2", name).lower()
        if isinstance(inner, dict) and inner:
            yield from _flatten(inner, f"{column}__")
        else:
            yield column, inner


def _same(want: Any, have: Any, column_type: str) -> bool:
    """Tell whether a stored value is what was served, in a column of a fitting type. A float never is."""
    if want is None or have is None:
        return want is have
    if isinstance(have, float):
        return False
    if isinstance(want, (list, dict)):
        return bool(want == (exact_json(have) if isinstance(have, str) else have))
    if isinstance(want, bool):
        return (have is want or have == int(want)) and "bool" in column_type
    if isinstance(want, str):
        if "time" in column_type:
            # SQLite has no time zones: what stands there is UTC.
            moment = have if isinstance(have, datetime) else datetime.fromisoformat(f"{have}+00:00")
            return moment == datetime.fromisoformat(want)
        return want == (have.isoformat() if isinstance(have, date) else have)
    # A number: exact as a number, or as text where the column holds texts too or the database has no decimals.
    with contextlib.suppress(InvalidOperation):
        return "bool" not in column_type and want == Decimal(have)
    return False
