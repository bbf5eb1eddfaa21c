"""
Faults on demand: ``--fault SPEC`` at the start, ``PUT /_sandbox/faults`` while it runs.

A spec is ``NAME[=VALUE][@WHERE][xTIMES][~CHANCE]``::

    503                    every API request is answered 503
    503=2@page3x2          page 3 is answered 503 with "Retry-After: 2", twice
    reset-in-body~0.05     one request in twenty, drawn by the seed
    latency=1.5@token      every token request takes 1.5 s longer

WHERE is one of

    api        any request with a token (where nothing else is said)
    token      POST /auth/token
    writes     POST and PUT with a token
    pageN      a list's page N, from 0; a list asked for without pages is page 0
    callN      the Nth request with a token since the fault was set, from 1

Faults take effect in the order they were given, and a request gets at most one that answers in the platform's place,
one that changes a list, one that changes another part of an answer, and one that disturbs its sending. The others wait
for the next request. The documentation, the public key and the sandbox's own controls are never hit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from urllib.parse import parse_qs

from starlette.types import Scope

TOKEN_PATH = "/auth/token"
SPEC = re.compile(
    r"(?P<name>[a-z0-9-]+?)(=(?P<value>[^@]*?))?(@(?P<where>[a-z]+?)(?P<n>\d+)?)?(x(?P<times>\d+))?(~(?P<chance>\d*\.?\d+))?"
)
NUMBER = r"-?\d+(\.\d+)?"


class Phase(Enum):
    """When a fault takes effect."""

    REQUEST = "before the platform handles the request"
    ANSWER = "on the platform's answer"
    PAGE = "on a list's answer"
    WIRE = "while the answer is sent"


@dataclass(frozen=True)
class Kind:
    """
    A kind of fault.

    :param default: the value where the spec gives none.
    :param values: pattern of the values it takes.
    :param token: whether it belongs to the token request, and nowhere else.
    """

    phase: Phase
    help: str
    default: str = ""
    values: str = ""
    token: bool = False


R, A, P, W = Phase.REQUEST, Phase.ANSWER, Phase.PAGE, Phase.WIRE
STATUS = Kind(
    R, "a problem with this status; value: Retry-After in seconds, or dateN for a date in N s", "", r"(date)?\d+"
)
KINDS = {
    "html": Kind(R, "a gateway's HTML page; value: its status", "502", r"[2-5]\d\d"),
    "empty": Kind(R, "status 200 and no body"),
    "problem-200": Kind(R, "a problem with the status 200"),
    "hang": Kind(R, "no answer, ever"),
    "redirect": Kind(R, "307 to another host; value: its base URL", "http://localhost:9", r"https?://[^@\s]+"),
    "latency": Kind(R, "an answer this many seconds later", "1", NUMBER),
    "token-revoked": Kind(R, "the token of the request is revoked before it is looked at"),
    "token-ttl": Kind(R, "a token that lives this many seconds, and says so", "2", NUMBER, token=True),
    "clock-skew": Kind(R, "a token dated by a clock this many seconds ahead", "300", NUMBER, token=True),
    "duplicate-page": Kind(R, "the page before the one asked for"),
    "shuffled": Kind(R, "another order of the list for every request"),
    "row-moves": Kind(
        R, "once page 0 is read, the list's first row moves to its end; for good, until faults are set again"
    ),
    "expires-in": Kind(
        A, "expires_in is this: missing, string, or a number", "missing", f"missing|string|{NUMBER}", token=True
    ),
    "content-type": Kind(A, "the right body under this content type", "text/html", r"\S+"),
    "gzip-truncated": Kind(A, "a gzip stream that stops half-way"),
    "gzip-corrupt": Kind(A, "a gzip stream with damaged bytes"),
    "gzip-bomb": Kind(A, "this many MB of blanks within the JSON, compressed", "200", r"\d+"),
    "wrong-shape": Kind(P, "JSON with other members than the envelope's"),
    "wrong-rows": Kind(P, "rows that are no objects"),
    "nan": Kind(P, "NaN as a number of the first row"),
    "huge-number": Kind(P, "numbers of this many digits in the first row", "400", r"\d+"),
    "deep-nesting": Kind(P, "arrays nested this deep in the first row", "100000", r"\d+"),
    "big-page": Kind(P, "this many MB of blanks within the JSON", "200", r"\d+"),
    "repeated-row": Kind(P, "the page's first row twice"),
    "total-changes": Kind(P, "another total on every page"),
    "drip": Kind(W, "the body in small pieces over this many seconds", "5", NUMBER),
    "reset-before-headers": Kind(W, "handled, then the connection is reset"),
    "reset-after-headers": Kind(W, "the connection is reset after the headers"),
    "reset-in-body": Kind(W, "the connection is reset half-way through the body"),
    "truncated": Kind(W, "the connection is closed half-way through the body"),
    "close": Kind(W, "a whole answer, then the kept-alive connection is closed without a word"),
}
WHERES = {"api": False, "token": False, "writes": False, "page": True, "call": True}


@dataclass(frozen=True)
class Asked:
    """
    What faults look at in a request.

    :param page: page of a list, ``None`` if it is not for a list.
    """

    method: str
    path: str
    page: int | None

    @classmethod
    def of(cls, scope: Scope) -> Asked:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        number = query.get("pageNo", ["0"])[0]
        listing = scope["method"] == "GET" and (scope["path"].endswith("/") or "/fetch-by-status/" in scope["path"])
        page = int(number) if listing and re.fullmatch(r"[0-9]{1,9}", number) else None
        return cls(scope["method"], scope["path"], page)

    @property
    def where(self) -> set[str]:
        if self.path == TOKEN_PATH:
            return {"token"}
        found = {"api", "call"}
        if self.method in ("POST", "PUT"):
            found.add("writes")
        if self.page is not None:
            found.add("page")
        return found


@dataclass
class Fault:
    """One fault with its schedule, read from a spec by :meth:`parse`."""

    spec: str
    name: str
    kind: Kind
    value: str
    where: str
    number: int | None
    times: int | None
    chance: float
    seen: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)

    @classmethod
    def parse(cls, spec: str) -> Fault:
        """Read a spec; ``ValueError`` says what is wrong with it and which faults there are."""
        found = SPEC.fullmatch(spec)
        if found is None:
            raise ValueError(f"{spec!r} is not NAME[=VALUE][@WHERE][xTIMES][~CHANCE]")
        name = found["name"]
        kind = STATUS if re.fullmatch(r"[45]\d\d", name) else KINDS.get(name)
        if kind is None:
            raise ValueError(
                f"there is no fault {name!r}; known are a status from 400 to 599, {', '.join(sorted(KINDS))}"
            )
        value = kind.default if found["value"] is None else found["value"]
        if value != kind.default and not re.fullmatch(kind.values, value):
            raise ValueError(f"{value!r} in {spec!r} is no value of {name}: {kind.help}")
        where = found["where"] or ("token" if kind.token else "api")
        if where not in WHERES or WHERES[where] != (found["n"] is not None):
            raise ValueError(f"{spec!r} has to be @api, @token, @writes, @pageN or @callN")
        if kind.token != (where == "token") and (kind.token or kind.phase is Phase.PAGE):
            raise ValueError(f"{spec!r}: {name} cannot be @{where}")
        chance = float(found["chance"] or 1)
        if not 0 < chance <= 1:
            raise ValueError(f"the chance in {spec!r} has to be more than 0 and at most 1")
        times = int(found["times"]) if found["times"] else None
        return cls(spec, name, kind, value, where, int(found["n"]) if found["n"] else None, times, chance)

    def fires(self, asked: Asked, rng: Random) -> bool:
        """Whether this request is hit; counts it if so."""
        if self.where not in asked.where or (self.times is not None and self.fired >= self.times):
            return False
        if self.where == "page" and asked.page != self.number:
            return False
        self.seen += 1
        if (self.where == "call" and self.seen != self.number) or (self.chance < 1 and rng.random() >= self.chance):
            return False
        self.fired += 1
        return True


class Faults:
    """
    The faults in force.

    :param specs: faults from the start.
    :param seed: of the faults that come by chance, and of the disorder they make.
    """

    def __init__(self, specs: Sequence[str], seed: int) -> None:
        self._seed = seed
        self.replace(specs)

    def replace(self, specs: Sequence[str]) -> None:
        """Put these faults in the place of those in force; all or none of them."""
        active = [Fault.parse(spec) for spec in specs]
        self.rng = Random(f"{self._seed}/faults")
        self.active = active
        #: Rows that have moved from the beginning of every list to its end.
        self.moved = 0

    def hit(self, phase: Phase, asked: Asked) -> Iterator[Fault]:
        """The faults that hit a request now; those not taken from the iterator are not counted."""
        return (fault for fault in self.active if fault.kind.phase is phase and fault.fires(asked, self.rng))


def listing() -> str:
    """All faults, a line each with the default of its value, for ``--help``."""
    known = {"NNN": STATUS, **KINDS}
    lines = []
    for name, kind in known.items():
        shown = f"{name}[={kind.default}]" if kind.default else name
        lines.append(f"    {shown:<32} {kind.help}")
    return "\n".join(lines)
