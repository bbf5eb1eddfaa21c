"""One load under a fault: what came of it, and whether that may come of it."""

from __future__ import annotations

import logging
import re
import sqlite3
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_m2p.client import ClientSettings, M2PClient
from airflow_provider_m2p.exceptions import M2PError
from airflow_provider_m2p.sandbox import SandboxServer
from airflow_provider_m2p.warehouse import Loader
from airflow_provider_m2p.warehouse.spec import LoadSpec, WriteMode
from tests.integration.faults.cases import PAGE_SIZE, Case, Product
from tools.record import Record, Served

TENANT, CLIENT = "ACME_CORP", "acme-viewer"
SECRET = f"{CLIENT}-secret"
MODES: tuple[WriteMode, ...] = ("append", "replace", "upsert", "history")


def product(number: int, state: int = 0) -> Product:
    """Return a product with the members that faults change, and few others: columns cost time."""
    return {
        "productId": f"p{number:02}",
        "productName": f"Customer's secret card {number}",
        "issuanceFee": Decimal(state * 1000 + number).scaleb(-2),
        "ledgerNumber": 2**53 + 1 + number,
        "limits": {"daily": f"{number}.00"},
        "fees": [{"feeType": "LOAD", "feeAmount": Decimal("1.10")}],
        "updatedAt": f"2026-01-{state + 1:02}T00:00:00.123Z",
    }


#: The largest answer that is read; the client's own limit is larger, and would take its time.
MAX_BODY_BYTES = 4_000_000
EXACT = "exact data"
WITHHELD = "exact rows, but none is deleted"

#: Three pages before, three after: rows changed on each, one gone, one new with a new field.
BEFORE = [product(number) for number in range(11)]
AFTER = [
    *(product(number, state=int(number in (1, 4, 6, 9))) for number in range(11) if number != 5),
    {**product(11), "brandNew": True},
]


def serve(box: SandboxServer, products: list[Product]) -> None:
    """Let this be the sandbox's list."""
    for old in box.catalogue():
        box.remove(old["productId"])
    for new in products:
        box.put(new)


def load(
    url: sa.URL,
    box: SandboxServer,
    mode: WriteMode,
    load_id: str,
    *,
    trusted: bool = True,
    on_secret: Callable[[str], None] | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    **client: Any,
) -> None:
    """Load the sandbox's list into the table of a write mode, by a connection with these extras."""
    settings = ClientSettings.from_connection(
        conn_id="m2p",
        host=box.url,
        login=CLIENT,
        password=SECRET,
        extra={
            "tenant_id": TENANT,
            "token_cache": "off",
            "page_size": PAGE_SIZE,
            "verify": (box.ca_file if trusted else None) or True,
            **client,
        },
    )
    options: dict[str, Any] = {"sleep": lambda _, stop: stop.check(), "max_body_bytes": max_body_bytes}
    engine = sa.create_engine(url)
    spec = LoadSpec(table=mode, tenant_id=TENANT, load_id=load_id, write_mode=mode)
    try:
        with M2PClient(settings, on_secret=on_secret, **options) as m2p:
            Loader(engine, spec).run(m2p.pages())
    finally:
        engine.dispose()


def load_before(url: sa.URL, box: SandboxServer) -> None:
    """Make the table of each write mode, and let the list change after that."""
    box.set_faults()
    serve(box, BEFORE)
    for mode in MODES:
        load(url, box, mode, "before")
    serve(box, AFTER)


@dataclass
class Trial:
    """
    A database with a table for each write mode, and one case to try on all.

    :param url: the database; the tables hold ``BEFORE``.
    :param box: the platform; serves ``AFTER``.
    :param sick: the platform under the fault, where it is another one.
    """

    url: sa.URL
    box: SandboxServer
    case: Case
    caplog: pytest.LogCaptureFixture
    sick: SandboxServer | None = None
    tokens: list[str] = field(default_factory=list)

    def outcomes(self) -> dict[str, str]:
        """Return what comes of the fault in each write mode; any other than the two allowed ends fails."""
        return {mode: self._outcome(mode) for mode in MODES}

    def _outcome(self, mode: WriteMode) -> str:
        record = Record(TENANT, mode, mode, [Served("before", BEFORE)])
        database = self._dump()
        self.caplog.clear()
        self.box.set_faults(*filter(None, [self.case.spec]))
        try:
            load(
                self.url,
                self.sick or self.box,
                mode,
                "load",
                trusted=self.case.trusted,
                on_secret=self.tokens.append,
                **self.case.client,
            )
        except M2PError as error:
            self._refuse_leaks("".join(traceback.format_exception(error)))
            assert self._dump() == database, "a failed load left something behind"
            outcome = f"`{type(error).__name__}`: {self._gist(str(error))}"
        else:
            outcome = self._success(record)
        if self.case.spec:
            assert self.box.faults_fired()[self.case.spec] > 0, "the fault did not hit"
        self._refuse_leaks(self.caplog.text, *self._dump())
        # Where nothing changed, one mode stands for all: their tables are in one database.
        if outcome == WITHHELD or (len(record.served) == 1 and mode == MODES[len(self.case.id) % len(MODES)]):
            self._recover(mode, record)
        return outcome

    def _success(self, record: Record) -> str:
        """Say how the data are right. Rows that disappeared may have to wait for a load that is beyond doubt."""
        read = self.case.served(AFTER)
        kept = [old for old in BEFORE if old["productId"] not in {new["productId"] for new in read}]
        for products, text in ((read, EXACT + self._retries()), ([*read, *kept], WITHHELD)):
            record.served[1:] = [Served("load", products)]
            differences = self._differences(record)
            if not differences:
                return text
        raise AssertionError(f"neither exact data nor an error: {differences}")

    def _recover(self, mode: WriteMode, record: Record) -> None:
        """The next load without the fault is exact: the next attempt of one that failed, or another load."""
        load_id = "load" if len(record.served) == 1 else "next"
        self.box.set_faults()
        load(self.url, self.box, mode, load_id)
        record.served.append(Served(load_id, AFTER))
        assert self._differences(record) == []

    def _differences(self, record: Record) -> list[str]:
        return record.differences(self.url.set(drivername=self.url.get_backend_name()).render_as_string(False))

    def _retries(self) -> str:
        """Say how often what the fault hits was asked for again, as the log tells it."""
        if not self.case.spec:
            return ""
        fault = self.case.fault
        if fault.name == "close":
            return ""  # whether the next request finds the connection closed, or is sent before that, is a race
        target = {"page": f"p{fault.number}", "token": r"t\d+"}.get(fault.where, r"[pt]\d+")
        said = [record.getMessage() for record in self.caplog.records if record.levelno == logging.WARNING]
        count = sum(bool(re.search(rf"-{target}\): .* Attempt \d+ failed, ", text)) for text in said)
        # Where the client is impatient, a slow machine may make it more.
        number = "some" if count and self.case.impatient else str(count)
        return f" after {number} {'retry' if number == '1' else 'retries'}" if count else ""

    def _refuse_leaks(self, *texts: str) -> None:
        for text in texts:
            assert SECRET not in text
            assert not any(token in text for token in self.tokens)
        assert "Customer's" not in texts[0], "a customer's value in a message"

    def _dump(self) -> list[str]:
        """Return everything that stands in the database: tables with their forms and rows."""
        if self.url.get_backend_name() == "sqlite":
            with closing(sqlite3.connect(str(self.url.database))) as connection:
                return list(connection.iterdump())
        engine = sa.create_engine(self.url, poolclass=sa.pool.NullPool)
        metadata = sa.MetaData()
        metadata.reflect(engine)
        with engine.connect() as connection:
            return [
                f"{sa.schema.CreateTable(table)} {sorted(map(str, connection.execute(sa.select(table))))}"
                for table in metadata.sorted_tables
            ]

    def _gist(self, message: str) -> str:
        """Return the first sentence of a message, as far as it is the same for every run, and when it gave up."""
        text = re.sub(r"^.*? \(X-Request-ID \S+\): ", "", message)
        text = re.sub(r"(no whole answer) from \S+: .*?\. Check", r"\1. Check", text)
        text = re.sub(r"https?://(127\.0\.0\.1|\[::1\]):\d+", "the platform", text)
        text = re.sub(r", business code SBX_999.*?(?=\. |$)", "", text)
        text = re.sub(r"larger than \d+ bytes", "larger than the limit", text)
        text = re.sub(r", \d+ bytes|\d+ bytes, | \(byte \d+\)", "", text)
        gave_up = re.search(r"Gave up after (\d+) attempts", message)
        tries = gave_up and ("some" if self.case.impatient else gave_up[1])
        return text.partition(". ")[0].rstrip(".") + (f"; gave up after {tries} attempts" if tries else "")
