"""JSON documents as hypothesis makes them, and a plain-Python model of what their rows mean."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import strategies as st

from airflow_provider_m2p.columns.kinds import Kind

Path = tuple[str, ...]


@dataclass(frozen=True)
class Number:
    """A number as it is spelled."""

    text: str


@dataclass(frozen=True)
class Object:
    """An object as it is spelled: its keys in order, perhaps one of them twice."""

    pairs: tuple[tuple[str, Any], ...]


HOSTILE = (
    "productId", "product_id", "ProductID", "", "_", "select", "1st", "a b", "a-b", 'quo"te', "semi;colon", "per%cent",
    "co:lon", "back\\slash", "new\nline", "tab\tbed", "nul\x00", "é", "e\u0301", "ÜBER", "ß", "ss", "价格", "a__b", "a.b",
    "_m2p_tenant_id", "xmin", "rowid", "x" * 200, "x" * 199 + "y",
)  # fmt: skip
NAMES = st.sampled_from(["a", "b", "c", "d", *HOSTILE])
TEXTS = st.text(max_size=12) | st.sampled_from(
    ["", "null", "true", "0", "\\N", "\\.", "a\tb", "a\nb", "\r\n", "\x0b\x0c", "\x1e\x1f", "\x7f", "'", '"', "{}", "💶", "\u2028"]
)
DATES = st.dates().map(str) | st.sampled_from(
    ["2024-02-29", "2025-02-29", "1900-02-29", "2000-02-29", "0000-01-01", "2025-13-01", "2025-04-31", "٢٠٢٥-01-01", "2025-01-01\n"]
)
_ZONES = st.sampled_from(["Z", "+00:00", "-00:00", "+05:30", "-11:45", "+14:00", "+15:00", "z", "", "+0530"])
INSTANTS = st.builds(
    lambda moment, fraction, zone: f"{moment:%H:%M:%S}{fraction}{zone}",
    st.times(),
    st.sampled_from(["", ".0", ".12", ".123", ".123456", ".1234567"]),
    _ZONES,
).flatmap(lambda rest: DATES.map(lambda day: f"{day}T{rest}"))
NUMBERS = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.integers(-(10**45), 10**45).map(str),
    st.sampled_from(["9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809"]),
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9).map(str),
    st.sampled_from(["0.1", "1.0", "1.00", "-0.0", "1e400", "1E-30", "2.5e+3", "12345678901234567890.123456789", "9" * 40 + ".5"]),
).map(Number)
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, DATES, INSTANTS)


def objects(values: st.SearchStrategy[Any], names: st.SearchStrategy[str] = NAMES) -> st.SearchStrategy[Object]:
    return st.lists(st.tuples(names, values), max_size=5).map(lambda pairs: Object(tuple(pairs)))


VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | objects(inner), max_leaves=8)
ROWS = objects(VALUES)


def spell(value: Any, chance: random.Random | None = None) -> str:
    """Return JSON text, with space and escapes strewn in by ``chance``."""
    space = chance.choice(["", "", " ", "\n"]) if chance else ""
    if isinstance(value, Number):
        return value.text
    if isinstance(value, Object):
        inner = f",{space}".join(f"{spell(n, chance)}:{space}{spell(v, chance)}" for n, v in value.pairs)
        return f"{{{space}{inner}}}"
    if isinstance(value, list):
        return f"[{space}{f',{space}'.join(spell(item, chance) for item in value)}{space}]"
    return json.dumps(value, ensure_ascii=bool(chance and chance.getrandbits(1)))


def raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def plain(value: Any) -> Any:
    """Return what a JSON value means: the last of two equal keys counts, a number is exact."""
    if isinstance(value, Object):
        return {name: plain(item) for name, item in value.pairs}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def leaves(row: dict[str, Any], max_depth: int = 8, path: Path = ()) -> dict[Path, Any]:
    """Return the values of a row by their paths. Objects are flattened, except empty ones and those too deep."""
    found: dict[Path, Any] = {}
    for name, value in row.items():
        here = (*path, name)
        if isinstance(value, dict) and value and len(path) < max_depth:
            found |= leaves(value, max_depth, here)
        elif value is not None:
            found[here] = value
    return found


def normal(value: Any) -> Any:
    """Return a JSON value with its numbers as decimals, to compare."""
    if isinstance(value, Number):
        return Decimal(value.text)
    if isinstance(value, dict):
        return {name: normal(item) for name, item in value.items()}
    return [normal(item) for item in value] if isinstance(value, list) else value


def parse(text: str) -> Any:
    """Return what a JSON text means, with its numbers as decimals."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def instant_of(text: str) -> datetime | None:
    """Return the instant that a text spells, if it is one that exists and is no finer than microseconds."""
    day = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    if not re.fullmatch(day + r"T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])", text):
        return None
    if text.startswith(("0001-01-01", "9999-12-31")) or text[11:13] > "23":
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None


def date_of(text: str) -> date | None:
    """Return the date that a text spells, if it is one that exists."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def sort(value: Any) -> str:
    """Return what a plain value is, in a word."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Number):
        if set(value.text) & set(".eE"):
            return "number"
        return "int" if -(2**63) <= int(value.text) < 2**63 else "number"
    if isinstance(value, str):
        return "date" if date_of(value) else "instant" if instant_of(value) else "text"
    return "json"


def kind(values: list[Any]) -> Kind | None:
    """Return the kind of the column that holds all of ``values``."""
    sorts = {sort(value) for value in values}
    if not sorts:
        return None
    if len(sorts) == 1:
        return Kind(sorts.pop())
    return Kind.NUMBER if sorts == {"int", "number"} else Kind.TEXT


def agrees(cell: str | None, value: Any) -> bool:
    """Tell whether a cell is the text of a value."""
    if value is None or cell is None:
        return value is None and cell is None
    if isinstance(value, bool):
        return cell == ("true" if value else "false")
    if isinstance(value, Number):
        # A whole number may lose its sign of nothing: -0 is 0.
        return cell == value.text or (sort(value) == "int" and cell == str(int(value.text)))
    return parse(cell) == normal(value) if isinstance(value, dict | list) else bool(cell == value)
