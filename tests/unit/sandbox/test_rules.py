"""Settings, addresses, the rate limit and the state, without a server."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message

from airflow_provider_m2p.sandbox.app import create_app
from airflow_provider_m2p.sandbox.authorization import address_of, is_loopback, within
from airflow_provider_m2p.sandbox.clock import Clock
from airflow_provider_m2p.sandbox.limiter import Limiter
from airflow_provider_m2p.sandbox.problems import Problem
from airflow_provider_m2p.sandbox.settings import Settings, requests_per_second
from airflow_provider_m2p.sandbox.simulator import Platform
from airflow_provider_m2p.sandbox.state import State


def test_clients_of_every_tenant() -> None:
    clients = Settings(tenants=("TENANT_007",)).clients
    assert ("acme-viewer", "ACME_CORP", "Viewer") in clients
    assert [client for client, tenant, _ in clients if tenant == "GLOBEX"] == ["globex-viewer"]
    assert clients[-3:] == (
        ("tenant-007-admin", "TENANT_007", "Admin"),
        ("tenant-007-operator", "TENANT_007", "Operator"),
        ("tenant-007-viewer", "TENANT_007", "Viewer"),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"page_size_max": 0}, "page_size_max must be at least 1, not 0"),
        ({"rate_limit": "0/min"}, "a rate limit looks like 600/min or 5/s, not '0/min'"),
        ({"allow_ip": ("300.0.0.0/8",)}, "300.0.0.0/8"),
        ({"tls": "none"}, "tls must be private-ca or expired"),
        ({"tls_cert": "a.pem"}, "tls_cert and tls_key go together"),
        ({"tls": "expired", "tls_cert": "a", "tls_key": "b"}, "leave out tls_cert and tls_key"),
    ],
)
def test_bad_settings(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "limit"), [("600/min", (600, 10)), ("600", (600, 10)), ("5/s", (5, 5)), (None, None)])
def test_rate_limits(text: str | None, limit: tuple[int, float] | None) -> None:
    assert requests_per_second(text) == limit


def test_bucket_refills_and_never_overflows() -> None:
    clock = Clock()
    limiter = Limiter("2/s", clock)
    clock.advance(3600)
    for _ in range(2):
        limiter.spend("a")
    with pytest.raises(Problem) as refused:
        limiter.spend("a")
    assert refused.value.headers["Retry-After"] == "1"
    limiter.spend("b")
    clock.advance(1)
    limiter.spend("a")


def test_addresses() -> None:
    settings = Settings(allow_ip=("10.0.0.0/8", "::1/128"))
    assert within("10.9.9.9", settings.allowed)
    assert within("::ffff:10.9.9.9", settings.allowed)
    assert not within("11.0.0.1", settings.allowed)
    assert not within("10.0.0.1.evil", settings.allowed)
    assert within("::1", settings.allowed)


@pytest.mark.parametrize(
    ("client", "loopback"),
    [(("127.0.0.1", 1), True), (("127.9.9.9", 1), True), (("::1", 1), True), (("10.0.0.1", 1), False), (None, False)],
)
def test_loopback_is_the_peer_and_not_a_header(client: tuple[str, int] | None, loopback: bool) -> None:
    scope = {"client": client, "headers": [(b"x-forwarded-for", b"127.0.0.1")], "type": "http"}
    assert is_loopback(scope) is loopback
    assert address_of(scope, ()) == (client[0] if client else "")


@pytest.mark.parametrize("path", ["/_sandbox/faults", "/_sandbox/requests", "/_sandbox/catalogue/ACME_CORP"])
@pytest.mark.parametrize(("client", "status"), [("127.0.0.1", 200), ("10.0.0.5", 403)])
def test_controls_are_for_this_machine_alone(path: str, client: str, status: int) -> None:
    platform = Platform(Settings(products=1))
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "root_path": "",
        "http_version": "1.1",
        "state": {},
        "client": (client, 1),
        "headers": [(b"host", b"x"), (b"x-forwarded-for", b"127.0.0.1")],
    }
    asyncio.run(create_app(platform)(scope, receive, send))
    platform.state.close()
    assert sent[0]["status"] == status


def test_a_transaction_is_whole_or_not_at_all() -> None:
    state = State()

    def half() -> None:
        with state.transaction():
            state.keep_product("ACME_CORP", "one", b"{}")
            raise LookupError

    with pytest.raises(LookupError):
        half()
    assert list(state.products_changed("ACME_CORP")) == []
    with state.transaction():
        state.keep_product("ACME_CORP", "one", b"{}")
    assert list(state.products_changed("ACME_CORP")) == [("one", b"{}")]
    assert [state.next_number("x"), state.next_number("x"), state.next_number("y")] == [0, 1, 0]
    assert state.remembered("seed", "1") == state.remembered("seed", "2") == "1"
    state.close()
