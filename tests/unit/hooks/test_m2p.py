from __future__ import annotations

import json
import logging
import socket
import textwrap
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import airflow
import pytest
from airflow.sdk import BaseHook, Connection
from airflow.sdk.definitions._internal.contextmanager import _CURRENT_CONTEXT

from airflow_provider_m2p import __version__
from airflow_provider_m2p.client import M2PClient
from airflow_provider_m2p.exceptions import M2PAuthError, M2PConfigError
from airflow_provider_m2p.hooks.m2p import M2PHook
from tests.connections import connect, m2p_connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_m2p.sandbox.server import SandboxServer


@pytest.fixture
def hook(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> M2PHook:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url))
    return M2PHook()


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was handed to Airflow's secrets masker."""
    from airflow.sdk import log

    secrets: list[Any] = []
    real = log.mask_secret

    def mask_secret(secret: Any, name: str | None = None) -> None:
        secrets.append(secret)
        real(secret, name)

    monkeypatch.setattr(log, "mask_secret", mask_secret)
    return secrets


@pytest.fixture
def in_task() -> Iterator[None]:
    """The context of a running task."""
    ti = SimpleNamespace(dag_id="sync", run_id="manual__2026-11-23", task_id="load", map_index=4, try_number=2)
    _CURRENT_CONTEXT.append({"ti": ti})
    yield
    _CURRENT_CONTEXT.pop()


def test_init_reads_and_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> None:
        raise AssertionError("touched in __init__")

    monkeypatch.setattr(BaseHook, "get_connection", no)
    monkeypatch.setattr(socket.socket, "connect", no)
    assert M2PHook("any").m2p_conn_id == "any"
    assert M2PHook(m2p_conn_id="any", logger_name="x").m2p_conn_id == "any"


def test_get_conn_is_one_client_for_all_calls(hook: M2PHook) -> None:
    assert isinstance(hook.get_conn(), M2PClient)
    assert hook.get_conn() is hook.get_conn()


def test_get_token_asks_once(hook: M2PHook, sandbox: SandboxServer) -> None:
    token = hook.get_token()
    assert token.count(".") == 2
    hook.get_products()
    assert hook.get_token() == token
    assert sandbox.count("/auth/token") == 1


def test_token_and_secret_are_masked(hook: M2PHook, masked: list[Any]) -> None:
    from airflow.sdk.log import redact

    token = hook.get_token()
    assert token in masked
    assert "acme-viewer-secret" in masked
    assert redact(f"{token} acme-viewer-secret") == "*** ***"


def test_request_is_authenticated(hook: M2PHook, sandbox: SandboxServer) -> None:
    answer = hook.request("GET", "/v1/products/", params={"pageNo": 0, "pageSize": 3}, request_id="mine-1")
    assert len(answer.json()["result"]) == 3
    (record,) = (record for record in sandbox.requests if record.path == "/v1/products/")
    assert record.request_id == "mine-1"
    assert record.headers["x-tenant-id"] == "ACME_CORP"
    assert record.headers["user-agent"] == f"airflow-provider-m2p/{__version__} airflow/{airflow.__version__}"


def test_iter_pages_yields_all_rows_page_by_page_with_exact_numbers(hook: M2PHook, sandbox: SandboxServer) -> None:
    pages = list(hook.iter_pages())
    assert [len(page) for page in pages] == [100, 100, 50]
    assert [row for page in pages for row in page] == sandbox.catalogue()
    fee = next(row["issuanceFee"] for page in pages for row in page if row["issuanceFee"])
    assert isinstance(fee, Decimal)


def test_iter_pages_of_another_path_with_parameters(hook: M2PHook, sandbox: SandboxServer) -> None:
    rows = [row for page in hook.iter_pages("/configs/v1/products/", {"x": "1"}) for row in page]
    assert rows == sandbox.catalogue()
    assert {r.path for r in sandbox.requests} == {"/auth/token", "/configs/v1/products/"}
    assert all("x=1" in r.query for r in sandbox.requests if r.path.startswith("/configs"))


def test_iter_pages_can_be_left_early(hook: M2PHook) -> None:
    pages = hook.iter_pages()
    assert len(next(pages)) == 100
    pages.close()


def test_get_products(hook: M2PHook, sandbox: SandboxServer) -> None:
    assert hook.get_products() == sandbox.catalogue()


def test_get_products_df(hook: M2PHook, sandbox: SandboxServer) -> None:
    frame = hook.get_products_df()
    assert len(frame) == 250
    assert list(frame["product_id"]) == [product["productId"] for product in sandbox.catalogue()]
    assert "limits__daily" in frame


def test_in_a_task_request_ids_tell_which(hook: M2PHook, sandbox: SandboxServer, in_task: None) -> None:
    hook.get_products()
    ids = [record.request_id for record in sandbox.requests]
    assert len(set(ids)) == 4
    assert all(i.startswith("sync/manual__2026-11-23/load/map=4/try=2-") and len(i) < 128 for i in ids), ids


def test_a_connection_in_uri_form(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    host = sandbox.url.removeprefix("http://")
    connect(
        monkeypatch,
        m2p_uri=f"m2p://http://acme-viewer:acme-viewer-secret@{host}/?tenant_id=ACME_CORP&page_size=60&verify=false"
        "&token_cache=process",
    )
    assert [len(page) for page in M2PHook("m2p_uri").iter_pages()] == [60, 60, 60, 60, 10]


def test_a_connection_survives_the_way_to_a_worker(sandbox: SandboxServer) -> None:
    connection = Connection.from_json(
        m2p_connection(sandbox.url, page_size=60, verify=False, credentials_issued_on="2026-01-31"), "m2p_x"
    )
    arrived = Connection.from_uri(connection.get_uri(), conn_id="m2p_x")
    assert (arrived.host, arrived.login, arrived.password) == (sandbox.url, "acme-viewer", "acme-viewer-secret")
    assert json.loads(arrived.extra or "") == json.loads(connection.extra or "")


def test_unknown_extras_are_named_once(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url, tennant="hush-hush"))
    hook = M2PHook()
    with caplog.at_level(logging.WARNING):
        hook.get_products()
        hook.get_token()
    (warning,) = [record.getMessage() for record in caplog.records if "tennant" in record.getMessage()]
    assert "hush-hush" not in warning


def days_ago(days: int) -> str:
    return (datetime.now(UTC).date() - timedelta(days=days)).isoformat()


def test_a_secret_to_be_rotated_is_in_the_log_once(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url, credentials_issued_on=days_ago(95)))
    hook = M2PHook()
    said: list[str] = []
    monkeypatch.setattr(hook.log, "warning", lambda text, *args: said.append(text % args))
    hook.get_products()
    hook.get_token()
    (warning,) = said
    assert "m2p_default" in warning
    assert "(5 days ago)" in warning


class TestTestConnection:
    """What the form's Test button says, step by step."""

    @staticmethod
    def of(connection: str, monkeypatch: pytest.MonkeyPatch) -> tuple[bool, str]:
        connect(monkeypatch, m2p_default=connection)
        return M2PHook().test_connection()

    def test_success(self, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
        ok, message = self.of(m2p_connection(sandbox.url), monkeypatch)
        assert ok, message
        assert "ACME_CORP" in message
        assert "250" in message
        assert sandbox.count("/v1/products/") == 1

    def test_airflow_finds_it_by_the_connections_type(
        self, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect(monkeypatch, m2p_default=m2p_connection(sandbox.url))
        ok, message = BaseHook.get_connection("m2p_default").get_hook().test_connection()
        assert ok, message

    def test_no_tenant_id(self, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
        ok, message = self.of(m2p_connection(sandbox.url, tenant_id=None), monkeypatch)
        assert not ok
        assert message.startswith("Connection: ")
        assert "tenant_id" in message

    def test_wrong_secret(self, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
        ok, message = self.of(m2p_connection(sandbox.url, password="not-the-secret"), monkeypatch)
        assert not ok
        assert message.startswith("Token: ")
        assert "client secret" in message
        assert "not-the-secret" not in message

    @pytest.mark.parametrize(
        "wrong", [{"password": "not-the-secret"}, {"tenant_id": "GLOBEX"}, {"products_path": "/v9/nothing"}, {"paging": "x"}]
    )
    def test_no_message_names_the_id_that_the_form_makes_up(
        self, wrong: dict[str, Any], sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect(monkeypatch, qz7rnd=m2p_connection(sandbox.url, **wrong))
        ok, message = M2PHook("qz7rnd").test_connection()
        assert not ok
        assert "qz7rnd" not in message
        assert "Connection Connection" not in message
        if "password" in wrong:
            assert message.endswith("Check client id and client secret (login and password) of this connection.")

    def test_a_role_that_may_not_read(self, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
        sandbox.add_client("acme-guest", "ACME_CORP", "Guest")
        ok, message = self.of(m2p_connection(sandbox.url, "acme-guest"), monkeypatch)
        assert not ok
        assert message.startswith("Products: ")
        for word in ("role (Guest)", "tenant (ACME_CORP)", "IP whitelist (worker 127.0.0.1 before NAT)"):
            assert word in message
        assert len(textwrap.wrap(message, 40)) <= 6, message  # what a line in the UI holds

    def test_wrong_tenant(self, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
        ok, message = self.of(m2p_connection(sandbox.url, tenant_id="GLOBEX"), monkeypatch)
        assert not ok
        assert message.startswith("Tenant: ")
        assert "GLOBEX" in message
        assert "ACME_CORP" in message

    def test_no_such_path(self, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
        ok, message = self.of(m2p_connection(sandbox.url, products_path="/v9/nothing"), monkeypatch)
        assert not ok
        assert message.startswith("Products: ")
        assert "/v9/nothing" in message

    def test_nobody_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        ok, message = self.of(m2p_connection(url), monkeypatch)
        assert not ok
        assert message.startswith("Token: ")

    def test_no_such_connection(self) -> None:
        ok, message = M2PHook("m2p_nowhere").test_connection()
        assert not ok
        assert message.startswith("Connection: ")
        assert "m2p_nowhere" in message

    def test_a_secret_to_be_rotated_soon(self, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
        ok, message = self.of(m2p_connection(sandbox.url, credentials_issued_on=days_ago(85)), monkeypatch)
        assert ok, message
        assert "250 products found" in message
        assert "(in 5 days)" in message
        assert "products found. The client secret was issued on" in message
        ok, message = self.of(m2p_connection(sandbox.url, credentials_issued_on=days_ago(78)), monkeypatch)
        assert ok, message
        assert "rotation" not in message

    def test_a_cached_token_does_not_hide_a_revoked_secret(
        self, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection = m2p_connection(sandbox.url)
        assert self.of(connection, monkeypatch)[0]
        M2PHook().get_token()
        sandbox.rotate_secret("acme-viewer", "the-new-secret")
        ok, message = self.of(connection, monkeypatch)
        assert not ok
        assert message.startswith("Token: ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tenant_id": None}, ["tenant_id", "missing"]),
        ({"password": "***"}, ["password", "***", "again"]),
        ({"password": ""}, ["password", "client secret"]),
    ],
)
def test_what_is_wrong_with_a_connection(
    change: dict[str, Any], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, m2p_default=m2p_connection("http://127.0.0.1:9", **change))
    with pytest.raises(M2PConfigError) as caught:
        M2PHook().get_conn()
    for word in ["m2p_default", *words]:
        assert word in str(caught.value)


def test_a_base_url_with_a_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, m2p_default=m2p_connection("http://127.0.0.1:9/configs"))
    with pytest.raises(M2PConfigError, match=r"m2p_default.*host.*products_path"):
        M2PHook().get_products()


def test_a_wrong_secret_is_an_auth_error(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url, password="wrong-one"))
    with pytest.raises(M2PAuthError, match=r"m2p_default.*client secret"):
        M2PHook().get_products()
    assert sandbox.count("/auth/token") == 1
