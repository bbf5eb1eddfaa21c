"""The product list: its tenants, pages and exact values."""

from __future__ import annotations

import json
import re

import pytest

from airflow_provider_m2p.sandbox import SandboxServer
from airflow_provider_m2p.sandbox.catalogue import decode
from airflow_provider_m2p.sandbox.products import TYPES
from tests.integration.sandbox.calls import assert_problem, call


def test_bare_call_answers_the_whole_list(box: SandboxServer) -> None:
    for path in ("/v1/products/", "/configs/v1/products/"):
        body = decode(call(box, "GET", path).content)
        assert body == {"result": box.catalogue(), "pagination": None}


def test_pages_put_together_are_the_list(box: SandboxServer) -> None:
    rows = []
    for number in range(5):
        body = decode(call(box, "GET", "/v1/products/", params={"pageNo": number, "pageSize": 25}).content)
        pagination = {"list": True, "pageSize": 25, "pageNo": number, "totalPages": 5, "totalElements": 120}
        assert body["pagination"] == pagination
        rows += body["result"]
    assert rows == box.catalogue()
    assert decode(call(box, "GET", "/v1/products/?pageNo=5&pageSize=25").content)["result"] == []


@pytest.mark.parametrize(
    ("query", "number", "size"),
    [("pageNo=2", 2, 10), ("pageSize=7", 0, 7), ("pageSize=9999", 0, 50), (f"pageNo={10**30}", 10**30, 10)],
)
def test_page_defaults_and_cap(box: SandboxServer, query: str, number: int, size: int) -> None:
    body = decode(call(box, "GET", f"/v1/products/?{query}").content)
    assert (body["pagination"]["pageNo"], body["pagination"]["pageSize"]) == (number, size)
    assert body["result"] == box.catalogue()[number * size : (number + 1) * size]


@pytest.mark.parametrize("query", ["pageNo=-1", "pageSize=0", "pageNo=one", "pageSize="])
def test_bad_paging(box: SandboxServer, query: str) -> None:
    problem = assert_problem(call(box, "GET", f"/v1/products/?{query}"), 400, "SBX_001")
    assert problem["fieldErrors"][0]["field"] == f"query.{query.split('=')[0]}"


def test_numbers_are_on_the_wire_digit_for_digit(box: SandboxServer) -> None:
    text = call(box, "GET", "/v1/products/").text
    for written in ('"issuanceFee":0.1,', '"issuanceFee":8500.00,', '"maxLoadAmount":"8500.00"', ":100.00}"):
        assert written in text
    assert any(len(number) > 15 for number in re.findall(r'"ledgerNumber":(\d+)', text))


def test_values_are_as_awkward_as_promised() -> None:
    with SandboxServer(products=250) as box:
        rows = box.catalogue()
        assert {row["productType"].upper() for row in rows} == {*TYPES}
        assert {type(row["countryCode"]) for row in rows} == {int, str}
        assert {len(row["createdAt"]) for row in rows} == {20, 24}
        assert any(row["description"] is None for row in rows)
        assert any(row["description"] == "" for row in rows)
        assert any("मुंबई" in row["productName"] for row in rows)
        assert rows[3]["productId"] == rows[2]["productId"].swapcase()
        assert len({row["productId"] for row in rows}) == 250
        first, later = ({name for row in part for name in row} for part in (rows[:100], rows[100:]))
        assert later - first == {"ncmc", "targetProductId"}
        assert 700 < len(json.dumps(rows, default=str)) / 250 < 1500


def test_tenants_have_their_own_products(box: SandboxServer) -> None:
    body = decode(call(box, "GET", "/v1/products/", client="globex-viewer", tenant="GLOBEX").content)
    assert body["result"] == box.catalogue("GLOBEX")
    acme, globex = ({row["productId"] for row in box.catalogue(tenant)} for tenant in ("ACME_CORP", "GLOBEX"))
    assert 0 < len(acme & globex) <= 10 < len(acme - globex)


ROUTES = [
    ("GET", "/v1/products/"),
    ("POST", "/v1/products/"),
    ("PUT", "/v1/products/some"),
    ("GET", "/configs/v1/products/"),
    ("GET", "/v1/product-changes/"),
    ("GET", "/v1/product-changes/some"),
    ("POST", "/v1/product-changes/some/transition"),
    ("GET", "/v1/audit-events/"),
    ("GET", "/prepaid/middleware/v1/corporate-issuances/fetch-by-status/APPROVED"),
    ("POST", "/auth/revoke"),
    ("POST", "/auth/clients/acme-viewer/rotate"),
    ("POST", "/auth/clients/acme-viewer/revoke"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_keeps_tenants_apart(box: SandboxServer, method: str, path: str) -> None:
    assert_problem(call(box, method, path, client="acme-admin", tenant="GLOBEX"), 403, "SBX_020")
    assert_problem(call(box, method, path, client="acme-admin", tenant="acme_corp"), 403, "SBX_020")
    assert_problem(call(box, method, path, client="acme-admin", tenant=None), 400, "SBX_002")
    assert_problem(call(box, method, path, headers={"Authorization": None}), 401, "SBX_011")


def test_every_documented_route_is_in_that_list(box: SandboxServer) -> None:
    document = call(box, "GET", "/api-docs/openapi.json").json()
    documented = {
        (method.upper(), re.sub(r"\{\w+\}", "*", path)) for path, ways in document["paths"].items() for method in ways
    }
    public = {("POST", "/auth/token"), ("GET", "/.well-known/jwks.json")}
    tried = {(method, re.sub(r"some|acme-viewer|APPROVED", "*", path)) for method, path in ROUTES}
    assert {(method, path) for method, path in documented - public if not path.startswith("/configs")} <= tried


def test_request_id_is_echoed(box: SandboxServer) -> None:
    for path in ("/v1/products/", "/nowhere", "/auth/token", "/api-docs"):
        assert call(box, "GET", path, headers={"X-Request-ID": "trace-7"}).headers["X-Request-ID"] == "trace-7"
    made = {call(box, "GET", "/v1/products/").headers["X-Request-ID"] for _ in range(2)}
    assert len(made) == 2


def test_unknown_path_and_method(box: SandboxServer) -> None:
    assert_problem(call(box, "GET", "/v1/products"), 404, "SBX_030")
    answer = call(box, "DELETE", "/v1/products/")
    assert_problem(answer, 405, "SBX_031")
    assert answer.headers["Allow"] == "GET, POST"


def test_both_spellings_of_the_business_code_occur(box: SandboxServer) -> None:
    assert "business.code" in call(box, "GET", "/v1/products/", tenant="GLOBEX").json()
    assert "businessCode" in call(box, "GET", "/v1/products/?pageNo=-1").json()


def test_issuances(box: SandboxServer) -> None:
    path = "/prepaid/middleware/v1/corporate-issuances/fetch-by-status"
    body = call(box, "GET", f"{path}/APPROVED").json()
    assert set(body["pagination"]) == {"pageNo", "pageSize", "totalElements"}
    assert len(body["result"]) == 10
    assert {row["currentStatus"] for row in body["result"]} == {"APPROVED"}
    total = body["pagination"]["totalElements"]
    last = call(box, "GET", f"{path}/APPROVED?pageNo={total // 5}&pageSize=5").json()
    assert len(last["result"]) == total % 5
    assert_problem(call(box, "GET", f"{path}/LOST"), 400, "SBX_001")


def test_documentation_needs_nothing_from_elsewhere(box: SandboxServer) -> None:
    page = call(box, "GET", "/api-docs").text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(sources) >= 3
    for source in sources:
        assert source.startswith("/api-docs/")
        assert call(box, "GET", source).status_code == 200
    assert "/api-docs/openapi.json" in page
    assert "://" not in re.sub(r"https?://127\.0\.0\.1:\d+", "", page)
