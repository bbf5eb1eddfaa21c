"""What each fault does to a request or to its answer."""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from airflow_provider_m2p.sandbox.catalogue import decode, encode
from airflow_provider_m2p.sandbox.faults import Asked, Fault
from airflow_provider_m2p.sandbox.paging import Rows, pick
from airflow_provider_m2p.sandbox.problems import MEDIA_TYPE, Code, Problem
from airflow_provider_m2p.sandbox.simulator import Platform

MEGABYTE = 1_000_000
PIECES = 20
HTML = b"<!DOCTYPE html><html><head><title>Gateway</title></head><body><h1>Please stand by</h1></body></html>"
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Answer:
    """
    A whole answer before it is sent.

    :param blanks: bytes of white space to send after the body's first byte.
    """

    status: int
    body: bytes
    headers: Headers = field(default_factory=list)
    content_type: bytes = b"application/json"
    blanks: int = 0

    @property
    def is_list(self) -> bool:
        return self.status == 200 and self.body.startswith(b'{"result":[')


@dataclass(frozen=True)
class Exchange:
    """A request that a fault hits, and the means to answer it."""

    platform: Platform
    asked: Asked
    scope: Scope
    receive: Receive
    send: Send

    @property
    def transport(self) -> asyncio.Transport:
        transport: asyncio.Transport = self.scope["state"]["transport"]
        return transport

    async def start(self, answer: Answer) -> None:
        headers = [*answer.headers, (b"content-type", answer.content_type)]
        if not answer.blanks:
            headers.append((b"content-length", str(len(answer.body)).encode()))
        await self.send({"type": "http.response.start", "status": answer.status, "headers": headers})

    async def write(self, body: bytes, *, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def respond(self, answer: Answer) -> None:
        """Send an answer as it should be sent."""
        await self.start(answer)
        if answer.blanks:
            await self.write(answer.body[:1])
            for _ in range(answer.blanks // MEGABYTE):
                await self.write(b" " * MEGABYTE)
        await self.write(answer.body[1:] if answer.blanks else answer.body, more=False)

    async def reset(self) -> None:
        """Tear the connection so that the caller sees a reset, after it has seen what was sent so far."""
        await asyncio.sleep(0.02)
        option = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        self.transport.abort()


# Before the platform handles the request: an answer ends it there, None goes on.


async def status(exchange: Exchange, fault: Fault) -> Answer | None:
    headers = []
    if fault.value.startswith("date"):
        headers.append(
            (b"retry-after", formatdate(exchange.platform.clock() + int(fault.value[4:]), usegmt=True).encode())
        )
    elif fault.value:
        headers.append((b"retry-after", fault.value.encode()))
    return problem(exchange, int(fault.name), int(fault.name), headers)


async def problem_200(exchange: Exchange, fault: Fault) -> Answer | None:
    return problem(exchange, 500, 200, [])


def problem(exchange: Exchange, told: int, sent: int, headers: Headers) -> Answer:
    body = Problem(Code.FAULT, "A fault of the sandbox.", status=told).body(exchange.asked.path)
    return Answer(sent, msgspec.json.encode(body), headers, MEDIA_TYPE.encode())


async def html(exchange: Exchange, fault: Fault) -> Answer | None:
    return Answer(int(fault.value), HTML, content_type=b"text/html; charset=utf-8")


async def empty(exchange: Exchange, fault: Fault) -> Answer | None:
    return Answer(200, b"")


async def hang(exchange: Exchange, fault: Fault) -> Answer | None:
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
    return Answer(200, b"")


async def redirect(exchange: Exchange, fault: Fault) -> Answer | None:
    query = exchange.scope["query_string"]
    target = fault.value.rstrip("/").encode() + exchange.scope["raw_path"] + (b"?" + query if query else b"")
    return Answer(307, b"", [(b"location", target)])


async def latency(exchange: Exchange, fault: Fault) -> Answer | None:
    await asyncio.sleep(float(fault.value))
    return None


async def token_revoked(exchange: Exchange, fault: Fault) -> Answer | None:
    header = dict(exchange.scope["headers"]).get(b"authorization", b"").decode("latin-1")
    try:
        claims = exchange.platform.tokens.verify(header.removeprefix("Bearer "))
    except Problem:
        return None  # no good token: it is refused anyway
    exchange.platform.tokens.revoke(claims)
    return None


async def token_ttl(exchange: Exchange, fault: Fault) -> Answer | None:
    exchange.scope["state"]["token_ttl"] = float(fault.value)
    return None


async def clock_skew(exchange: Exchange, fault: Fault) -> Answer | None:
    exchange.scope["state"]["token_skew"] = float(fault.value)
    return None


async def duplicate_page(exchange: Exchange, fault: Fault) -> Answer | None:
    exchange.scope["state"]["pick"] = lambda rows, number, size: pick(rows, max(0, number - 1), size)
    return None


async def shuffled(exchange: Exchange, fault: Fault) -> Answer | None:
    rng = exchange.platform.faults.rng
    exchange.scope["state"]["pick"] = lambda rows, number, size: pick(rng.sample(rows, len(rows)), number, size)
    return None


async def row_moves(exchange: Exchange, fault: Fault) -> Answer | None:
    def picks(rows: Rows, number: int, size: int) -> Rows:
        if number == 0:
            exchange.platform.faults.moved += 1
        return pick(rows, number, size)

    exchange.scope["state"]["pick"] = picks
    return None


# On the answer.


def expires_in(answer: Answer, fault: Fault) -> Answer:
    if answer.status != 200:
        return answer
    body = decode(answer.body)
    told = body.pop("expires_in", 3600)
    if fault.value == "string":
        body["expires_in"] = str(told)
    elif fault.value != "missing":
        body["expires_in"] = decode(fault.value.encode())
    return replace(answer, body=encode(body))


def content_type(answer: Answer, fault: Fault) -> Answer:
    return replace(answer, content_type=fault.value.encode())


def gzip_truncated(answer: Answer, fault: Fault) -> Answer:
    packed = gzip(answer.body)
    return compressed(answer, packed[: len(packed) // 2])


def gzip_corrupt(answer: Answer, fault: Fault) -> Answer:
    packed = bytearray(gzip(answer.body))
    middle = len(packed) // 2
    packed[middle : middle + 8] = bytes(byte ^ 0xFF for byte in packed[middle : middle + 8])
    return compressed(answer, bytes(packed))


def gzip_bomb(answer: Answer, fault: Fault) -> Answer:
    packer = zlib.compressobj(wbits=31)
    parts = [packer.compress(answer.body[:1])]
    parts += [packer.compress(b" " * MEGABYTE) for _ in range(int(fault.value))]
    return compressed(answer, b"".join([*parts, packer.compress(answer.body[1:]), packer.flush()]))


def gzip(body: bytes) -> bytes:
    return zlib.compress(body, wbits=31)


def compressed(answer: Answer, body: bytes) -> Answer:
    return replace(answer, body=body, blanks=0, headers=[*answer.headers, (b"content-encoding", b"gzip")])


# On a list's answer.


def wrong_shape(answer: Answer, fault: Fault) -> Answer:
    rows = decode(answer.body)["result"]
    return replace(answer, body=encode({"data": rows, "total": len(rows)}))


def wrong_rows(answer: Answer, fault: Fault) -> Answer:
    return with_list(answer, lambda rows: [b"1", b'"row"', b"null", *rows])


def nan(answer: Answer, fault: Fault) -> Answer:
    return with_first(answer, {"issuanceFee": b"NaN"})


def huge_number(answer: Answer, fault: Fault) -> Answer:
    digits = int(fault.value)
    return with_first(answer, {"ledgerNumber": b"9" * digits, "issuanceFee": b"1e%d" % digits})


def deep_nesting(answer: Answer, fault: Fault) -> Answer:
    depth = int(fault.value)
    return with_first(answer, {"limits": b"[" * depth + b"]" * depth})


def big_page(answer: Answer, fault: Fault) -> Answer:
    return replace(answer, blanks=int(fault.value) * MEGABYTE)


def repeated_row(answer: Answer, fault: Fault) -> Answer:
    return with_list(answer, lambda rows: [*rows[:1], *rows])


def total_changes(answer: Answer, fault: Fault) -> Answer:
    body = decode(answer.body)
    if body["pagination"]:
        body["pagination"]["totalElements"] += fault.fired
    return replace(answer, body=encode(body))


def with_list(answer: Answer, change: Callable[[list[bytes]], list[bytes]]) -> Answer:
    """The answer with other rows."""
    body = msgspec.json.decode(answer.body, type=dict[str, msgspec.Raw])
    rows = msgspec.json.decode(body["result"], type=list[msgspec.Raw])
    body["result"] = msgspec.Raw(b"[" + b",".join(change([bytes(row) for row in rows])) + b"]")
    return replace(answer, body=msgspec.json.encode(body))


def with_first(answer: Answer, members: dict[str, bytes]) -> Answer:
    """The answer with other members, written as they are, in its first row."""

    def change(rows: list[bytes]) -> list[bytes]:
        if not rows:
            return rows
        row: dict[str, Any] = msgspec.json.decode(rows[0], type=dict[str, msgspec.Raw])
        written = [encode(name) + b":" + bytes(value) for name, value in {**row, **members}.items()]
        return [b"{" + b",".join(written) + b"}", *rows[1:]]

    return with_list(answer, change)


# While the answer is sent.


async def drip(exchange: Exchange, fault: Fault, answer: Answer) -> None:
    await exchange.start(answer)
    piece = max(1, -(-len(answer.body) // PIECES))
    for start in range(0, len(answer.body), piece):
        await asyncio.sleep(float(fault.value) / PIECES)
        await exchange.write(answer.body[start : start + piece])
    await exchange.write(b"", more=False)


async def reset_before_headers(exchange: Exchange, fault: Fault, answer: Answer) -> None:
    await exchange.reset()


async def reset_after_headers(exchange: Exchange, fault: Fault, answer: Answer) -> None:
    await exchange.start(answer)
    await exchange.reset()


async def reset_in_body(exchange: Exchange, fault: Fault, answer: Answer) -> None:
    await exchange.start(answer)
    await exchange.write(answer.body[: len(answer.body) // 2])
    await exchange.reset()


async def truncated(exchange: Exchange, fault: Fault, answer: Answer) -> None:
    await exchange.start(answer)
    await exchange.write(answer.body[: len(answer.body) // 2])
    exchange.transport.close()


async def close(exchange: Exchange, fault: Fault, answer: Answer) -> None:
    await exchange.respond(answer)
    exchange.transport.close()


REQUEST: dict[str, Callable[[Exchange, Fault], Awaitable[Answer | None]]] = {
    "html": html,
    "empty": empty,
    "problem-200": problem_200,
    "hang": hang,
    "redirect": redirect,
    "latency": latency,
    "token-revoked": token_revoked,
    "token-ttl": token_ttl,
    "clock-skew": clock_skew,
    "duplicate-page": duplicate_page,
    "shuffled": shuffled,
    "row-moves": row_moves,
}
ANSWER: dict[str, Callable[[Answer, Fault], Answer]] = {
    "expires-in": expires_in,
    "content-type": content_type,
    "gzip-truncated": gzip_truncated,
    "gzip-corrupt": gzip_corrupt,
    "gzip-bomb": gzip_bomb,
}
PAGE: dict[str, Callable[[Answer, Fault], Answer]] = {
    "wrong-shape": wrong_shape,
    "wrong-rows": wrong_rows,
    "nan": nan,
    "huge-number": huge_number,
    "deep-nesting": deep_nesting,
    "big-page": big_page,
    "repeated-row": repeated_row,
    "total-changes": total_changes,
}
WIRE: dict[str, Callable[[Exchange, Fault, Answer], Awaitable[None]]] = {
    "drip": drip,
    "reset-before-headers": reset_before_headers,
    "reset-after-headers": reset_after_headers,
    "reset-in-body": reset_in_body,
    "truncated": truncated,
    "close": close,
}
