"""What stands before every route: addresses, rates, latency, the log, the controls."""

from __future__ import annotations

import time

import pytest
import requests

from airflow_provider_m2p.sandbox import SandboxServer
from tests.integration.sandbox.calls import ask_token, assert_problem, call


def test_allow_list() -> None:
    with SandboxServer(products=1, allow_ip=("10.0.0.0/8", "2001:db8::/32")) as box:
        for path in ("/v1/products/", "/auth/token", "/.well-known/jwks.json", "/api-docs"):
            assert_problem(call(box, "GET", path), 403, "SBX_022")
        forged = {"X-Forwarded-For": "10.1.2.3", "Forwarded": "for=10.1.2.3", "X-Real-IP": "10.1.2.3"}
        assert_problem(call(box, "GET", "/v1/products/", headers=forged), 403, "SBX_022")
    with SandboxServer(products=1, allow_ip=("127.0.0.0/8",)) as box:
        assert call(box, "GET", "/v1/products/").status_code == 200


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        ("10.1.2.3", 200),
        ("8.8.8.8", 403),
        ("10.1.2.3, 8.8.8.8", 403),
        ("8.8.8.8, 10.1.2.3", 200),
        ("10.1.2.3, 127.0.0.9", 200),
        ("nonsense", 403),
        ("", 403),
    ],
)
def test_trusted_proxy(forwarded: str, status: int) -> None:
    with SandboxServer(products=1, allow_ip=("10.0.0.0/8",), trust_proxy=("127.0.0.0/8",)) as box:
        answer = call(box, "GET", "/v1/products/", headers={"X-Forwarded-For": forwarded})
        assert answer.status_code == status


def test_rate_limit_is_per_client_and_says_when_to_come_back() -> None:
    with SandboxServer(products=1, rate_limit="3/min") as box:
        codes = [call(box, "GET", "/v1/products/").status_code for _ in range(4)]
        assert codes == [200, 200, 200, 429]
        answer = call(box, "GET", "/v1/products/")
        assert_problem(answer, 429, "SBX_050")
        assert 18 <= int(answer.headers["Retry-After"]) <= 20
        assert call(box, "GET", "/v1/products/", client="acme-admin").status_code == 200
        box.advance(int(answer.headers["Retry-After"]))
        assert call(box, "GET", "/v1/products/").status_code == 200
        assert [ask_token(box).status_code for _ in range(4)] == [200, 200, 200, 429]


def test_latency() -> None:
    with SandboxServer(products=1, latency_ms=80) as box:
        started = time.monotonic()
        call(box, "GET", "/v1/products/")
        assert time.monotonic() - started >= 0.08


def test_log_of_requests_holds_no_secret(sandbox: SandboxServer) -> None:
    token = ask_token(sandbox).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}", "X-Request-ID": "r-1"}
    call(sandbox, "GET", "/v1/products/?pageNo=0&pageSize=5", headers=headers)
    first, second = sandbox.requests
    assert (first.method, first.path, first.status, first.client_id) == ("POST", "/auth/token", 200, "acme-viewer")
    assert (second.path, second.query, second.request_id) == ("/v1/products/", "pageNo=0&pageSize=5", "r-1")
    assert (second.tenant, second.status, second.headers["x-tenant-id"]) == ("ACME_CORP", 200, "ACME_CORP")
    assert second.token
    assert sandbox.count("/auth/token") == 1
    assert token not in repr(sandbox.requests) + str(sandbox.requests[1].headers)


def test_extra_tenants() -> None:
    with SandboxServer(products=3, tenants=("TENANT_001", "TENANT_002")) as box:
        assert ask_token(box, "tenant-002-viewer").status_code == 200
        answer = call(box, "GET", "/v1/products/", client="tenant-002-operator", tenant="TENANT_002")
        assert len(answer.json()["result"]) == 3
        assert_problem(
            call(box, "GET", "/v1/products/", client="tenant-001-admin", tenant="TENANT_002"), 403, "SBX_020"
        )


def test_controls(sandbox: SandboxServer) -> None:
    assert requests.get(f"{sandbox.url}/_sandbox/health", timeout=30).json() == {"status": "UP"}
    before = {row["productId"]: row for row in sandbox.catalogue()}
    done = requests.post(
        f"{sandbox.url}/_sandbox/catalogue/ACME_CORP/evolve?add=1&change=2&remove=3", timeout=30
    ).json()
    after = {row["productId"]: row for row in sandbox.catalogue()}
    assert set(after) == (set(before) - set(done["removed"])) | set(done["added"])
    assert {name for name in after if name in before and after[name] != before[name]} == set(done["changed"])
    assert [len(done[name]) for name in ("added", "changed", "removed")] == [1, 2, 3]
    listed = requests.get(f"{sandbox.url}/_sandbox/catalogue/ACME_CORP", timeout=30).json()["result"]
    assert [row["productId"] for row in listed] == list(after)
    assert requests.get(f"{sandbox.url}/_sandbox/requests", timeout=30).json() == []
    assert_problem(requests.get(f"{sandbox.url}/_sandbox/catalogue/NOBODY", timeout=30), 404, "SBX_030")


def test_the_catalogue_can_be_changed_between_loads(sandbox: SandboxServer) -> None:
    product = sandbox.catalogue()[0]
    sandbox.put({**product, "productName": "Renamed"})
    sandbox.remove(sandbox.catalogue()[1]["productId"])
    sandbox.put({**product, "productId": "brandnew01"})
    rows = call(sandbox, "GET", "/v1/products/").json()["result"]
    assert (rows[0]["productName"], rows[-1]["productId"], len(rows)) == ("Renamed", "brandnew01", 250)
    with pytest.raises(KeyError):
        sandbox.remove("unknown")
