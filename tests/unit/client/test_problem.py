from __future__ import annotations

import json
import re
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_m2p.client.problem import Problem, error_of, one_line, read_problem
from airflow_provider_m2p.client.retry import ATTEMPTS, FEW_ATTEMPTS, Transient
from airflow_provider_m2p.client.transport import Call
from airflow_provider_m2p.exceptions import M2PApiError, M2PAuthError, M2PPermissionError, M2PRateLimitError

CALL = Call("m2p_test", "GET", "/v1/products/?x=1", "run-p0")
SECRETS = ("top secret value", "token-0123456789")


def answer(status: int, body: Any, **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response._content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response.headers.update({"Content-Type": "application/problem+json", **headers})
    return response


def error(status: int, body: Any, **headers: str) -> M2PApiError:
    found = error_of(answer(status, body, **headers), CALL, now=0, secrets=SECRETS)
    found = found.error if isinstance(found, Transient) else found
    assert isinstance(found, M2PApiError)
    assert found.status_code == status
    assert found.request_id == "run-p0"
    assert str(found).startswith("Connection m2p_test: GET /v1/products/ (X-Request-ID run-p0): ")
    assert "\n" not in str(found)
    return found


def test_the_documented_problem() -> None:
    found = error(
        400,
        {
            "type": "https://www.m2pfintech.com/problem/problem-with-message",
            "title": "Bad Request",
            "status": 400,
            "detail": "Invalid Product id PROD_12345",
            "path": "/v1/products/",
            "message": "error.business",
            "business.code": "PP_CORP_028",
        },
    )
    assert found.business_code == "PP_CORP_028"
    assert "HTTP 400, business code PP_CORP_028: Invalid Product id PROD_12345; error.business." in str(found)


@pytest.mark.parametrize(
    "body",
    [
        {"businessCode": "PP_1"},
        {"business.code": "PP_1"},
        {"business": {"code": "PP_1"}},
        {"errorCode": "PP_1"},
        {"businessCode": None, "business.code": "PP_1"},
        {"businessCode": "not a code!", "business": {"code": "PP_1"}},
    ],
)
def test_all_places_of_the_business_code(body: dict[str, Any]) -> None:
    assert error(409, body).business_code == "PP_1"


@pytest.mark.parametrize("code", [None, "", [], {}, True, "a b", "x" * 65, "PP\n1 "])
def test_no_business_code(code: Any) -> None:
    assert error(409, {"businessCode": code, "business": "x"}).business_code is None


def test_what_repeats_the_status_is_left_out() -> None:
    told = {"status": 401, "title": "Unauthorized", "message": "error.http.401"}
    assert "HTTP 401: The secret is wrong; really. Check client" in str(
        error(401, {**told, "detail": "The secret is wrong.", "error": "really."})
    )
    assert "HTTP 401. Check client" in str(error(401, told))


def test_field_errors() -> None:
    found = error(
        400,
        {
            "title": "Constraint violation",
            "fieldErrors": [
                {"field": "pageSize", "message": "must be less\nthan 100"},
                {"message": "bad"},
                {"field": "x"},
                "odd",
                {"field": 5, "message": ["x"]},
            ],
        },
    )
    assert (
        "Constraint violation; field pageSize: must be less than 100; field ?: bad; field x: not accepted; "
        "field 5: not accepted." in str(found)
    )


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, M2PApiError),
        (401, M2PAuthError),
        (403, M2PPermissionError),
        (404, M2PApiError),
        (409, M2PApiError),
        (418, M2PApiError),
        (501, M2PApiError),
    ],
)
def test_final_errors(status: int, kind: type[Exception]) -> None:
    found = error_of(answer(status, {}), CALL, now=0)
    assert type(found) is kind


@pytest.mark.parametrize(
    ("status", "kind", "attempts"),
    [
        (429, M2PRateLimitError, ATTEMPTS),
        (500, M2PApiError, FEW_ATTEMPTS),
        (502, M2PApiError, ATTEMPTS),
        (503, M2PApiError, ATTEMPTS),
        (504, M2PApiError, ATTEMPTS),
    ],
)
def test_passing_errors(status: int, kind: type[Exception], attempts: int) -> None:
    found = error_of(answer(status, {}), CALL, now=0)
    assert isinstance(found, Transient)
    assert (type(found.error), found.attempts) == (kind, attempts)


def test_retry_after() -> None:
    found = error(429, {}, **{"Retry-After": "17"})
    assert found.retry_after == 17.0
    assert "The platform asks to wait 17 s." in str(found)


def test_the_three_causes_of_403() -> None:
    message = str(error(403, {"title": "Forbidden"}))
    assert all(word in message for word in ("role", "tenant", "whitelist"))


def test_hints_of_the_connection_win() -> None:
    found = error_of(answer(404, {}), CALL, now=0, hints={404: "Try elsewhere."})
    assert str(found).endswith("HTTP 404. Try elsewhere.")


@pytest.mark.parametrize(
    "body", [b"<html>Bad gateway secret page</html>", b"", b'{"title": ', b"[1]", b"\xff\xfe", b"[" * 99999]
)
def test_other_content_is_described_and_not_shown(body: bytes) -> None:
    message = str(error(502, body, **{"Content-Type": "text/html; charset=utf-8"}))
    assert f"HTTP 502: the answer is no problem object but text/html; charset=utf-8, {len(body)} bytes." in message
    assert "secret" not in message


def test_secrets_are_not_repeated() -> None:
    echo = "Client acme with top secret value and token-0123456789 refused"
    found = error(400, {"title": echo, "detail": echo + ".", "fieldErrors": [{"field": echo, "message": echo}]})
    assert not any(secret in str(found) for secret in SECRETS)
    assert "Client acme with *** and *** refused" in str(found)


def test_what_may_be_a_customers_is_not_repeated() -> None:
    detail = "Customer 9198-7654-3210 (asha.rao@example.in, PAN ABCDE1234F, +91 98765 43210) has product 123456 blocked"
    found = error(400, {"title": "Bad limit 50000", "detail": detail, "fieldErrors": [{"field": "to", "message": "4111111111111111"}]})
    assert "Customer *** (***, PAN ***, ***) has product *** blocked" in str(found)
    assert "Bad limit 50000" in str(found)
    assert "field to: ***" in str(found)


@pytest.mark.parametrize(
    "text",
    [
        "Maintenance until 2026-11-03 04:00",
        "Certificate expired 2026-01-15T10:00:00.123456Z",
        "trace 123e4567-e89b-12d3-a456-426614174000",
        "HTTP 503 2026-11-03T04:00:00Z",
        "window 01:00-04:00 (2026-11-03)",
        "Error 500 123e4567-e89b-12d3-a456-426614174000",
        "one of 400, 401, 403",
        "from 192.168.100.200 on",
        "Not whitelisted: 192.168.100.200. Contact support",
        "Client IP 203.0.113.45",
        "by way of 203.0.113.45, 198.51.100.17",
        "Amount 5000.00 exceeds limit 2000.00",
        "Rate limit exceeded: 1000/1000",
    ],
)
def test_what_helps_an_operator_is_repeated(text: str) -> None:
    assert text in str(error(400, {"title": text}))


@pytest.mark.parametrize(
    "value",
    [
        *("4111.1111.1111.1111", "4111_1111_1111_1111", "4111/1111/1111/1111", "1234\u20135678\u20139012"),
        *("(98765) 43210", "98765.43210", "987 654 3210", "400 401 4031111", "1990-12-31"),
        *("212 555-0123", "123 456 345", "401 234 512 345", "512 345_6789", "123 456 (7890)", "411 111-1111-111111"),
        *("512.345.512.345-6789", "123/456/789", "4111 1111 1111/1111", "5111.11.1111", "98765432.10"),
        *("1234 - 5678/9012", "98765 - 43210.00", "512 - 3456/01", "50100 (1234567.00)", "50100_1234567.00", "(022) 2345/6"),
        *("4111 - 1111 - 1111 - 1111/1226", "2045-67-89-12345", "2045/67/89 1234", "98765\u221243210", "4111*1111*1111*1111"),
        *("pan_ABCDE1234F", "27ABCDE1234F1Z5", "ABCDE 1234 F", "ABCDE-1234-F"),
    ],
)
def test_customers_values_however_they_are_written(value: str) -> None:
    shown = str(error(400, {"title": f"Value {value} is blocked"}))
    assert "***" in shown
    assert value not in shown
    assert len(re.findall(r"\d", shown.partition("Value")[2].partition("blocked")[0])) <= 4
    assert "ABCDE1234F" not in shown


def test_a_secret_in_the_place_of_the_code() -> None:
    assert error(400, {"businessCode": "token-0123456789"}).business_code is None


@pytest.mark.parametrize(
    ("document", "is_problem"),
    [
        ({"status": 404, "title": "x"}, True),
        ({"status": "503"}, True),
        ({"businessCode": "PP_1"}, True),
        ({"business.code": "PP_1"}, True),
        ({"business": {"code": "PP_1"}}, True),
        ({"exception": {"errorCode": "Y1"}}, True),
        ({"fieldErrors": [{"field": "x"}]}, True),
        ({"status": 200}, False),
        ({"status": "ACTIVE"}, False),
        ({"status": True}, False),
        ({"status": 40400}, False),
        ({"exception": None, "errorCode": "", "fieldErrors": []}, False),
        ({"business": "retail"}, False),
        ({}, False),
        ([1], False),
        ("x", False),
        (None, False),
    ],
)
def test_problems_by_their_content(document: Any, is_problem: bool) -> None:
    assert isinstance(read_problem(document), Problem) == is_problem


def test_one_line() -> None:
    assert one_line(" a\r\n\tb\u2028c\x1b[31m\u202e ") == "a b c [31m"
    assert one_line("x" * 1000) == "x" * 297 + "..."
    assert one_line(5) == "5"
    assert one_line(10**5000) == ""
    assert one_line(None) == one_line(True) == one_line(["x"]) == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.sampled_from(SECRETS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
KEYS = ["status", "title", "detail", "message", "business", "business.code", "businessCode", "fieldErrors", "code", "x"]
PROBLEMS = st.dictionaries(st.sampled_from(KEYS), JSON) | st.fixed_dictionaries(
    {"fieldErrors": st.lists(st.dictionaries(st.sampled_from(["field", "message"]), JSON))}
)


@given(st.sampled_from([400, 401, 403, 404, 409, 429, 500, 503, 599]), PROBLEMS | JSON)
def test_any_body_becomes_one_short_clean_line(status: int, body: Any) -> None:
    found = error(status, body)
    assert str(found).isprintable()
    assert len(str(found)) < 4000
    assert not any(secret in str(found) for secret in SECRETS)
    assert found.business_code is None or not any(secret in found.business_code for secret in SECRETS)
    read_problem(body)
