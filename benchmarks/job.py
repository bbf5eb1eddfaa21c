"""What one contestant is asked to do. Plain data, handed to its process as JSON."""

from __future__ import annotations

from dataclasses import dataclass

TENANT = "ACME_CORP"
CLIENT_ID = "acme-operator"
CLIENT_SECRET = "acme-operator-secret"


@dataclass(frozen=True, kw_only=True)
class Job:
    """
    One run of one contestant.

    :param contestant: its name in ``benchmarks.contestants.CONTESTANTS``.
    :param base_url: the data server, without a trailing slash.
    :param path: the product list on it, with the trailing slash.
    :param rows: products to expect there.
    :param database: a libpq URI, or the path of a SQLite file; empty where none is used.
    :param workdir: a directory of its own.
    :param in_flight: pages that may be asked for at once, where the contestant can.
    """

    contestant: str
    base_url: str
    path: str
    rows: int
    database: str
    workdir: str
    page_size: int = 500
    in_flight: int = 8
