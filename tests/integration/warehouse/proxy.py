"""A TCP proxy on loopback that loses the connection at the n-th statement of the client."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

_SIZE = 1 << 16


def postgres_size(data: bytes) -> int:
    """Return the size of the request that ``data`` begins with, 0 if it is not whole: all up to Query, Sync or CopyDone."""
    end = 0
    while len(data) - end >= 5:
        if data[end] == 0:  # the packets before the first typed message begin with their length
            size = int.from_bytes(data[:4])
            return size if len(data) >= size else 0
        kind = data[end : end + 1]
        end += 1 + int.from_bytes(data[end + 1 : end + 5])
        if kind in b"QScX":
            return end if len(data) >= end else 0
    return 0


def mariadb_size(data: bytes) -> int:
    """Return the size of the packet that ``data`` begins with, 0 if it is not whole."""
    size = 4 + int.from_bytes(data[:3], "little")
    return size if len(data) >= max(size, 5) else 0


class Protocol(NamedTuple):
    """
    How to take a client's bytes apart.

    :param size: gives the size of the request at the beginning, 0 if it is not whole.
    :param is_statement: tells whether a request is more than a greeting or a good-bye.
    """

    size: Callable[[bytes], int]
    is_statement: Callable[[bytes], bool]


POSTGRES = Protocol(postgres_size, lambda request: request[:1] in (b"Q", b"P", b"B", b"d", b"c"))
MARIADB = Protocol(mariadb_size, lambda request: request[3:5] == b"\x00\x03")


class Proxy:
    """
    Passes on bytes to a server on loopback until the n-th statement that counts. Then that connection is lost.

    :param port: the server's.
    :param cut: which statement, counted from 1; 0 for none.
    :param delivered: whether the server still gets that statement, and begins to answer, before the connection breaks.
    :param counts: which statements count.
    :param protocol: the server's.
    """

    def __init__(
        self,
        port: int,
        cut: int,
        *,
        delivered: bool,
        counts: Callable[[bytes], object] = bool,
        protocol: Protocol = POSTGRES,
    ) -> None:
        self._server_port = port
        self._cut = cut
        self._delivered = delivered
        self._counts = counts
        self._protocol = protocol
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        self.statements = 0

    @property
    def fired(self) -> bool:
        return 0 < self._cut <= self.statements

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._shut(self._listener)
        self._threads[0].join()  # from here on there are no new connections
        # Whoever waits for a socket would not notice that it is closed, but does that it is shut down.
        self._shut(*self._sockets)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    def _start(self, run: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=run, args=arguments)
        self._threads.append(thread)
        thread.start()

    @staticmethod
    def _shut(*sockets: socket.socket) -> None:
        for each in sockets:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [client, server]
            self._start(self._pass_on, client, server)

    def _is_cut(self, request: bytes) -> bool:
        if not (self._protocol.is_statement(request) and self._counts(request)):
            return False
        self.statements += 1
        return self.statements == self._cut

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        waiting = b""
        try:
            with selectors.DefaultSelector() as selector:
                for each in (client, server):
                    selector.register(each, selectors.EVENT_READ)
                while True:
                    for key, _ in selector.select():
                        if not (data := (server if key.fileobj is server else client).recv(_SIZE)):
                            return
                        if key.fileobj is server:
                            client.sendall(data)
                            continue
                        waiting += data
                        while size := self._protocol.size(waiting):
                            request, waiting = waiting[:size], waiting[size:]
                            if self._is_cut(request):
                                if self._delivered:
                                    server.sendall(request)
                                    server.recv(_SIZE)
                                return
                            server.sendall(request)
        except OSError:
            pass
        finally:
            self._shut(client, server)
