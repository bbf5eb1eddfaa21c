"""Fields that must not reach the warehouse, taken out of the rows before anything else sees them."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_m2p.columns.names import show
from airflow_provider_m2p.exceptions import M2PResponseError

if TYPE_CHECKING:
    from airflow_provider_m2p.client.page import Page

log = logging.getLogger(__name__)


class Privacy:
    """
    Leaves fields out of rows, or puts a hash in their place.

    Equal values of one tenant have equal hashes, so rows can still be joined and counted by them. A hash is a
    pseudonym, not anonymity: who can guess a value, such as a telephone number, can check the guess.

    :param exclude: fields to leave out, with dots for nested ones; an object or array goes whole. Fields of the
        objects in an array are named as if the array were not there.
    :param hashed: fields whose values become SHA-256 hashes.
    :param tenant_id: part of every hash, so that hashes of different tenants do not match.
    """

    def __init__(self, exclude: Iterable[str], hashed: Iterable[str], tenant_id: str) -> None:
        self._changes: list[tuple[list[str], bool]] = [(name.split("."), True) for name in exclude]
        self._changes += [(name.split("."), False) for name in hashed]
        self._unseen = {".".join(path) for path, _ in self._changes}
        self._tenant_id = tenant_id
        self._decode = msgspec.json.Decoder(float_hook=Decimal).decode
        self._encode = msgspec.json.Encoder(decimal_format="number").encode

    @property
    def unseen(self) -> list[str]:
        """Fields that no row had: perhaps their names are misspelled."""
        return sorted(self._unseen)

    def pages(self, pages: Iterable[Page]) -> Generator[Page]:
        """Yield pages without what must not be seen; warn of fields that no row of them had."""
        rows = 0
        for page in pages:
            yield replace(page, rows=self.apply(page.rows, page.number))
            rows += len(page.rows)
        if self.unseen and rows:
            log.warning(
                "No row has the fields %s of exclude_columns or hash_columns. Are they spelled as the API does?",
                ", ".join(show((name,)) for name in self.unseen),
            )

    def apply(self, rows: list[msgspec.Raw], page: int) -> list[msgspec.Raw]:
        """
        Return the rows without what must not be seen.

        :raises M2PResponseError: a row cannot be read.
        """
        if not self._changes:
            return rows
        changed = []
        for position, raw in enumerate(rows):
            try:
                row = self._decode(raw)
            except (msgspec.MsgspecError, ArithmeticError, RecursionError, ValueError):
                raise M2PResponseError(f"Page {page}, row {position} cannot be read.") from None
            for path, leave_out in self._changes:
                for parent in _parents(row, path[:-1]):
                    if path[-1] in parent:
                        self._unseen.discard(".".join(path))
                        if leave_out:
                            del parent[path[-1]]
                        else:
                            parent[path[-1]] = self._hash(parent[path[-1]])
            changed.append(msgspec.Raw(self._encode(row)))
        return changed

    def _hash(self, value: Any) -> str | None:
        if value is None:
            return None
        text = value.encode() if isinstance(value, str) else self._encode(value)
        return sha256(self._tenant_id.encode() + b"\x00" + text).hexdigest()


def _parents(value: Any, path: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects at the end of a path, those in arrays included."""
    if isinstance(value, list):
        for item in value:
            yield from _parents(item, path)
    elif isinstance(value, dict):
        if not path:
            yield value
        elif path[0] in value:
            yield from _parents(value[path[0]], path[1:])
