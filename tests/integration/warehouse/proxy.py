"""A TCP proxy that loses the connection around the n-th COMMIT."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """
    Passes on bytes to a server on loopback until the n-th COMMIT is sent.

    :param port: the server's.
    :param commit: which COMMIT, counted from 1.
    :param delivered: whether the server still gets that COMMIT, and answers, before the connection breaks.
    """

    def __init__(self, port: int, commit: int, *, delivered: bool) -> None:
        self._server_port = port
        self._left = commit
        self._delivered = delivered
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]

    @property
    def fired(self) -> bool:
        return self._left <= 0

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for each in self._sockets:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
        for thread in self._threads:
            thread.join()

    def _start(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._sockets += [client, server]
            self._start(self._pass_requests, client, server)
            self._start(self._pass_answers, server, client)

    def _pass_requests(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(1 << 16):
                if b"COMMIT\x00" in data and self._left > 0:
                    self._left -= 1
                    if not self._left:
                        if self._delivered:
                            # The answer must not reach the client: it never learns that the COMMIT was done.
                            client.shutdown(socket.SHUT_RDWR)
                            server.sendall(data)
                            while server.recv(1 << 16)[-6:-1] != b"Z\x00\x00\x00\x05":
                                pass
                        break
                server.sendall(data)
        except OSError:
            pass
        for each in (client, server):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _pass_answers(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while data := server.recv(1 << 16):
                client.sendall(data)
        except OSError:
            pass
