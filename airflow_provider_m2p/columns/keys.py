"""The keys of rows, without reading the rest of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from airflow_provider_m2p.columns.compiled import INT64, speakable
from airflow_provider_m2p.columns.kinds import Kind, Tokens
from airflow_provider_m2p.columns.names import Path
from airflow_provider_m2p.columns.shape import Shape

Key = tuple[str, ...]
KeyReader = Callable[[list[msgspec.Raw]], list[Key]]


def key_reader(shape: Shape) -> KeyReader | None:
    """
    Return a function that gives the key of each row as texts; it raises msgspec's errors for a row that does not fit.

    :returns: ``None`` if the key is not known yet, has an odd name, or holds anything but strings or integers.
    """
    types: dict[Path, Any] = {}
    for path in shape.key:
        column = next((column for column in shape.columns if column.path == path), None)
        if column is None or column.kind not in (Kind.TEXT, Kind.INT):
            return None
        if any(speakable(name) != name for name in path):
            return None
        if column.tokens & ~(Tokens.STRING | Tokens.INT | Tokens.DATE | Tokens.INSTANT):
            return None
        types[path] = INT64 if column.kind is Kind.INT else str
    if not types:
        return None
    decode = msgspec.json.Decoder(_struct(types)).decode
    expressions = ", ".join(f"str(v.{'.'.join(_attribute(types, path))})" for path in shape.key)
    scope: dict[str, Any] = {}
    exec(f"def keys(rows):\n return [({expressions},) for v in rows]", scope)  # noqa: S102  only names made here
    keys = scope["keys"]

    def read(rows: list[msgspec.Raw]) -> list[Key]:
        found: list[Key] = keys(list(map(decode, rows)))
        return found

    return read


def _names(types: dict[Path, Any], depth: int, prefix: Path) -> list[str]:
    return sorted({path[depth] for path in types if path[:depth] == prefix})


def _attribute(types: dict[Path, Any], path: Path) -> list[str]:
    return [f"f{_names(types, depth, path[:depth]).index(path[depth])}" for depth in range(len(path))]


def _struct(types: dict[Path, Any], prefix: Path = ()) -> type[msgspec.Struct]:
    fields, rename = [], {}
    for index, name in enumerate(_names(types, len(prefix), prefix)):
        path = (*prefix, name)
        rename[f"f{index}"] = name
        fields.append((f"f{index}", types.get(path) or _struct(types, path)))
    return msgspec.defstruct("Key", fields, rename=rename, gc=False)
