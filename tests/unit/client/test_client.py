from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import airflow_provider_m2p.client as client_package
from airflow_provider_m2p.exceptions import (
    M2PApiError,
    M2PAuthError,
    M2PConfigError,
    M2PError,
    M2PPermissionError,
    M2PRateLimitError,
)

from .conftest import SECRET, TOKEN, Asked, FakeTime, MakeClient, Platform, Reply, jwt
from .test_settings import PATHS_THAT_LEAVE

PATH = "/v1/products/"


def give_token(platform: Platform, token: str) -> None:
    platform.token = lambda _: {"access_token": token, "expires_in": 3600}


def test_exports() -> None:
    assert set(client_package.__all__) == {"KNOWN_EXTRAS", "ClientSettings", "M2PClient", "Page", "PageStream"}
    assert all(hasattr(client_package, name) for name in client_package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = client_package.Nothing


def test_settings_and_pages_import_no_http_library() -> None:
    code = (
        "import sys, airflow_provider_m2p.client; "
        "print([m for m in ('requests', 'airflow', 'tenacity', 'cryptography', 'jwt', 'filelock') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_four_headers(platform: Platform, make_client: MakeClient) -> None:
    make_client({"request_id_prefix": "run"}).request("get", PATH)
    (asked,) = platform.lists
    assert asked.method == "GET"
    assert asked.header("Authorization") == f"Bearer {TOKEN}"
    assert asked.header("X-TENANT-ID") == "ACME_CORP"
    assert asked.header("Content-Type") == "application/json"
    assert asked.header("X-Request-ID") == "run-r1"


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_writes(platform: Platform, make_client: MakeClient, method: str) -> None:
    platform.answer = lambda _: Reply({"id": 7}, status=202)
    response = make_client().request(method, PATH, json={"name": "Gîft"}, request_id="order-17")
    (asked,) = platform.lists
    assert (asked.method, asked.json, asked.header("X-Request-ID")) == (method, {"name": "Gîft"}, "order-17")
    assert (response.status_code, response.json()) == (202, {"id": 7})


def test_an_answer_stays_usable(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda _: Reply({"x": "é"}, headers={"X-Extra": "1"})
    with make_client() as client:
        response = client.request("GET", PATH)
    assert response.json() == {"x": "é"}
    assert response.headers["X-Extra"] == "1"
    assert response.ok


def test_request_ids_are_unique_and_stay_the_same_through_retries(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda _: Reply(status=503) if len(platform.lists) % 3 else {"ok": 1}
    client = make_client()
    for _ in range(3):
        client.request("POST", PATH, json={"x": 1})
    sent = [asked.header("X-Request-ID") for asked in platform.lists]
    assert len(sent) == 9
    assert len(set(sent)) == 3
    assert {asked.body for asked in platform.lists} == {b'{"x": 1}'}
    other = make_client()
    other.request("GET", PATH)
    other.request("GET", PATH)
    assert len({asked.header("X-Request-ID") for asked in platform.lists}) >= 4


def test_lists_of_one_run_have_request_ids_of_their_own(platform: Platform, make_client: MakeClient) -> None:
    platform.serve_rows([{"n": 1}])
    client = make_client({"request_id_prefix": "dag.run.task"})
    for _ in range(2):
        list(client.pages())
    assert [asked.header("X-Request-ID") for asked in platform.lists] == ["dag.run.task-p0", "dag.run.task-l2-p0"]


@pytest.mark.parametrize(
    "prefix", ["x" * 500, "dag id/run 2026-01-01T00:00:00+00:00", "Übersicht\r\nX-Evil: 1", "\udc80", "a;b,c"]
)
def test_any_prefix_becomes_a_header(platform: Platform, make_client: MakeClient, prefix: str) -> None:
    make_client({"request_id_prefix": prefix}).request("GET", PATH)
    sent = platform.lists[0].header("X-Request-ID")
    assert sent is not None
    assert len(sent) <= 128
    assert sent.isascii()
    assert sent.isprintable()
    assert platform.lists[0].header("X-Evil") is None


def test_prefixes_that_had_to_be_changed_stay_different(platform: Platform, make_client: MakeClient) -> None:
    for prefix in ("a b", "a_b", "a;b", "x" * 500 + "1", "x" * 500 + "2"):
        make_client({"request_id_prefix": prefix}).request("GET", PATH)
    assert len({asked.header("X-Request-ID") for asked in platform.lists}) == 5


@pytest.mark.parametrize("request_id", ["", "a b", "a\r\nX-Evil: 1", "x" * 129, "ü"])
def test_request_ids_that_are_no_header(platform: Platform, make_client: MakeClient, request_id: str) -> None:
    with pytest.raises(M2PConfigError, match="m2p_test: the request id must be"):
        make_client().request("POST", PATH, request_id=request_id)
    assert platform.asked == []


@pytest.mark.parametrize("method", ["", "GET /evil HTTP/1.1\r\n", "G T", "ÄB"])
def test_methods_that_are_none(platform: Platform, make_client: MakeClient, method: str) -> None:
    with pytest.raises(M2PConfigError, match="m2p_test: the method is not"):
        make_client().request(method, PATH)
    assert platform.asked == []


@pytest.mark.parametrize("path", PATHS_THAT_LEAVE)
def test_paths_stay_on_the_connections_host(platform: Platform, make_client: MakeClient, path: str) -> None:
    client = make_client()
    with pytest.raises(M2PConfigError, match="m2p_test: the path "):
        client.request("GET", path)
    with pytest.raises(M2PConfigError, match="m2p_test: the path "):
        client.pages(path)
    with pytest.raises(M2PConfigError, match="m2p_test: the path "):
        client.peek(path)
    assert platform.asked == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.sampled_from("/\\.%2ef@:#?&=x \r\n\x00é[]"), max_size=12).map(lambda tail: f"/{tail}"))
def test_any_path_is_refused_or_asked_of_the_platform(platform: Platform, make_client: MakeClient, path: str) -> None:
    platform.asked.clear()
    try:
        make_client().request("GET", path)
    except M2PConfigError:
        assert platform.lists == []
        return
    (asked,) = platform.lists
    assert asked.header("Host") == platform.url.removeprefix("http://")
    assert asked.target.startswith("/")


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_errors_that_are_not_repeated(platform: Platform, make_client: MakeClient, status: int, method: str) -> None:
    platform.answer = lambda _: Reply({"title": "No", "businessCode": "PP_1"}, status=status)
    with pytest.raises(
        M2PApiError, match=rf"m2p_test: {method} {PATH}.*HTTP {status}, business code PP_1: No"
    ) as caught:
        make_client().request(method, PATH)
    error = caught.value
    assert (error.status_code, error.business_code) == (status, "PP_1")
    assert error.request_id == platform.lists[0].header("X-Request-ID")
    assert len(platform.lists) == 1


@pytest.mark.parametrize(("status", "attempts"), [(429, 6), (500, 3), (502, 6), (503, 6), (504, 6)])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_errors_that_are_repeated(
    platform: Platform, make_client: MakeClient, status: int, attempts: int, method: str
) -> None:
    platform.answer = lambda _: Reply(status=status)
    with pytest.raises(M2PApiError, match=rf"HTTP {status}.*Gave up after {attempts} attempts"):
        make_client().request(method, PATH)
    assert len(platform.lists) == attempts
    assert len({asked.header("X-Request-ID") for asked in platform.lists}) == 1


def test_too_fast(platform: Platform, make_client: MakeClient, fake_time: FakeTime) -> None:
    platform.answer = lambda _: Reply(status=429, headers={"Retry-After": "40"})
    with pytest.raises(M2PRateLimitError, match=r"asks to wait 40 s.*max_requests_per_minute") as caught:
        make_client().request("GET", PATH)
    assert caught.value.retry_after == 40.0
    assert all(40 <= pause <= 41 for pause in fake_time.pauses)


def test_a_long_retry_after_is_left_to_the_caller(
    platform: Platform, make_client: MakeClient, fake_time: FakeTime
) -> None:
    platform.answer = lambda _: Reply(status=503, headers={"Retry-After": "3600"})
    with pytest.raises(M2PApiError) as caught:
        make_client().request("GET", PATH)
    assert caught.value.retry_after == 3600.0
    assert fake_time.pauses == []
    assert len(platform.lists) == 1


def test_a_short_patience(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda _: Reply(status=503)
    with pytest.raises(M2PApiError, match="HTTP 503"):
        make_client({"retry_seconds": 0}).request("GET", PATH)
    assert len(platform.lists) == 1


def test_a_refused_token_is_replaced_and_the_request_sent_again(platform: Platform, make_client: MakeClient) -> None:
    platform.token = lambda _: {"access_token": f"token-{len(platform.tokens)}", "expires_in": 3600}
    platform.answer = lambda asked: (
        {"ok": 1} if asked.header("Authorization") == "Bearer token-2" else Reply(status=401)
    )
    client = make_client()
    assert client.request("POST", PATH, json={"x": 1}).json() == {"ok": 1}
    assert [asked.body for asked in platform.lists] == [b'{"x": 1}'] * 2
    assert len({asked.header("X-Request-ID") for asked in platform.lists}) == 1
    assert client.request("GET", PATH).ok
    assert len(platform.tokens) == 2


def test_a_second_401_is_final(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda _: Reply({"title": "Unauthorized"}, status=401)
    with pytest.raises(M2PAuthError, match=r"HTTP 401: Unauthorized.*a fresh token was refused, too") as caught:
        make_client().request("GET", PATH)
    assert caught.value.status_code == 401
    assert (len(platform.tokens), len(platform.lists)) == (2, 2)


def test_the_same_token_again_is_not_asked_for_again_and_again(platform: Platform, make_client: MakeClient) -> None:
    statuses = iter([401])
    platform.answer = lambda _: Reply([], status=next(statuses, 200))
    client = make_client()
    for _ in range(5):
        client.request("GET", PATH)
    assert len(platform.tokens) == 2


def test_a_401_between_other_failures_still_means_one_renewal(platform: Platform, make_client: MakeClient) -> None:
    statuses = iter([503, 401, 503, 401, 200])
    platform.answer = lambda _: Reply({"ok": 1}, status=next(statuses))
    with pytest.raises(M2PAuthError):
        make_client().request("GET", PATH)
    assert len(platform.tokens) == 2


def test_a_token_may_expire_between_attempts(platform: Platform, make_client: MakeClient) -> None:
    platform.token = lambda _: {"access_token": f"token-{len(platform.tokens)}", "expires_in": 2}
    platform.answer = lambda _: (
        Reply(status=503, headers={"Retry-After": "10"}) if len(platform.lists) < 3 else {"ok": 1}
    )
    make_client().request("GET", PATH)
    sent = [asked.header("Authorization") for asked in platform.lists]
    assert sent == ["Bearer token-1", "Bearer token-2", "Bearer token-3"]


def test_a_short_lived_token_serves_a_long_list(
    platform: Platform, make_client: MakeClient, fake_time: FakeTime
) -> None:
    platform.serve_rows([{"n": number} for number in range(50)])
    platform.token = lambda _: {"access_token": f"token-{len(platform.tokens)}", "expires_in": 2}
    in_pages = platform.answer

    def answer(asked: Asked) -> Any:
        fake_time.now += 1
        return in_pages(asked)

    platform.answer = answer
    assert sum(len(page.rows) for page in make_client(page_size=10, max_concurrency=1).pages()) == 50
    assert len(platform.tokens) >= 2


def test_a_problem_with_status_200(platform: Platform, make_client: MakeClient) -> None:
    problem = {"status": 409, "title": "Taken", "businessCode": "PP_2"}
    platform.answer = lambda _: Reply(problem, headers={"Content-Type": "application/problem+json"})
    with pytest.raises(
        M2PApiError, match="HTTP 200, but the answer is a problem object, business code PP_2: Taken"
    ) as caught:
        make_client().request("POST", PATH)
    assert caught.value.status_code == 409
    platform.answer = lambda _: {"status": 403, "title": "No"}
    with pytest.raises(M2PPermissionError):
        list(make_client().pages())


@pytest.mark.parametrize(
    ("products_path", "hint"),
    [(PATH, "the platform also documents /configs/v1/products/"), ("/configs/v1/products/", "documents /v1/products/")],
)
def test_products_that_are_not_there(
    platform: Platform, make_client: MakeClient, products_path: str, hint: str
) -> None:
    platform.answer = lambda _: Reply(status=404)
    with pytest.raises(M2PApiError, match=rf"HTTP 404.*Check the extra 'products_path': .*{hint}"):
        list(make_client(products_path=products_path).pages())


def test_an_echoed_secret_is_not_repeated(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda asked: Reply({"detail": f"{asked.header('Authorization')} {SECRET}"}, status=400)
    with pytest.raises(M2PApiError, match=r"Bearer \*\*\* \*\*\*") as caught:
        make_client().request("GET", PATH)
    assert TOKEN not in str(caught.value)


def test_another_tenants_token_is_noticed_before_the_first_page(platform: Platform, make_client: MakeClient) -> None:
    give_token(platform, jwt(tenant="GLOBEX", roles=["Viewer"]))
    client = make_client()
    for read in (lambda: list(client.pages()), client.peek, client.check_claims):
        with pytest.raises(M2PPermissionError, match="the token is for tenant GLOBEX, the connection names ACME_CORP"):
            read()
    assert platform.lists == []


@pytest.mark.parametrize(
    "claims", [{}, {"tenant": "ACME_CORP"}, {"tenants": ["GLOBEX", "ACME_CORP"]}, {"tenant": {"id": 1}}]
)
def test_tenants_that_may_be_right(platform: Platform, make_client: MakeClient, claims: dict[str, Any]) -> None:
    give_token(platform, jwt(**claims))
    assert list(make_client().pages()) == []


def test_a_role_that_may_not_read_is_named(
    platform: Platform, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    give_token(platform, jwt(tenant="ACME_CORP", roles=["Auditor", "Clerk"]))
    platform.answer = lambda _: Reply(status=403)
    with caplog.at_level(logging.WARNING), pytest.raises(M2PPermissionError) as caught:
        list(make_client().pages())
    assert "no role that is known to read lists (Admin, Operator, Viewer), but: Auditor, Clerk" in caplog.text
    message = str(caught.value)
    assert message.endswith(
        "Check role (Auditor, Clerk), tenant (ACME_CORP), IP whitelist (worker 127.0.0.1 before NAT)."
    )


def test_claims(platform: Platform, make_client: MakeClient) -> None:
    give_token(platform, jwt(tenant="ACME_CORP", roles=["Viewer"]))
    claims = make_client().claims()
    assert (claims.tenants, claims.roles) == (("ACME_CORP",), ("Viewer",))


def test_peek_asks_for_one_row(platform: Platform, make_client: MakeClient) -> None:
    platform.serve_rows([{"n": number} for number in range(50)])
    page = make_client().peek()
    assert (page.records(), page.total_rows) == ([{"n": 0}], 50)
    assert [asked.query for asked in platform.lists] == [{"pageNo": "0", "pageSize": "1"}]


def test_another_list_with_parameters(platform: Platform, make_client: MakeClient) -> None:
    platform.serve_rows([{"n": 1}])
    list(make_client().pages("/prepaid/middleware/v1/x/APPROVED", {"status": "A", "none": None}))
    (asked,) = platform.lists
    assert asked.path == "/prepaid/middleware/v1/x/APPROVED"
    assert asked.query == {"status": "A", "pageNo": "0", "pageSize": "100"}


@pytest.mark.parametrize("name", ["pageNo", "pageSize"])
def test_pages_are_numbered_by_the_client(platform: Platform, make_client: MakeClient, name: str) -> None:
    with pytest.raises(M2PConfigError, match="m2p_test: pageNo and pageSize are set by the client"):
        make_client().pages(params={name: 5})
    make_client(paging="none").pages(params={name: 5})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300)
    | st.binary(max_size=100).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail)
    | st.binary(max_size=100).map(lambda tail: b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08" + tail)
    | st.binary(max_size=100).map(lambda tail: b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n" + tail)
)
def test_any_bytes_on_the_wire_are_an_answer_or_one_of_our_errors(
    platform: Platform, make_client: MakeClient, wire: bytes
) -> None:
    platform.answer = lambda _: Reply(raw=wire)
    client = make_client({"retry_seconds": 0})
    for read in (lambda: client.request("GET", PATH), lambda: list(client.pages())):
        try:
            read()
        except M2PError as error:
            message = str(error)
            assert message.isprintable()
