"""
The hand-written limit: what one would write for exactly these columns and this database, and nothing else.

No schema is discovered, no value checked, no row compared: msgspec decodes into a struct of the known columns (numbers
and nested values stay the raw bytes the server sent), eight threads fetch ahead over persistent connections.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.parse import urlsplit

import msgspec
import psycopg

from benchmarks.job import CLIENT_ID, CLIENT_SECRET, TENANT, Job

# The API's field, the column, PostgreSQL's type.
COLUMNS = (
    ("productId", "product_id", "text"),
    ("productCode", "product_code", "text"),
    ("productName", "product_name", "text"),
    ("productType", "product_type", "text"),
    ("description", "description", "text"),
    ("status", "status", "text"),
    ("cardNetwork", "card_network", "text"),
    ("currency", "currency", "text"),
    ("countryCode", "country_code", "bigint"),
    ("issuerName", "issuer_name", "text"),
    ("corporateId", "corporate_id", "text"),
    ("binNumber", "bin_number", "text"),
    ("plasticType", "plastic_type", "text"),
    ("kycType", "kyc_type", "text"),
    ("allowUpi", "allow_upi", "boolean"),
    ("reloadable", "reloadable", "boolean"),
    ("validityMonths", "validity_months", "bigint"),
    ("version", "version", "bigint"),
    ("issuanceFee", "issuance_fee", "numeric"),
    ("tags", "tags", "json"),
    ("createdAt", "created_at", "timestamptz"),
    ("updatedAt", "updated_at", "timestamptz"),
    ("limits", "limits", "json"),
    ("fees", "fees", "json"),
    ("attributes", "attributes", "json"),
)
NAMES = ", ".join(column for _, column, _ in COLUMNS)
ON_CONFLICT = "on conflict (product_id) do update set " + ", ".join(
    f"{column} = excluded.{column}" for _, column, _ in COLUMNS[1:]
)


class Pages:
    """The list's pages as bytes, in order, asked for ahead of time."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._host = urlsplit(job.base_url).netloc
        self._local = threading.local()
        body = json.dumps({"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET, "grantType": "client_credentials"})
        answer = self._call("POST", "/auth/token", body, {"Content-Type": "application/json"})
        self._headers = {"Authorization": "Bearer " + json.loads(answer)["access_token"], "X-TENANT-ID": TENANT}

    def _call(self, method: str, target: str, body: str | None, headers: dict[str, str]) -> bytes:
        if not hasattr(self._local, "connection"):
            self._local.connection = HTTPConnection(self._host)
        connection: HTTPConnection = self._local.connection
        connection.request(method, target, body, headers)
        return connection.getresponse().read()

    def _page(self, number: int) -> bytes:
        target = f"{self._job.path}?pageNo={number}&pageSize={self._job.page_size}"
        return self._call("GET", target, None, self._headers)

    def __iter__(self) -> Iterator[bytes]:
        pages = -(-self._job.rows // self._job.page_size)
        with ThreadPoolExecutor(self._job.in_flight) as pool:
            ahead: deque[Future[bytes]] = deque()
            for number in range(pages + self._job.in_flight):
                if number < pages:
                    ahead.append(pool.submit(self._page, number))
                if number >= self._job.in_flight:
                    yield ahead.popleft().result()


def _decoder(kinds: dict[str, type]) -> msgspec.json.Decoder:
    """
    :param kinds: what to decode a PostgreSQL type into; raw bytes where it does not say.
    """
    row = msgspec.defstruct("Row", [(field, kinds.get(kind, msgspec.Raw)) for field, _, kind in COLUMNS], gc=False)
    envelope = msgspec.defstruct("Envelope", [("result", list[row])], gc=False)  # type: ignore[valid-type]
    return msgspec.json.Decoder(envelope)


def postgres(job: Job) -> None:
    decode = _decoder({"text": str, "timestamptz": str}).decode
    strings = {field for field, _, kind in COLUMNS if kind in ("text", "timestamptz")}
    cells = [f"r.{field}.encode()" if field in strings else f"r.{field}" for field, _, _ in COLUMNS]
    escaped = [f"escape(r.{field})" for field, _, _ in COLUMNS]
    line = "\t".join(["%b"] * len(COLUMNS)) + "\n"
    plain = eval(f"lambda rows: [{line.encode()!r} % ({', '.join(cells)}) for r in rows]")
    careful = eval(f"lambda rows: [{line.encode()!r} % ({', '.join(escaped)}) for r in rows]", {"escape": _escape})
    definition = ", ".join(f"{column} {kind}" for _, column, kind in COLUMNS)
    with psycopg.connect(job.database) as connection, connection.cursor() as cursor:
        cursor.execute(f"create table if not exists products ({definition}, primary key (product_id))")
        cursor.execute(f"create temp table stage ({definition}) on commit drop")
        with cursor.copy(f"copy stage ({NAMES}) from stdin") as copy:
            for page in Pages(job):
                rows = decode(page).result
                copy.write(b"".join(careful(rows) if b"\\" in page else plain(rows)))
        cursor.execute(f"insert into products ({NAMES}) select {NAMES} from stage {ON_CONFLICT}")


def _escape(cell: str | msgspec.Raw) -> bytes:
    raw = cell.encode() if isinstance(cell, str) else bytes(cell)
    return raw.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def sqlite(job: Job) -> None:
    decode = _decoder({"text": str, "timestamptz": str, "bigint": int, "boolean": bool, "numeric": float}).decode
    cells = [f'str(r.{field}, "utf-8")' if kind == "json" else f"r.{field}" for field, _, kind in COLUMNS]
    tuples = eval(f"lambda rows: [({', '.join(cells)}) for r in rows]")
    definition = ", ".join(f"{column} {kind}" for _, column, kind in COLUMNS)
    connection = sqlite3.connect(job.database)
    connection.execute(f"create table if not exists products ({definition}, primary key (product_id))")
    insert = f"insert into products ({NAMES}) values ({', '.join('?' * len(COLUMNS))}) {ON_CONFLICT}"
    with connection:
        for page in Pages(job):
            connection.executemany(insert, tuples(decode(page).result))
    connection.close()
