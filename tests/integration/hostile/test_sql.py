"""Names and values made to end a statement: they arrive as they are, in their own table and for their own tenant alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_m2p.exceptions import M2PError
from tests.integration.hostile.conftest import refusal
from tests.integration.warehouse.streams import Warehouse

EVIL = [
    "'; DROP TABLE canary; --",
    '"; DROP TABLE canary; --',
    "`; DROP TABLE canary; --",
    "]; DROP TABLE canary; --",
    "x' OR '1'='1",
    "1) OR (1=1",
    "$$; DROP TABLE canary; $$",
    "\\'; DROP TABLE canary; --",
    "%(tenant_id)s %s :tenant_id ? $1 {0}",
    "/* */ -- # ;",
    "a\r\nFAKE log line\x1b[2J\u2028\u202e",
    "\\.\nDROP TABLE canary;\n",
    "E'\\x27'",
    "\uff07; DROP TABLE canary",
]
MODES = ["upsert", "replace", "history", "append"]


@pytest.fixture(params=["sqlite", "psycopg"])
def warehouse(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    """A warehouse with a table that nobody may touch; afterwards it is as it was."""
    found = Warehouse(request.param, request.getfixturevalue({"sqlite": "sqlite_url"}.get(request.param, "postgres_url")))
    found.execute("CREATE TABLE canary (name VARCHAR(20))")
    found.execute("INSERT INTO canary VALUES ('alive')")
    yield found
    assert found.read("canary") == [{"name": "alive"}]
    found.close()


def rows(n: int = 0) -> list[dict[str, Any]]:
    """Rows whose keys, fields, nested fields and values are all evil."""
    texts = {name: f"{value}{n}" for name, value in zip(EVIL, reversed(EVIL), strict=True)}
    return [{"id": key, **texts, "nest": {**texts, "deep": {key: key}}, "list": [texts, key]} for key in EVIL]


def values(warehouse: Warehouse, table: str, **where: Any) -> list[dict[tuple[str, ...], Any]]:
    fields = warehouse.fields(table)
    found = warehouse.read(table, meta=True, **where)
    return [{path: row[column] for path, column in fields.items() if column in row} for row in found]


@pytest.mark.parametrize("mode", MODES)
def test_fields_and_values(warehouse: Warehouse, mode: str) -> None:
    for n in range(2):
        warehouse.load(rows(n), write_mode=mode, load_id="x")
    found = values(warehouse, "products", **({"_m2p_valid_to": None} if mode == "history" else {}))
    assert sorted(row["id",] for row in found) == sorted(EVIL)
    for row in found:
        for name, value in zip(EVIL, reversed(EVIL), strict=True):
            assert row[name,] == row["nest", name] == f"{value}1"
        assert row["nest", "deep", row["id",]] == row["id",]


@pytest.mark.parametrize("mode", ["replace", "history"])
def test_tenants(warehouse: Warehouse, mode: str) -> None:
    """Neither quotes nor the wildcards of LIKE in a tenant reach another tenant's rows."""
    tenants = [*EVIL[::4], "%", "A_ME", "ACME", "acme"]
    for load_id, ids, mark in (("x", "ab", ""), ("y", "b", "!")):
        for tenant in tenants:
            found = [{"id": key, "of": f"{tenant}{mark}"} for key in ids]
            warehouse.load(found, tenant_id=tenant, write_mode=mode, load_id=load_id, max_delete_ratio=1)
    for tenant in tenants:
        state = {row["of"] for row in warehouse.read(_m2p_tenant_id=tenant)}
        assert state <= {tenant, f"{tenant}!"}
        assert f"{tenant}!" in state
    assert len({row["_m2p_tenant_id"] for row in warehouse.read(meta=True)}) == len(tenants)


def test_tables_keys_and_loads(warehouse: Warehouse) -> None:
    """A name that the database would not have is a typed error; nothing ends up elsewhere."""
    made = set()
    for name in EVIL:
        spec = {"table": name[:40], "key_columns": (name,), "load_id": name, "tenant_id": name, "child_tables": True}
        row = {name: "k", "n": 1, f"{name}s": [{name: 1}]}
        if refusal(lambda: warehouse.load([row], **spec)) is None:  # noqa: B023
            made.add(name[:40])
            (found,) = values(warehouse, name[:40])
            assert found[name,] == "k"
    assert len(made) >= 12
    assert made <= warehouse.tables()


def test_schemas(warehouse: Warehouse) -> None:
    for name in EVIL:
        assert isinstance(refusal(lambda: warehouse.load([{"id": "a"}], schema=name[:40])), M2PError)  # noqa: B023


def test_fields_that_are_left_out_or_hashed(warehouse: Warehouse) -> None:
    names = [name for name in EVIL if "." not in name]  # dots lead into nested objects
    row = {"id": "a", **dict.fromkeys(names, "hush"), "kept": dict.fromkeys(names, "hush")}
    paths = (*names, *(f"kept.{name}" for name in names), "missing\r\nFAKE")
    warehouse.load([row], exclude_columns=paths)
    warehouse.load([row], hash_columns=paths, table="hashed")
    for table in ("products", "hashed"):
        assert "hush" not in str(warehouse.read(table))


def test_refusals_are_one_line(warehouse: Warehouse) -> None:
    junk = "a\r\nFAKE log line\x1b[2J\u2028\u202e"
    warehouse.load([{"id": "a"}])
    specs: list[dict[str, Any]] = [
        {"schema_policy": "freeze"},
        {"key_columns": (junk,)},
        {"key_columns": ("id", "missing"), "table": junk},
        {"write_mode": junk},
        {"schema_policy": junk},
        {"exclude_columns": (junk, "id")},
        {"tenant_id": junk, "max_delete_ratio": -1},
        {"schema": junk},
    ]
    for spec in specs:
        assert refusal(lambda: warehouse.load([{"id": "a", junk: junk}], **spec)) is not None, spec  # noqa: B023
    for row in ({"id": None, junk: junk}, {junk: junk}, {"id": {junk: junk}}, {"id": "b", "id\n": {"\n": 1}}):
        refusal(lambda: warehouse.load([row], tenant_id=junk, load_id=junk))  # noqa: B023
