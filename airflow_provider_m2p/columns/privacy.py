"""Fields that must not reach the warehouse, taken out of the rows before anything else sees them."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from dataclasses import replace
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

    A name means every field that it may stand for: ``card.pan`` the field ``pan`` of ``card``, and one of that name.

    :param exclude: fields to leave out, with dots for nested ones; an object or array goes whole, and so does an object
        that has no other fields. Fields of the objects in an array are named as if the array were not there.
    :param hashed: fields whose values become SHA-256 hashes.
    :param tenant_id: part of every hash, so that hashes of different tenants do not match.
    """

    def __init__(self, exclude: Iterable[str], hashed: Iterable[str], tenant_id: str) -> None:
        self._changes = [(name, True) for name in exclude] + [(name, False) for name in hashed]
        self._unseen = {name for name, _ in self._changes}
        self._tenant_id = tenant_id
        # Numbers stay as they are spelled.
        self._decode = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(text.encode())).decode
        self._encode = msgspec.json.Encoder().encode
        self._sorted = msgspec.json.Encoder(order="sorted").encode

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
                for name, leave_out in self._changes:
                    if self._change(row, name.split("."), leave_out):
                        self._unseen.discard(name)
                changed.append(msgspec.Raw(self._encode(row)))
            except (msgspec.MsgspecError, RecursionError, ValueError):
                raise M2PResponseError(f"Page {page}, row {position} cannot be read.") from None
        return changed

    def _change(self, value: Any, parts: list[str], leave_out: bool) -> bool:
        """Change a field wherever a value has it, and tell whether it has."""
        found = False
        if isinstance(value, list):
            for item in value:
                found |= self._change(item, parts, leave_out)
        elif isinstance(value, dict):
            for end in range(1, len(parts) + 1):
                name = ".".join(parts[:end])
                if name in value:
                    found |= self._change_in(value, name, parts[end:], leave_out)
        return found

    def _change_in(self, parent: dict[str, Any], name: str, below: list[str], leave_out: bool) -> bool:
        if below:
            found = self._change(parent[name], below, leave_out)
            if found and parent[name] == {}:
                del parent[name]  # an empty object would be a value that the platform did not send
            return found
        if leave_out:
            del parent[name]
        else:
            parent[name] = self._hash(parent[name])
        return True

    def _hash(self, value: Any) -> str | None:
        if value is None:
            return None
        text = value.encode() if isinstance(value, str) else self._sorted(value)
        return sha256(self._tenant_id.encode() + b"\x00" + text).hexdigest()
