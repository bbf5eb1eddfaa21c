"""
Rows as text cells, read by a decoder that is compiled for the shape of the rows.

Decoding straight into the known fields is several times faster than decoding to dictionaries and flattening those.
The decoder accepts exactly the rows that fit the shape; for any other row the shape grows and the decoder is compiled
anew, so there is one way to write a row, whatever way it was met.

A cell is the text of one value: strings as they are, numbers as they were spelled, ``true``/``false``, arrays as
JSON with sorted keys. ``null`` and a missing field are the same: no cell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from itertools import chain
from typing import Any, Final, TypeVar

import msgspec

from airflow_provider_m2p.columns.compiled import NULL, Compiled, Misfit, speakable
from airflow_provider_m2p.columns.names import Path
from airflow_provider_m2p.columns.shape import Shape
from airflow_provider_m2p.exceptions import M2PResponseError

_LAST_NULL: Final = f"\t{NULL}".encode()
_SAMPLE: Final = 50
_CACHED: Final = 4096
_CACHED_BYTES: Final = 1000
# So many rows at a time stay in the processor's cache between one step and the next.
_SLICE: Final = 100
_MISFITS: Final = (Misfit, msgspec.MsgspecError, ValueError, RecursionError)

_T = TypeVar("_T")
_Write = Callable[[Compiled, list[Sequence[Any]]], _T]


def row_hash(line: bytes) -> str:
    """
    Return the canonical hash of a row's line.

    It does not depend on the order of the keys, nor on columns that were added later (a row ends at its last
    value). It does depend on how a number is spelled: ``1.0`` and ``1.00`` are two states of a row.
    """
    end = len(line)
    while line.endswith(_LAST_NULL, 0, end):
        end -= len(_LAST_NULL)
    return sha256(line[:end]).hexdigest()[:32]


def row_hashes(lines: list[bytes]) -> list[str]:
    """Return :func:`row_hash` of each line; most lines end in a value."""
    return [row_hash(line) if line.endswith(_LAST_NULL) else sha256(line).hexdigest()[:32] for line in lines]


@dataclass(frozen=True, slots=True)
class Rows:
    """
    Rows in two forms.

    :param lines: a row as one line of PostgreSQL's COPY text format, without its line end.
    :param columns: the cells of all rows, column by column, as texts and ``None``; empty unless asked for.
    """

    lines: list[bytes]
    columns: list[Sequence[str | None]]

    def at(self, places: list[int]) -> Rows:
        """Return some of the rows."""
        columns: list[Sequence[str | None]] = [[column[place] for place in places] for column in self.columns]
        return Rows([self.lines[place] for place in places], columns)


class RowReader:
    """
    Reads rows, in the order of the shape's columns.

    :param shape: grows as rows arrive that it does not know.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._code: Compiled | None = None
        #: The rows that the shape has taken in last: it has nothing to learn from them any more.
        self._learned: list[msgspec.Raw] | None = None
        self._values = _Values()

    def read(
        self,
        rows: list[msgspec.Raw],
        page: int,
        *,
        whole: list[msgspec.Raw] | None = None,
        cells: bool = True,
        has_escapes: bool = True,
    ) -> Rows:
        """
        Read the rows of one page, or some of them.

        :param rows: the rows as they were sent.
        :param page: the page's number, for messages.
        :param whole: all rows of the page, if these are some. What rows look like is learned from all at once.
        :param cells: whether the cells are wanted, beside the lines.
        :param has_escapes: see :class:`~airflow_provider_m2p.client.page.Page`.
        :raises M2PResponseError: a row cannot be understood.
        :raises M2PSchemaError: rows without their key.
        """
        parts = self._parts(rows, page, lambda code, values: _forms(code, values, cells, has_escapes), whole or rows)
        if not rows or not self.shape.columns:
            return Rows([b""] * len(rows), [[] for _ in self.shape.columns] if cells else [])
        if len(parts) == 1:  # as few rows as go at a time need not be copied
            return Rows(*parts[0])
        lines, columns = zip(*parts, strict=True)
        return Rows([*chain(*lines)], [[*chain(*own)] for own in zip(*columns, strict=True)])

    def read_columns(self, rows: list[msgspec.Raw], page: int) -> list[tuple[type, list[Any]]]:
        """
        Read the rows of one page as columns.

        Of each column it returns what its values are and the values, which may be ``None``: whole numbers are ``int``,
        truths ``bool``, and all else the text of a cell, as ``str``.

        :param rows: the rows as they were sent.
        :param page: the page's number, for messages.
        :raises M2PResponseError: a row cannot be understood.
        :raises M2PSchemaError: rows without their key.
        """
        parts = self._parts(rows, page, lambda _, values: values, rows)
        assert self._code is not None
        return [(column.type, [*chain(*own)]) for column, *own in zip(self._code.columns, *parts, strict=True)]

    def _parts(self, rows: list[msgspec.Raw], page: int, write: _Write[_T], whole: list[msgspec.Raw]) -> list[_T]:
        """Return what ``write`` makes of the columns of each few rows."""
        if self._code is None and len(whole) > _SAMPLE:
            # A few rows of the first page are likely to show what all rows look like.
            self.shape.observe(whole[:_SAMPLE], page)
            self._code = Compiled(self.shape, self._values.json, self._values.text)
        if self._code is not None:
            with suppress(*_MISFITS):
                return self._run(self._code, rows, write)
        if self._code is None or self._learned is not whole:
            self.shape.observe(whole, page)
            self._learned = whole
            self._code = Compiled(self.shape, self._values.json, self._values.text)
        try:
            try:
                return self._run(self._code, rows, write)
            except _MISFITS:
                return self._run(self._code, self._respell(rows), write)
        except _MISFITS as error:
            raise M2PResponseError(f"Page {page} holds a value that cannot be read exactly.") from error

    def _run(self, code: Compiled, rows: list[msgspec.Raw], write: _Write[_T]) -> list[_T]:
        if code.respells:
            rows = self._respell(rows)
        parts = []
        code.dropped.clear()
        for at in range(0, len(rows), _SLICE):
            # Threads that fetch and write need the interpreter often, and briefly. Nobody hands it over unasked sooner
            # than after 5 ms, in which the database would wait.
            time.sleep(0)
            parts.append(write(code, code.read(rows[at : at + _SLICE])))
        for field, count in code.dropped.items():
            field.dropped += count
        return parts

    def _respell(self, rows: list[msgspec.Raw]) -> list[msgspec.Raw]:
        return [self._values.respelled(row, self.shape) for row in rows]


def _forms(
    code: Compiled, values: list[Sequence[Any]], cells: bool, has_escapes: bool
) -> tuple[list[bytes], list[Sequence[str | None]]]:
    """Return the lines of a few rows, and their cells column by column."""
    texts = code.texts(values)
    spelled = zip(*code.spelled(texts, escaped=has_escapes), strict=True)
    return [line.encode() for line in map("\t".join, spelled)], texts if cells else []


class _Values:
    """Texts of the values that have no field of their own type."""

    def __init__(self) -> None:
        self._cached_json = lru_cache(_CACHED)(self._json)
        self._exact = msgspec.json.Decoder(float_hook=Decimal).decode
        self._as_sent = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(text.encode())).decode
        self._sorted = msgspec.json.Encoder(order="sorted", decimal_format="number").encode

    def json(self, source: bytes) -> str:
        """Return an array or object in canonical form. That takes long, and many rows have the same short ones."""
        return self._cached_json(source) if len(source) <= _CACHED_BYTES else self._json(source)

    def _json(self, source: bytes) -> str:
        """Return an array or object as text without needless space and with sorted keys."""
        try:
            return self._sorted(self._exact(source)).decode()
        except ArithmeticError as error:
            raise ValueError("a number that no decimal can hold") from error

    def respelled(self, row: msgspec.Raw, shape: Shape) -> msgspec.Raw:
        """Return a row with each of its keys once (the last one counts) and with speakable names."""
        return msgspec.Raw(self._sorted(_respelled(self._as_sent(row), shape, ())))

    def text(self, source: bytes) -> str | None:
        """Return the cell of any plain value, for fields in which several kinds of value were seen."""
        first = source[:1]
        if first == b'"':
            return msgspec.json.decode(source, type=str)
        if first in b"[{":
            return self.json(source)
        return None if source == b"null" else source.decode()


def _respelled(node: dict[str, Any], shape: Shape, path: Path) -> dict[str, Any]:
    return {
        speakable(name): _respelled(item, shape, here)
        if item.__class__ is dict and item and shape.flattens(here := (*path, name))
        else item
        for name, item in node.items()
    }
