"""Connections whose answers end in time: within a limit over all reads, and as soon as nobody waits for them."""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from contextlib import suppress
from typing import Any, ClassVar

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.response import assert_header_parsing

from airflow_provider_m2p.client.retry import Cancellation

#: The whole of an answer must arrive within this many read timeouts, however steadily it drips.
READ_TIMEOUTS_PER_ANSWER = 5

_RECEIVE_BUFFER = 64 * 1024


class Exchange:
    """
    What the sockets of the current thread are reading for.

    :param stop: the reader it is for.
    :param read_timeout: the longest wait for the next bytes; several of them for all bytes.
    """

    _of_thread = threading.local()

    def __init__(self, stop: Cancellation, read_timeout: float) -> None:
        self._stop = stop
        self._read_timeout = read_timeout
        self._deadline = time.monotonic() + read_timeout * READ_TIMEOUTS_PER_ANSWER
        self._readers: list[io.BufferedReader[_TimedReader]] = []

    @classmethod
    def current(cls) -> Exchange:
        exchange: Exchange = cls._of_thread.exchange
        return exchange

    def __enter__(self) -> None:
        self._of_thread.exchange = self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        del self._of_thread.exchange
        self._stop.forget(self)
        if kind is not None:
            # urllib3 forgets them when it refuses the headers.
            for reader in self._readers:
                reader.close()

    def open(self, sock: socket.socket, raw: io.RawIOBase) -> io.BufferedReader[_TimedReader]:
        """Return what reads an answer, until the exchange's time is over or the one it is for goes away."""
        reader = io.BufferedReader(_TimedReader(raw, sock, self), _RECEIVE_BUFFER)
        self._readers.append(reader)
        self._stop.watch(self, lambda: _shut_down(sock))
        return reader

    def next_timeout(self) -> float:
        """Return how long the next read may wait."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long as a whole")
        return min(left, self._read_timeout)


class _TimedReader(io.RawIOBase):
    """A socket's bytes, with the exchange's time limit over all reads: a timeout per read alone never ends a drip."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, exchange: Exchange) -> None:
        self._raw = raw
        self._sock = sock
        self._exchange = exchange

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._exchange.next_timeout())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """Reads through ``_TimedReader``, with a buffer that holds most answers: every read competes for the GIL."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = Exchange.current().open(sock, self.fp.detach())  # type: ignore[assignment]

    def begin(self) -> None:
        super().begin()
        try:
            assert_header_parsing(self.msg)
        except urllib3.exceptions.HeaderParsingError:
            # urllib3 would only log them, and with them what may be a part of the body.
            raise http.client.HTTPException("the headers are malformed") from None


class _PlainConnection(HTTPConnection):
    response_class = _Response


class _TlsConnection(HTTPSConnection):
    response_class = _Response


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class Adapter(HTTPAdapter):
    """Connections whose reads end in time."""

    _pools: ClassVar = {"http": _PlainPool, "https": _TlsPool}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self._pools
        return manager


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):
        # Not SSLSocket's own, which would take the TLS state away from the thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
