"""A platform on loopback that answers as each test says."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_m2p.client import ClientSettings, M2PClient
from airflow_provider_m2p.client import token_cache as token_cache_module
from airflow_provider_m2p.client.retry import Cancellation
from airflow_provider_m2p.client.token import Clock

TOKEN = "first-token-0123456789"
SECRET = "a very secret secret"


def jwt(claims: Any = None, **more: Any) -> str:
    """Return a token with claims; its signature is none."""
    parts = ({"alg": "RS256", "typ": "JWT"}, more if claims is None else claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


@dataclass
class Asked:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def page(self) -> int:
        return int(self.query["pageNo"])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return {key.lower(): value for key, value in self.headers.items()}.get(name.lower())


@dataclass
class Reply:
    """What to answer. ``raw`` goes over the wire as it is, and the connection is closed after it."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    chunks: Iterator[bytes] | None = None

    @property
    def payload(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Answer = Callable[[Asked], Any]


class Platform:
    """Records requests, answers them by ``token`` and ``answer``. Plain values are bodies of HTTP 200."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.token: Answer = lambda _: {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}
        self.answer: Answer = lambda _: []
        self.connections = 0
        platform = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                platform.connections += 1

            def log_message(self, *_: object) -> None:
                pass

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, dict(self.headers.items()), body)
                platform.asked.append(asked)
                reply = platform.token(asked) if asked.path == "/auth/token" else platform.answer(asked)
                self.send(reply if isinstance(reply, Reply) else Reply(reply))

            do_GET = do_POST = do_PUT = answer

            def send(self, reply: Reply) -> None:
                if reply.raw is not None:
                    self.wfile.write(reply.raw)
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                payload = b"" if reply.chunks else reply.payload
                headers = {"Content-Type": "application/json", **reply.headers}
                if reply.chunks is None:
                    headers.setdefault("Content-Length", str(len(payload)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(payload)
                for chunk in reply.chunks or ():
                    self.wfile.write(chunk)
                    self.wfile.flush()
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def lists(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.path != "/auth/token"]

    @property
    def tokens(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == "/auth/token"]

    def serve_rows(self, rows: list[Any], *, cap: int = 1000, **shape: Any) -> None:
        """Answer as a platform with pages does: ``pagination`` names the keys it reports."""
        keys = shape.get("pagination", ("pageNo", "pageSize", "totalPages", "totalElements"))

        def answer(asked: Asked) -> Any:
            number, size = asked.page, min(int(asked.query["pageSize"]), cap)
            page = rows[number * size : (number + 1) * size]
            if keys is None:
                return page
            known = {
                "pageNo": number,
                "pageSize": size,
                "totalPages": -(-len(rows) // size),
                "totalElements": len(rows),
                "list": True,
            }
            return {"result": page, "pagination": {key: known[key] for key in keys}}

        self.answer = answer


@pytest.fixture
def platform() -> Iterator[Platform]:
    platform = Platform()
    yield platform
    platform.close()


@dataclass
class FakeTime:
    """Clocks that stand still but for pauses, which only move them."""

    now: float = 1_800_000_000.0
    wall_offset: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def sleep(self, seconds: float, stop: Cancellation) -> None:
        stop.check()
        self.pauses.append(seconds)
        self.now += seconds

    @property
    def clock(self) -> Clock:
        return Clock(wall=lambda: self.now + self.wall_offset, steady=lambda: self.now)


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture(autouse=True)
def own_token_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2P_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(token_cache_module, "_warned", set())
    token_cache_module.clear()


MakeSettings = Callable[..., ClientSettings]
MakeClient = Callable[..., M2PClient]


@pytest.fixture
def make_settings(platform: Platform) -> MakeSettings:
    """Settings of a connection to the platform; keywords are extras."""

    def make(**extra: Any) -> ClientSettings:
        return ClientSettings.from_connection(
            conn_id="m2p_test",
            host=extra.pop("host", platform.url),
            login=extra.pop("login", "acme-admin"),
            password=extra.pop("password", SECRET),
            extra={"tenant_id": "ACME_CORP", "token_cache": "process", **extra},
        )

    return make


@pytest.fixture
def make_client(make_settings: MakeSettings, fake_time: FakeTime) -> Iterator[MakeClient]:
    """Clients with a fake time; keywords are extras, ``arguments`` those of the client."""
    clients: list[M2PClient] = []

    def make(arguments: dict[str, Any] | None = None, **extra: Any) -> M2PClient:
        options = {"clock": fake_time.clock, "sleep": fake_time.sleep, **(arguments or {})}
        clients.append(M2PClient(make_settings(**extra), **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
