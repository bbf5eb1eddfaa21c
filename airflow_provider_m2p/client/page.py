"""A page of rows, as the bytes the platform sent. What flows from the client to the columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from airflow_provider_m2p.exceptions import M2PResponseError

_rows = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)


@dataclass(frozen=True, slots=True)
class Page:
    """
    One page of a list.

    :param number: 0-based page number.
    :param rows: one ``msgspec.Raw`` per row: the row's exact bytes, not yet decoded (and perhaps not an object).
    :param total_rows: rows in the whole list, where the platform said so.
    :param total_pages: pages in the whole list, where the platform said so (or rows and page size imply it).
    :param request_id: the ``X-Request-ID`` the page was asked with.
    :param has_escapes: whether the answer holds a backslash anywhere. Without one, no string in it can hold a quote, a
        control character or a backslash, which spares the writer looking for them.
    """

    number: int
    rows: list[msgspec.Raw]
    total_rows: int | None
    total_pages: int | None
    request_id: str
    has_escapes: bool = True

    def records(self) -> list[dict[str, Any]]:
        """Decode the rows exactly: whole numbers of any size as ``int``, numbers with a fraction as ``Decimal``."""
        records: list[dict[str, Any]] = []
        try:
            records.extend(map(_rows.decode, self.rows))
        except msgspec.ValidationError:
            is_object = bytes(self.rows[len(records)]).startswith(b"{")
            problem = "has a number of thousands of digits" if is_object else "is not an object"
        except ArithmeticError:
            problem = "has a number that no decimal can hold"
        except (msgspec.DecodeError, UnicodeDecodeError):
            problem = "is not valid JSON"
        except RecursionError:
            problem = "is nested too deeply"
        else:
            return records
        raise M2PResponseError(
            f"Page {self.number}, row {len(records)} (both counted from 0) {problem} (X-Request-ID {self.request_id})."
        )


class PageStream(Protocol):
    """
    Pages in order, and afterwards how the read went.

    ``complete`` is true only once the list was read to its end as the platform describes it: not cut by ``max_pages``,
    no total that changed on the way. Only a complete read may delete anything. ``digest`` is then the same as that of
    another read, within this process, whose pages came alike.
    """

    complete: bool
    pages: int
    rows: int
    total_rows: int | None
    total_changed: bool
    digest: str

    def __iter__(self) -> Iterator[Page]: ...

    def close(self) -> None:
        """Stop reading."""
        ...

    def again(self) -> PageStream:
        """Return a new stream of the same list."""
        ...
