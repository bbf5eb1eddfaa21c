"""
What a column holds: the tokens seen in it, and the kind of column that can hold them all exactly.

A token is what stands in the JSON (a string, a number with a fraction, ...). Tokens form a set, sets are joined by
union, and the kind follows from the set alone. So the kind of a column does not depend on the order in which its
values arrived.
"""

from __future__ import annotations

import enum
import re
from datetime import date, datetime
from typing import Any, Final

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1


class Num(str):
    """The text of a JSON number with a fraction or an exponent, as it was sent. Never a binary float."""

    __slots__ = ()


class Tokens:
    """
    The kinds of JSON value seen in one place, as bits of an integer (an ``IntFlag`` costs a microsecond a value).

    ``null`` leaves no trace: it is the absence of a value.
    """

    NONE = 0
    BOOL = 1
    INT = 2
    BIGINT = 4
    FRACTION = 8
    DATE = 16
    INSTANT = 32
    STRING = 64
    JSON = 128
    ARRAY = 256


class Kind(enum.Enum):
    """What a column of the warehouse must be able to hold."""

    BOOL = "bool"
    INT = "int"
    NUMBER = "number"
    DATE = "date"
    INSTANT = "instant"
    TEXT = "text"
    JSON = "json"
    CHILD = "child"  # an array whose elements are the rows of a table of their own


_NUMBERS = Tokens.INT | Tokens.BIGINT | Tokens.FRACTION
TOKENS_OF = {
    Kind.BOOL: Tokens.BOOL,
    Kind.INT: Tokens.INT,
    Kind.NUMBER: _NUMBERS,
    Kind.DATE: Tokens.DATE,
    Kind.INSTANT: Tokens.INSTANT,
    Kind.TEXT: Tokens.STRING,
    Kind.JSON: Tokens.JSON,
    Kind.CHILD: Tokens.ARRAY,
}
_KIND_OF_ONE = {
    Tokens.BOOL: Kind.BOOL,
    Tokens.INT: Kind.INT,
    Tokens.DATE: Kind.DATE,
    Tokens.INSTANT: Kind.INSTANT,
    Tokens.JSON: Kind.JSON,
    Tokens.ARRAY: Kind.JSON,
    Tokens.JSON | Tokens.ARRAY: Kind.JSON,
}


def kind_of(tokens: int, stored: Kind | None = None) -> Kind | None:
    """
    Return the narrowest kind that holds all of ``tokens`` and what is stored already; ``None`` when nothing was seen.

    :param tokens: what was seen.
    :param stored: the kind of the column that exists, whose values must stay.
    """
    if stored is not None:
        tokens |= TOKENS_OF[stored]
    if not tokens:
        return None
    if tokens in _KIND_OF_ONE:
        return _KIND_OF_ONE[tokens]
    return Kind.NUMBER if not tokens & ~_NUMBERS else Kind.TEXT


# Days that exist in every year are spelled out, so that almost every date is settled by the expression alone; the
# 29th of February is left to the calendar below. Fractions end at microseconds: what is finer stays text.
_DAY = (
    r"(?!0000)\d{4}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])"
    r"|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
)
_LEAP = r"(?!0000)\d{4}-02-29"
_TIME = r"T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d)"
_SHAPES = {
    Kind.DATE: (
        re.compile(_DAY, re.ASCII),
        re.compile(_LEAP, re.ASCII),
        re.compile(f"(?:{_DAY}\n)*", re.ASCII),
    ),
    Kind.INSTANT: (
        re.compile(_DAY + _TIME, re.ASCII),
        re.compile(_LEAP + _TIME, re.ASCII),
        re.compile(f"(?:{_DAY}{_TIME}\n)*", re.ASCII),
    ),
}


def _is(kind: Kind, text: str) -> bool:
    every_year, leap_day, _ = _SHAPES[kind]
    if every_year.fullmatch(text) is None:
        if leap_day.fullmatch(text) is None:
            return False
        try:
            date.fromisoformat(text[:10])
        except ValueError:
            return False
    # An offset can carry the ends of the calendar out of it.
    return kind is Kind.DATE or not text.startswith(("0001-01-01", "9999-12-31"))


def all_are(kind: Kind, texts: list[str]) -> bool:
    """Tell whether every one of ``texts`` is a date (or an instant with an offset) that exists."""
    joined = "\n".join(texts) + "\n" if texts else ""
    ends = "0001-01-01" in joined or "9999-12-31" in joined
    if not ends and joined.count("\n") == len(texts) and _SHAPES[kind][2].fullmatch(joined):
        return True
    return all(_is(kind, text) for text in texts)


#: What completes an instant that ends in Z, by its length: it has no fraction, or one of one to six digits.
_COMPLETIONS: Final = {20: ".000000+00:00"} | {21 + digits: "0" * (6 - digits) + "+00:00" for digits in range(1, 7)}


def utc(text: str) -> str:
    """Return an instant as ``YYYY-MM-DD HH:MM:SS.ffffff+00:00``, the form every database reads."""
    if text.endswith("Z"):
        return f"{text[:10]} {text[11:-1]}{_COMPLETIONS[len(text)]}"
    moment = datetime.fromisoformat(text)
    offset = moment.utcoffset()
    assert offset is not None
    return f"{(moment - offset).replace(tzinfo=None).isoformat(' ', 'microseconds')}+00:00"


def tokens_of(value: Any) -> int:
    """
    Return the token of one decoded value that is neither an object nor ``None``.

    :param value: as decoded with ``float_hook=Num``.
    """
    cls = value.__class__
    if cls is str:
        if len(value) == 10 and _is(Kind.DATE, value):
            return Tokens.DATE
        if 20 <= len(value) <= 32 and _is(Kind.INSTANT, value):
            return Tokens.INSTANT
        return Tokens.STRING
    if cls is Num:
        return Tokens.FRACTION
    if cls is bool:
        return Tokens.BOOL
    if cls is int:
        return Tokens.INT if INT64_MIN <= value <= INT64_MAX else Tokens.BIGINT
    return Tokens.ARRAY if cls is list else Tokens.JSON
