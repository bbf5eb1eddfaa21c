"""The client against the sandbox: the platform's rules, end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_m2p.client import ClientSettings, M2PClient, token_cache
from airflow_provider_m2p.exceptions import M2PApiError, M2PAuthError, M2PPermissionError

if TYPE_CHECKING:
    from airflow_provider_m2p.sandbox.server import SandboxServer

Connect = Callable[..., M2PClient]


@pytest.fixture
def connect(sandbox: SandboxServer) -> Iterator[Connect]:
    token_cache.clear()
    clients: list[M2PClient] = []

    def make(login: str = "acme-viewer", password: str | None = None, **extra: Any) -> M2PClient:
        settings = ClientSettings.from_connection(
            conn_id="m2p_test",
            host=sandbox.url,
            login=login,
            password=password or f"{login}-secret",
            extra={"tenant_id": "ACME_CORP", "token_cache": "process", **extra},
        )
        clients.append(M2PClient(settings, retry_seconds=5))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.mark.parametrize("page_size", [7, 100, 1000])
@pytest.mark.parametrize("paging", ["auto", "page"])
@pytest.mark.parametrize("products_path", ["/v1/products/", "/configs/v1/products/"])
def test_the_whole_catalogue(connect: Connect, page_size: int, paging: str, products_path: str) -> None:
    stream = connect(page_size=page_size, paging=paging, products_path=products_path).pages()
    products = [row for page in stream for row in page.records()]
    assert len({product["productId"] for product in products}) == len(products) == 250
    assert (stream.complete, stream.total_rows) == (True, 250)


def test_a_wrong_secret(connect: Connect) -> None:
    with pytest.raises(M2PAuthError, match=r"HTTP 401.* of connection m2p_test"):
        connect(password="wrong").get_token()


def test_another_tenant(connect: Connect) -> None:
    client = connect(tenant_id="GLOBEX")
    with pytest.raises(M2PPermissionError, match="token is for tenant ACME_CORP, the connection names GLOBEX"):
        list(client.pages())
    with pytest.raises(M2PPermissionError, match="HTTP 403"):
        client.request("GET", "/v1/products/")


def test_a_role_that_may_not(connect: Connect) -> None:
    with pytest.raises(M2PPermissionError, match=r"HTTP 403.*Check role \(Viewer\)"):
        connect("acme-viewer").request("POST", "/v1/products/", json={"productName": "x"})


def test_a_path_that_is_not_there(connect: Connect) -> None:
    with pytest.raises(M2PApiError, match="HTTP 404"):
        connect().request("GET", "/v1/nothing/")


def test_claims(connect: Connect) -> None:
    claims = connect("acme-admin").claims()
    assert claims.tenants == ("ACME_CORP",)
    assert claims.roles
    assert claims.may_read
    assert claims.lifetime(0)


def test_peek(connect: Connect) -> None:
    page = connect().peek()
    assert len(page.records()) == 1
    assert page.total_rows == 250
