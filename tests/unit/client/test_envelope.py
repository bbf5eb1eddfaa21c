from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_m2p.client.envelope import Answer, Pagination, read_answer
from airflow_provider_m2p.client.transport import Call
from airflow_provider_m2p.exceptions import (
    M2PApiError,
    M2PAuthError,
    M2PError,
    M2PPaginationError,
    M2PResponseError,
)

CALL = Call("m2p_test", "GET", "/v1/products/", "run-p0")
SECRETS = ("top secret value",)


def read(body: Any, status: int = 200, kind: str | None = "application/json") -> Answer:
    response = requests.Response()
    response.status_code = status
    response._content = body if isinstance(body, bytes) else json.dumps(body).encode()
    if kind:
        response.headers["Content-Type"] = kind
    return read_answer(response, CALL, SECRETS)


def rows(answer: Answer) -> list[Any]:
    return [json.loads(bytes(row)) for row in answer.rows]


def refusal(body: Any, error: type[M2PError] = M2PResponseError, **answer: Any) -> str:
    with pytest.raises(M2PError) as caught:
        read(body, **answer)
    assert type(caught.value) is error
    message = str(caught.value)
    assert message.startswith("Connection m2p_test: GET /v1/products/ (X-Request-ID run-p0): ")
    assert "hidden" not in message
    return message


TWO = [{"productId": "a"}, {"productId": "b"}]


@pytest.mark.parametrize(
    ("body", "pagination", "unpaged"),
    [
        (TWO, Pagination(), False),
        (b'\r\n [{"productId":"a"} , {"productId": "b"}] \n', Pagination(), False),
        ({"result": TWO}, Pagination(), False),
        ({"result": TWO, "pagination": None}, Pagination(), True),
        ({"result": TWO, "pagination": {}}, Pagination(), False),
        (
            {"result": TWO, "pagination": {"pageNo": 0, "pageSize": 20, "totalElements": 1}},
            Pagination(0, 20, None, 1),
            False,
        ),
        (
            {
                "pagination": {"list": True, "pageSize": 2, "pageNo": 1, "totalPages": 5, "totalElements": 9},
                "result": TWO,
            },
            Pagination(1, 2, 5, 9),
            False,
        ),
        (
            {"result": TWO, "pagination": {"pageNo": "1", "totalElements": "9", "pageSize": 2.0}},
            Pagination(1, 2, None, 9),
            False,
        ),
        ({"result": TWO, "pagination": {"pageNo": None, "totalElements": None}}, Pagination(), False),
        # The documentation's placeholder.
        (
            {
                "result": TWO,
                "pagination": {"list": True, "pageSize": 0, "pageNo": 0, "totalPages": 0, "totalElements": 0},
            },
            Pagination(0),
            False,
        ),
        ({"result": TWO, "timestamp": "2026-01-01", "message": "ok", "more": {"x": 1}}, Pagination(), False),
        ({"result": TWO, "status": 200, "exception": None, "businessCode": None}, Pagination(), False),
        ({"result": TWO, "status": "SUCCESS", "pagination": None}, Pagination(), True),
    ],
)
def test_lists(body: Any, pagination: Pagination, unpaged: bool) -> None:
    answer = read(body)
    assert rows(answer) == TWO
    assert (answer.pagination, answer.unpaged, answer.single) == (pagination, unpaged, False)


@pytest.mark.parametrize(
    "body", [[], {"result": []}, {"result": [], "pagination": {"totalElements": 0, "totalPages": 0}}]
)
def test_empty_lists(body: Any) -> None:
    assert read(body).rows == []


def test_zeros_next_to_no_rows_are_what_was_said() -> None:
    answer = read({"result": [], "pagination": {"pageSize": 0, "totalPages": 0, "totalElements": 0}})
    assert answer.pagination == Pagination(None, None, 0, 0)


@pytest.mark.parametrize("extra", [{}, {"pagination": None}, {"pagination": {}}, {"status": 200}])
def test_one_object_is_one_row(extra: dict[str, Any]) -> None:
    answer = read({"result": {"productId": "a"}, **extra})
    assert rows(answer) == [{"productId": "a"}]
    assert answer.single


def test_rows_keep_their_bytes() -> None:
    (row,) = read(b'{"result": [ {"n" : 1.50, "big": 12345678901234567890.123456789} ]}').rows
    assert bytes(row) == b'{"n" : 1.50, "big": 12345678901234567890.123456789}'


def test_rows_may_be_anything() -> None:
    assert rows(read([1, None, "x", [2]])) == [1, None, "x", [2]]


@pytest.mark.parametrize(("body", "has_escapes"), [(TWO, False), ([{"a": 'quo"te'}], True), ({"result": ["\n"]}, True)])
def test_escapes_are_noticed(body: Any, has_escapes: bool) -> None:
    assert read(body).has_escapes is has_escapes


def test_unknown_objects_show_their_keys() -> None:
    message = refusal({"productId": "hidden", "na\nme": 1, "x" * 50: 2, "top secret value": 3})
    assert f"Its keys: productId, na me, {'x' * 37}..., ***." in message
    assert "Its keys: none." in refusal({})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"result": None}, "'result' is null"),
        ({"result": None, "pagination": None}, "'result' is null"),
        ({"result": {}}, "'result' is an empty object"),
        ({"result": {}, "pagination": {"totalElements": 7}}, "'result' is an empty object"),
        ({"result": {}, "pagination": {"pageNo": 0}}, "'result' is an empty object"),
        ({"result": "hidden"}, "'result' is neither"),
        ({"result": 5, "pagination": {"totalElements": 0}}, "'result' is neither"),
        ({"result": True}, "'result' is neither"),
        ("hidden", "neither an object nor an array"),
        (5, "neither an object nor an array"),
        (None, "neither an object nor an array"),
        ({"result": TWO, "pagination": "hidden"}, "'pagination' is neither"),
        ({"result": TWO, "pagination": [1]}, "'pagination' is neither"),
    ],
)
def test_zero_rows_are_never_assumed(body: Any, words: str) -> None:
    assert words in refusal(body)


@pytest.mark.parametrize("result", [None, {}])
def test_no_rows_where_the_total_says_so(result: Any) -> None:
    assert read({"result": result, "pagination": {"totalElements": 0}}).rows == []


@pytest.mark.parametrize("key", ["pageNo", "pageSize", "totalPages", "totalElements"])
@pytest.mark.parametrize("value", [-1, "-1", "many", "", 1.5, True, [], {}, 10**13, 1e300, "9" * 30])
def test_absurd_pagination(key: str, value: Any) -> None:
    message = refusal({"result": TWO, "pagination": {"pageSize": 2, key: value}}, M2PPaginationError)
    assert f"'pagination.{key}' is not a number" in message


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        ({"status": 404, "title": "Not found", "businessCode": "PP_1"}, M2PApiError, 404, "PP_1"),
        ({"status": 401, "title": "Unauthorized"}, M2PAuthError, 401, None),
        ({"result": [], "exception": {"errorCode": "Y1"}}, M2PApiError, 200, None),
        ({"result": [], "businessCode": "PP_1"}, M2PApiError, 200, "PP_1"),
        ({"result": [], "business.code": "PP_1"}, M2PApiError, 200, "PP_1"),
        ({"result": [], "errorCode": "Y1"}, M2PApiError, 200, "Y1"),
        ({"result": None, "business.code": "PP_1"}, M2PApiError, 200, "PP_1"),
        ({"result": [], "business": {"code": "PP_1"}}, M2PApiError, 200, "PP_1"),
        ({"result": [], "fieldErrors": [{"field": "x"}]}, M2PApiError, 200, None),
        ({"result": TWO, "status": 500}, M2PApiError, 500, None),
    ],
)
def test_problems_with_status_200(body: Any, kind: type[M2PApiError], status: int, code: str | None) -> None:
    message = refusal(body, kind)
    assert "HTTP 200, but the answer is a problem object" in message
    with pytest.raises(M2PApiError) as caught:
        read(body)
    assert (caught.value.status_code, caught.value.business_code) == (status, code)


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"<html><body>Sign in, hidden</body></html>", "text/html", "text/html, 41 bytes, JSON is malformed"),
        (b"", "application/json", "application/json, 0 bytes, Input data was truncated"),
        (b'{"result": [{"a": "hidden"', "application/json", "26 bytes, Input data was truncated"),
        (b'{"result": [{"a": NaN}]}', "application/json", "(byte 18)"),
        (b'{"result": [{"a": 1}]} hidden', "application/json", "(byte 24)"),
        (b'{"resul\xff": [], "x": 1}', None, "no content type, 22 bytes, not UTF-8"),
        (b"[" * 100_000, "application/json", "nested too deeply"),
        (b'{"result": ' + b"[" * 100_000, "application/json", "nested too deeply"),
        (b'{"a": ' * 100_000, "application/json", "nested too deeply"),
        ("[]".encode("utf-16"), "application/json", "JSON is malformed"),
    ],
)
def test_what_is_not_json(body: bytes, kind: str | None, words: str) -> None:
    message = refusal(body, kind=kind)
    assert "the answer is not JSON" in message
    assert words in message
    assert "\n" not in message


def test_no_secret_is_repeated() -> None:
    assert "not JSON: text/***, 6 bytes" in refusal(b"<html>", kind="text/top secret value")
    assert "No *** for you" in refusal({"status": 404, "title": "No top secret value for you"}, M2PApiError)


@pytest.mark.parametrize("status", [201, 202, 204, 206])
def test_only_200_is_a_list(status: int) -> None:
    assert f"HTTP {status} instead of 200" in refusal(TWO, status=status)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
KEYS = ["result", "pagination", "status", "exception", "businessCode", "business", "fieldErrors", "x"]
COUNTS = st.dictionaries(st.sampled_from(["pageNo", "pageSize", "totalPages", "totalElements"]), JSON)
ENVELOPES = st.dictionaries(st.sampled_from(KEYS), JSON | COUNTS)


@given(ENVELOPES | JSON)
def test_any_json_is_rows_or_one_of_our_errors(body: Any) -> None:
    try:
        answer = read(body)
    except M2PError as error:
        message = str(error)
        assert message.isprintable()
        return
    result = body["result"] if isinstance(body, dict) else body
    if isinstance(result, list):
        assert len(answer.rows) == len(result)
    else:
        assert len(answer.rows) == (1 if result else 0)


@given(st.binary(max_size=200) | st.binary(max_size=50).map(lambda tail: b'{"result": [{"a": 1}' + tail))
def test_any_bytes_are_rows_or_one_of_our_errors(body: bytes) -> None:
    try:
        read(body)
    except M2PError as error:
        message = str(error)
        assert message.isprintable()


@given(ENVELOPES, st.data())
def test_a_cut_answer_is_never_rows(body: dict[str, Any], data: st.DataObject) -> None:
    whole = json.dumps({"result": [{"a": "b"}], **body}).encode()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(M2PError):
        read(whole[:cut])
