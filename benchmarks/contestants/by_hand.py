"""
The limit again, for the columns that our loader makes: every nested object flattened, every number exact.

Written by hand for exactly these fields, as :mod:`benchmarks.contestants.limit` is. It shows how much of the distance
to the limit is the work itself and how much our way of doing it: nothing is discovered, checked or compared.
"""

from __future__ import annotations

import operator
import sqlite3
from collections.abc import Callable
from decimal import Decimal
from hashlib import sha256
from itertools import count
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.contestants.limit import COLUMNS, Pages
from benchmarks.job import TENANT, Job

_NESTED: Final = (
    ("limits.perTransaction", "numeric"),
    ("limits.daily", "numeric"),
    ("limits.monthly", "numeric"),
    ("limits.yearly", "numeric"),
    ("limits.dailyCount", "bigint"),
    ("limits.atm.daily", "numeric"),
    ("limits.atm.dailyCount", "bigint"),
    ("fees.loadFee", "numeric"),
    ("fees.atmFee", "numeric"),
    ("fees.replacementFee", "numeric"),
    ("fees.taxPercent", "numeric"),
    ("fees.currency", "text"),
    ("attributes.segment", "text"),
    ("attributes.channel", "text"),
    ("attributes.design", "text"),
    ("attributes.contactless", "boolean"),
    ("attributes.owner", "text"),
)
_OBJECTS: Final = {path.partition(".")[0] for path, _ in _NESTED}
#: Path and kind of each column.
FIELDS: Final = (*((field, kind) for field, _, kind in COLUMNS if field not in _OBJECTS), *_NESTED)
_TYPES: Final = {"text": str, "timestamptz": str, "bigint": int, "boolean": bool}


def _row() -> type[msgspec.Struct]:
    tree: dict[str, Any] = {}
    for path, kind in FIELDS:
        *parents, name = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = _TYPES.get(kind, msgspec.Raw)

    def struct(node: dict[str, Any]) -> type[msgspec.Struct]:
        fields = [(name, struct(kind) if isinstance(kind, dict) else kind) for name, kind in node.items()]
        return msgspec.defstruct("Row", fields, gc=False)

    return struct(tree)


def _pages_of(row: type) -> Callable[[bytes], list[Any]]:
    decode = msgspec.json.Decoder(msgspec.defstruct("Envelope", [("result", list[row])], gc=False)).decode  # type: ignore[valid-type]
    return lambda page: decode(page).result


def _name(path: str) -> str:
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in path)
    return snake.replace(".", "__")


_NAMES: Final = [_name(path) for path, _ in FIELDS]


def _cells() -> Callable[[list[Any]], list[tuple[str, ...]]]:
    """Return a function that gives the texts of rows' fields."""
    spelled = {"boolean": '("true" if {0} else "false")', "bigint": "str({0})", "numeric": 'str({0}, "utf-8")'}
    spelled |= {"json": spelled["numeric"], "timestamptz": "{0}", "text": "{0}"}
    cells = ", ".join(spelled[kind].format(f"r.{path}") for path, kind in FIELDS)
    return eval(f"lambda rows: [({cells}) for r in rows]")  # type: ignore[no-any-return]


def _hash(row: tuple[str, ...]) -> str:
    return sha256("\t".join(row).encode()).hexdigest()[:32]


def _table(connection: sqlite3.Connection, hashes: str) -> None:
    types = {"bigint": "bigint", "boolean": "boolean"}
    columns = ", ".join(f"{name} {types.get(kind, 'text')}" for name, (_, kind) in zip(_NAMES, FIELDS, strict=True))
    connection.execute(
        f"create table if not exists products (tenant text, {hashes}, {columns}, primary key (tenant, product_id))"
    )


def _on_conflict(hashes: str) -> str:
    updates = ", ".join(f"{name} = excluded.{name}" for name in (*hashes.split(", "), *_NAMES))
    return f"on conflict (tenant, product_id) do update set {updates} where products.row_hash <> excluded.row_hash"


def sqlite(job: Job) -> None:
    """The least: each row straight into its table, with the hash that tells whether it changed."""
    rows_of, cells_of = _pages_of(_row()), _cells()
    columns = f"row_hash, {', '.join(_NAMES)}"
    marks = f"?{', ?' * len(_NAMES)}"
    insert = f"insert into products (tenant, {columns}) values ('{TENANT}', {marks}) {_on_conflict('row_hash')}"
    connection = sqlite3.connect(job.database)
    _table(connection, "row_hash")
    with connection:
        for page in Pages(job):
            connection.executemany(insert, [(_hash(row), *row) for row in cells_of(rows_of(page))])
    connection.close()


def sqlite_staged(job: Job) -> None:
    """The same without a lock while pages come, and with the hash of a row's bytes, by which it need not be read."""
    decode, cells_of, raws_of = msgspec.json.Decoder(list[_row()]).decode, _cells(), _pages_of(msgspec.Raw)  # type: ignore[misc]
    hashes, names = "row_hash, raw_hash", ", ".join(_NAMES)
    insert = f"insert into stage (ord, {hashes}, {names}) values (?, ?, ?{', ?' * len(_NAMES)})"
    connection = sqlite3.connect(job.database)
    _table(connection, hashes)
    connection.execute("pragma temp.journal_mode = off")
    connection.execute(f"create temporary table stage (ord text, {hashes}, {names})")
    orders = map(str, count())
    for page in Pages(job):
        raws = raws_of(page)
        for at in range(0, len(raws), 100):
            some = raws[at : at + 100]
            with connection:
                connection.executemany(
                    insert,
                    [
                        (order, _hash(row), sha256(raw).hexdigest()[:32], *row)
                        for raw, row, order in zip(
                            some, cells_of(decode(b"[%b]" % b",".join(some))), orders, strict=False
                        )
                    ],
                )
    with connection:
        connection.execute(
            f"insert into products (tenant, {hashes}, {names}) select '{TENANT}', {hashes}, {names} from stage "
            f"where true {_on_conflict(hashes)}"
        )
    connection.close()


def frame(job: Job) -> dict[str, Any]:
    values = operator.attrgetter(*(path for path, _ in FIELDS))
    rows_of = _pages_of(_row())
    arrow = {"bigint": pa.int64(), "boolean": pa.bool_()}
    chunks: list[list[pa.Array]] = [[] for _ in FIELDS]
    for page in Pages(job):
        columns = zip(*map(values, rows_of(page)), strict=True)
        for (_, kind), column, into in zip(FIELDS, columns, chunks, strict=True):
            texts = b"\0".join(column).decode().split("\0") if kind in ("numeric", "json") else column
            into.append(pa.array(texts, arrow.get(kind, pa.large_string())))
    made: dict[str, Any] = {}
    for name, (_, kind), parts in zip(_NAMES, FIELDS, chunks, strict=True):
        column = pa.chunked_array(parts)
        if kind == "numeric":
            encoded = column.dictionary_encode().combine_chunks()
            distinct = np.array([*map(Decimal, encoded.dictionary.to_pylist())], dtype=object)
            made[name] = distinct[encoded.indices.to_numpy()]
        elif kind in arrow:
            dtype = pd.Int64Dtype() if kind == "bigint" else pd.BooleanDtype()
            made[name] = column.to_pandas(types_mapper=lambda _, dtype=dtype: dtype)
        else:
            made[name] = (column.cast(pa.timestamp("us", "UTC")) if kind == "timestamptz" else column).to_pandas()
    products = pd.DataFrame(made)
    return {
        "rows": len(products),
        "distinct": products["product_id"].nunique(),
        "daily": round(float(products["limits__daily"].sum()), 2),
    }
