"""What the matrix tries: for every fault of the sandbox's catalogue the places and times where it may matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from airflow_provider_m2p.sandbox.faults import KINDS, STATUS, Fault, Phase

Product = dict[str, Any]
#: The page that faults hit: one that is neither the first nor the last.
PAGE_SIZE = 4
PAGE = "@page1"
FIRST = PAGE_SIZE


@dataclass(frozen=True)
class Case:
    """
    One line of the matrix.

    :param spec: the fault, as the sandbox takes it; empty if the server itself is the fault.
    :param client: extras of the connection that the fault needs to show.
    :param served: what the platform serves under the fault, where that is something else that is just as good.
    :param server: options of a sandbox of its own.
    :param trusted: whether the connection names the sandbox's CA.
    :param name: what the server does, where there is no spec.
    """

    spec: str = ""
    client: dict[str, Any] = field(default_factory=dict)
    served: Callable[[list[Product]], list[Product]] = list
    server: dict[str, Any] = field(default_factory=dict)
    trusted: bool = True
    name: str = ""

    @property
    def id(self) -> str:
        return self.spec or self.name

    @property
    def fault(self) -> Fault:
        return Fault.parse(self.spec)

    def place(self) -> tuple[bool, int]:
        """Return where the case stands among others: by the catalogue's order, those of tokens last."""
        fault = self.fault
        return fault.where == "token", [STATUS, *KINDS.values()].index(fault.kind)

    @property
    def impatient(self) -> bool:
        return "read_timeout" in self.client

    def cells(self) -> tuple[str, str, str]:
        """Return the fault, what it is, and where and how often, for people."""
        if not self.spec:
            return self.name, "", "every request"
        fault = self.fault
        value = f"={fault.value}" if fault.value and fault.value != fault.kind.default else ""
        where = {"token": "token", "page": f"page {fault.number}", "api": "every request"}[fault.where]
        times = {None: "always", 1: "once"}.get(fault.times, f"{fault.times} times")
        place = where if where == "every request" and fault.times is None else f"{where}, {times}"
        return f"`{fault.name}{value}`", fault.kind.help.partition(";")[0], place


def _first_row(**members: Any) -> Callable[[list[Product]], list[Product]]:
    """Return what has other members in the first row of the page that is hit."""
    return lambda products: [
        {**product, **members} if place == FIRST else product for place, product in enumerate(products)
    ]


ON_PAGES = (
    *(f"{status}{PAGE}" for status in (400, 401, 403, 404, 409, 418, 429, 500, 502, 503, 504)),
    f"429=7{PAGE}x1",
    f"429=3600{PAGE}",
    f"500{PAGE}x2",
    f"503=date90{PAGE}x1",
    "503x1",
    f"503{PAGE}x5",
    f"html{PAGE}",
    f"html{PAGE}x1",
    f"html=200{PAGE}",
    f"html=403{PAGE}",
    f"empty{PAGE}",
    f"problem-200{PAGE}",
    f"redirect{PAGE}",
    f"latency=0.05{PAGE}",
    "token-revoked@page1x1",
    "token-revoked",
    f"duplicate-page{PAGE}",
    "duplicate-page@page2",
    "row-moves",
    "row-moves@page0x1",
    f"content-type{PAGE}",
    f"gzip-truncated{PAGE}",
    f"gzip-truncated{PAGE}x1",
    f"gzip-corrupt{PAGE}",
    f"gzip-corrupt{PAGE}x1",
    f"gzip-bomb=3{PAGE}",
    f"gzip-bomb=5{PAGE}",
    f"wrong-shape{PAGE}",
    "wrong-shape@page0",
    f"wrong-rows{PAGE}",
    f"nan{PAGE}",
    f"deep-nesting{PAGE}",
    f"big-page=3{PAGE}",
    f"big-page=5{PAGE}",
    f"repeated-row{PAGE}",
    "repeated-row@page2",
    "total-changes",
    f"drip=0.1{PAGE}",
    *(
        f"{name}{PAGE}{times}"
        for name in ("reset-before-headers", "reset-after-headers", "reset-in-body", "truncated")
        for times in ("x1", "")
    ),
    f"close{PAGE}",
    "close",
)
ON_TOKENS = (
    *(f"{status}@token" for status in (400, 401, 403, 404, 429, 500, 503)),
    "429=2@tokenx1",
    "503@tokenx2",
    "html@token",
    "html=200@token",
    "empty@token",
    "problem-200@token",
    "redirect@token",
    "latency=0.05@token",
    "token-ttl",
    "clock-skew=30",
    "clock-skew",
    "clock-skew=-7200x1",
    "clock-skew=-7200",
    *(f"expires-in={value}" for value in ("missing", "string", "0", "-5", "1.5")),
    "content-type@token",
    "gzip-truncated@token",
    "gzip-corrupt@tokenx1",
    "gzip-bomb=3@token",
    "gzip-bomb=5@token",
    "drip=0.1@token",
    "reset-before-headers@tokenx1",
    "reset-before-headers@token",
    "reset-after-headers@tokenx1",
    "reset-in-body@tokenx1",
    "truncated@tokenx1",
    "truncated@token",
    "close@token",
)
IMPATIENT = {"read_timeout": 0.2}
SPECIAL = (
    # One page after the other, so that the disorder is the same every time.
    Case("shuffled", client={"max_concurrency": 1}),
    Case(f"hang{PAGE}x1", client=IMPATIENT),
    Case(f"hang{PAGE}", client=IMPATIENT),
    Case("hang@token", client=IMPATIENT),
    # Never still for longer than the timeout, but longer in all than an answer may take.
    Case(f"drip=1.5{PAGE}x1", client=IMPATIENT),
    Case(
        f"huge-number{PAGE}",
        served=_first_row(ledgerNumber=10**400 - 1, issuanceFee=Decimal("1e400")),
    ),
    Case(f"deep-nesting=7{PAGE}", served=_first_row(limits=[[[[[[[]]]]]]])),
)
SERVERS = (
    Case(name="IPv6", server={"host": "::1"}),
    Case(name="TLS under a private CA that `verify` names", server={"tls": "private-ca"}),
    Case(name="TLS under a private CA that nobody named", server={"tls": "private-ca"}, trusted=False),
    Case(name="TLS under an expired certificate", server={"tls": "expired"}),
    Case(name="Address not on the IP whitelist", server={"allow_ip": ("192.0.2.0/24",)}),
)
CASES = (*sorted((*map(Case, ON_PAGES), *SPECIAL, *map(Case, ON_TOKENS)), key=Case.place), *SERVERS)

#: What makes no sense for a token request: its faults are about lists, or about the token that a request brings.
NOT_FOR_TOKENS = {"token-revoked", "duplicate-page", "shuffled", "row-moves", "big-page"}


def uncovered(cases: Sequence[Case] = CASES) -> list[str]:
    """Return the faults of the catalogue that no case tries, and those that none tries on the token request."""
    faults = [case.fault for case in cases if case.spec]
    known = {"status": STATUS, **KINDS}
    somewhere = [fault.kind for fault in faults]
    missing = [name for name, kind in known.items() if kind not in somewhere]
    on_tokens = [fault.kind for fault in faults if fault.where == "token"]
    return missing + [
        f"{name}@token"
        for name, kind in known.items()
        if kind.phase is not Phase.PAGE and kind not in on_tokens and name not in NOT_FOR_TOKENS
    ]
