"""
The data server: the token call and the product list, from a process of its own, never the bottleneck.

``python -m benchmarks.server`` prints its port. The path says what is wanted, so one server serves every case::

    POST /auth/token
    GET  /<rows>/<latency in ms>/<base|changed>/v1/products/?pageNo=0&pageSize=500

HTTP/1.1 with keep-alive and nothing else: the reader is what is measured, so a page is one byte string for the socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from urllib.parse import parse_qs, urlsplit

from benchmarks import catalogue

TOKEN = "bench." + "x" * 600 + ".signature"
_TOKEN_BODY = json.dumps({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}).encode()


def products_path(rows: int, *, latency_ms: int = 0, changed: bool = False) -> str:
    """Return the path under which the server lists such a catalogue."""
    return f"/{rows}/{latency_ms}/{'changed' if changed else 'base'}/v1/products/"


class _Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        url = urlsplit(target)
        if method == "POST" and url.path == "/auth/token":
            self._send(200, _TOKEN_BODY)
            return
        parts = url.path.strip("/").split("/")
        if len(parts) != 5 or f"authorization: bearer {TOKEN}".encode().lower() not in head.lower():
            self._send(401, b'{"status":401,"title":"Unauthorized"}')
            return
        query = parse_qs(url.query)
        number = int(query.get("pageNo", ["0"])[0])
        size = int(query.get("pageSize", [catalogue.PAGE_SIZE])[0])
        body = catalogue.page(int(parts[0]), parts[2] == "changed", number, size)
        latency = int(parts[1]) / 1000
        if latency:
            asyncio.get_running_loop().call_later(latency, self._send, 200, body)
        else:
            self._send(200, body)

    def _send(self, status: int, body: bytes) -> None:
        head = b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
        if not self._transport.is_closing():
            self._transport.writelines([head, body])  # type: ignore[attr-defined]


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # The harness holds our standard input open: when it dies, however it dies, so do we.
    await loop.run_in_executor(None, sys.stdin.read)
    os._exit(0)


def main() -> None:
    try:
        import uvloop

        uvloop.run(_serve())
    except ImportError:
        asyncio.run(_serve())


if __name__ == "__main__":
    main()
