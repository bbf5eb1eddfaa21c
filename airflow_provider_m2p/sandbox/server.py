"""A sandbox that runs in a thread: for tests, and under the command line."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_provider_m2p.sandbox.app import create_app
from airflow_provider_m2p.sandbox.audit import Event
from airflow_provider_m2p.sandbox.certificates import make_certificates
from airflow_provider_m2p.sandbox.products import Product
from airflow_provider_m2p.sandbox.settings import Settings
from airflow_provider_m2p.sandbox.simulator import Platform, RequestRecord


class Protocol(H11Protocol):
    """
    HTTP/1.1 that shows the application its connection, for the faults that tear it.

    Of uvicorn's parsers this is the one that answers the HTTP/2 upgrade offers of Java's HttpClient.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


class Server(uvicorn.Server):
    """uvicorn that stops at once when told to from another thread: a hanging request is no reason to wait."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        await super().startup(sockets)

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 0.5)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if self.server_state.tasks:  # what was waiting for those connections ends by itself, and tidies up
            await asyncio.wait(self.server_state.tasks, timeout=0.5)

    def stop(self) -> None:
        self.should_exit = True
        self._loop.call_soon_threadsafe(self._stopping.set)


class SandboxServer:
    """
    The platform on a loopback port, for as long as the ``with`` block lasts.

    ::

        with SandboxServer(products=250) as box:
            requests.post(f"{box.url}/auth/token", json={...})
            assert box.count("/auth/token") == 1

    ``url`` is its base URL; ``ca_file`` the certificate of its private CA, if it has one.

    :param options: the fields of :class:`~airflow_provider_m2p.sandbox.settings.Settings`.
    """

    def __init__(self, **options: Any) -> None:
        self.settings = Settings(**options)
        self.platform = Platform(self.settings)
        self._socket: socket.socket | None = None
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self._folder: TemporaryDirectory[str] | None = None
        self.url = ""
        self.ca_file: str | None = None

    def start(self) -> SandboxServer:
        """Bind the port and return once requests are answered."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        config = uvicorn.Config(
            create_app(self.platform),
            http=Protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            **self._tls(),
        )
        config.load()  # here, where a certificate that cannot be read is the caller's error
        host = self.settings.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, self.settings.port), family=family, backlog=512)
        server = self._server = Server(config)
        sockets = [self._socket]
        self._thread = threading.Thread(target=lambda: server.run(sockets), name="m2p-sandbox", daemon=True)
        self._thread.start()
        while not server.started:
            self._thread.join(0.005)
            if not self._thread.is_alive():
                raise RuntimeError("the sandbox did not start")
        port = self._socket.getsockname()[1]
        scheme = "https" if config.is_ssl else "http"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def stop(self) -> None:
        """Stop answering and free the port. Once is enough, twice does no harm."""
        if self._server is not None and self._thread is not None and self._thread.is_alive():
            self._server.stop()
            self._thread.join()
        if self._socket is not None:
            self._socket.close()
        if self._folder is not None:
            self._folder.cleanup()
        self.platform.state.close()

    def _tls(self) -> dict[str, Any]:
        """The certificate to serve under, made now if the settings say so."""
        settings = self.settings
        if settings.tls is None:
            return {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}
        self._folder = TemporaryDirectory(prefix="m2p-sandbox-")
        ca, certificate, key = make_certificates(Path(self._folder.name), expired=settings.tls == "expired")
        self.ca_file = settings.tls_ca or str(ca)
        if settings.tls_ca:
            shutil.copyfile(ca, settings.tls_ca)
        return {"ssl_certfile": certificate, "ssl_keyfile": key}

    def __enter__(self) -> SandboxServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def requests(self) -> Sequence[RequestRecord]:
        """Every request so far but those to the sandbox's own controls, oldest first."""
        return list(self.platform.requests)

    def count(self, path: str) -> int:
        """How many requests came for a path."""
        return sum(record.path == path for record in self.requests)

    def catalogue(self, tenant: str = "ACME_CORP") -> list[Product]:
        """A tenant's products with their exact values: whole numbers as int, those with a fraction as Decimal."""
        return self.platform.catalogue(tenant).products()

    def put(self, product: Product, tenant: str = "ACME_CORP") -> None:
        """Add a product as the list's last, or put it in the place of the one with its ``productId``."""
        self.platform.catalogue(tenant).put(product)

    def remove(self, product_id: str, tenant: str = "ACME_CORP") -> None:
        """Take a product out of the list."""
        self.platform.catalogue(tenant).remove(product_id)

    def evolve(
        self, tenant: str = "ACME_CORP", *, add: int = 2, change: int = 5, remove: int = 1
    ) -> dict[str, list[str]]:
        """Change the catalogue as a day at the tenant's would; returns the ids ``added, changed, removed``."""
        return self.platform.catalogue(tenant).evolve(add=add, change=change, remove=remove)

    def set_faults(self, *specs: str) -> None:
        """Put these faults in the place of those in force; none ends them all. See :mod:`.faults` for the specs."""
        self.platform.faults.replace(specs)

    def faults_fired(self) -> dict[str, int]:
        """How often each fault in force has hit."""
        return {fault.spec: fault.fired for fault in self.platform.faults.active}

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock, to let tokens expire without waiting."""
        self.platform.clock.advance(seconds)

    def token(self, client_id: str = "acme-viewer") -> str:
        """An access token, without a request."""
        client = self.platform.clients.get(client_id)
        if client is None:
            raise KeyError(client_id)
        return self.platform.tokens.issue(client.client_id, client.tenant, (client.role,))

    def add_client(self, client_id: str, tenant: str, role: str, secret: str | None = None) -> None:
        """Add a client with the role Admin, Operator or Viewer; its secret is ``<client id>-secret`` unless given."""
        self.platform.clients.add(client_id, tenant, role, secret)

    def audit(self, tenant: str = "ACME_CORP") -> list[Event]:
        """The tenant's audit log; under ``""`` are the refusals of callers who did not show who they are."""
        return self.platform.audit.events(tenant)

    def rotate_secret(self, client_id: str, secret: str, *, window: float = 0) -> None:
        """Give a client a new secret; the old one stays good for the window."""
        self.platform.clients.rotate(client_id, window=window, secret=secret)

    def revoke_tokens(self, client_id: str = "acme-viewer") -> None:
        """Revoke every token of a client."""
        self.platform.tokens.revoke_client(client_id)
