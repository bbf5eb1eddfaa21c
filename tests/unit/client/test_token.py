from __future__ import annotations

import json
import logging
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_m2p.client.token import Clock, Token
from airflow_provider_m2p.exceptions import M2PApiError, M2PAuthError, M2PError, M2PResponseError

from .conftest import SECRET, TOKEN, Asked, FakeTime, MakeClient, Platform, Reply, jwt


def test_the_documented_request(platform: Platform, make_client: MakeClient) -> None:
    assert make_client({"request_id_prefix": "run"}).get_token() == TOKEN
    (asked,) = platform.asked
    assert (asked.method, asked.target) == ("POST", "/auth/token")
    assert asked.json == {"clientId": "acme-admin", "clientSecret": SECRET, "grantType": "client_credentials"}
    assert asked.header("Content-Type") == "application/json"
    assert asked.header("X-Request-ID") == "run-t1"
    assert asked.header(
        "User-Agent",
    ).startswith("airflow-provider-m2p/")  # type: ignore[union-attr]
    assert asked.header("Authorization") is None


def test_another_token_path(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = platform.token
    assert make_client(token_path="/oauth/token").get_token() == TOKEN
    assert [asked.target for asked in platform.asked] == ["/oauth/token"]


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        ({"expires_in": 3600}, 3300),
        ({"expires_in": "3600"}, 3300),
        ({"expires_in": 7200.0}, 6900),
        ({"expires_in": 600}, 540),
        ({"expires_in": 2}, 1.8),
        ({"expires_in": 10**400}, 540),
        ({"expires_in": 1e300}, 86_100),
        ({}, 540),
        ({"expires_in": None}, 540),
        ({"expires_in": 0}, 540),
        ({"expires_in": "0"}, 540),
        ({"expires_in": -5}, 540),
        ({"expires_in": "soon"}, 540),
        ({"expires_in": "nan"}, 540),
        ({"expires_in": "inf"}, 540),
        ({"expires_in": "9" * 5000}, 540),
        ({"expires_in": True}, 540),
        ({"expires_in": [1]}, 540),
        ({"access_token": jwt(iat=5000, exp=5900), "expires_in": 0}, 810),
        ({"access_token": jwt(exp=1_800_000_000 + 900)}, 810),
        ({"access_token": jwt(exp=1_700_000_000)}, 540),
        ({"access_token": jwt(exp="soon")}, 540),
        ({"access_token": jwt(iat=0, exp=900), "expires_in": 3600}, 3300),
    ],
)
def test_tokens_are_kept_until_shortly_before_they_expire(
    platform: Platform, make_client: MakeClient, fake_time: FakeTime, answer: dict[str, Any], seconds: float
) -> None:
    platform.token = lambda _: {"access_token": TOKEN, "token_type": "Bearer", **answer}
    client = make_client()
    client.get_token()
    fake_time.now += seconds - 0.1
    client.get_token()
    assert len(platform.tokens) == 1
    fake_time.now += 0.2
    client.get_token()
    assert len(platform.tokens) == 2


def test_age_counts_from_before_the_request(platform: Platform, make_client: MakeClient, fake_time: FakeTime) -> None:
    def slow(_: Asked) -> Any:
        fake_time.now += 100
        return {"access_token": TOKEN, "expires_in": 3600}

    platform.token = slow
    client = make_client()
    client.get_token()
    fake_time.now += 3199
    client.get_token()
    assert len(platform.tokens) == 1
    fake_time.now += 2
    client.get_token()
    assert len(platform.tokens) == 2


@pytest.mark.parametrize(
    ("wall", "steady", "fresh"),
    [
        (0, 0, True),
        (3299, 3299, True),
        (3301, 3301, False),
        (3301, 0, False),
        (0, 3301, False),
        (-1, 0, True),
        (-10, 100, False),
        (100, -10, False),
    ],
)
def test_neither_clock_alone_is_believed(wall: float, steady: float, fresh: bool) -> None:
    token = Token("x", lifetime=3600, wall=1000, steady=50)
    assert token.fresh(Clock(lambda: 1000 + wall, lambda: 50 + steady)) is fresh
    assert "x" not in repr(token).replace("x'", "")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, "'access_token' is missing"),
        ({"token": "hidden"}, "'access_token' is missing"),
        ({"access_token": None}, "'access_token' is empty or not text"),
        ({"access_token": ""}, "'access_token' is empty or not text"),
        ({"access_token": 5}, "'access_token' is empty or not text"),
        ({"access_token": ["hidden"]}, "'access_token' is empty or not text"),
        ({"access_token": "hidden\r\nX-Evil: 1"}, "'access_token' is too long or has"),
        ({"access_token": "hidden two"}, "'access_token' is too long or has"),
        ({"access_token": "hiddén"}, "'access_token' is too long or has"),
        ({"access_token": "x" * 40_000}, "'access_token' is too long or has"),
        ([], "not a JSON object"),
        ("hidden", "not a JSON object"),
        (None, "not a JSON object"),
        (Reply(b"<html>hidden</html>", headers={"Content-Type": "text/html"}), "not JSON (text/html, 19 bytes)"),
        (Reply(b""), "not JSON"),
        (Reply(b'{"access_token": "hidden'), "not JSON"),
        (Reply(b"[" * 100_000), "not JSON"),
        (Reply(b'{"access_token": "\xff"}'), "not JSON"),
    ],
)
def test_answers_without_a_token(platform: Platform, make_client: MakeClient, answer: Any, words: str) -> None:
    platform.token = lambda _: answer
    with pytest.raises(M2PError) as caught:
        make_client().get_token()
    assert type(caught.value) is (M2PAuthError if "'access_token'" in words else M2PResponseError)
    message = str(caught.value)
    assert message.startswith("Connection m2p_test: POST /auth/token (X-Request-ID ")
    assert words in message
    assert "hidden" not in message
    assert len(platform.tokens) == 1


@pytest.mark.parametrize("status", [400, 401, 403])
def test_refused_credentials_fail_at_once(platform: Platform, make_client: MakeClient, status: int) -> None:
    platform.token = lambda _: Reply(
        {"title": "No", "detail": f"{SECRET} is wrong", "businessCode": "AUTH_1"}, status=status
    )
    with pytest.raises(M2PAuthError, match=r"Check client id and client secret .* of connection m2p_test") as caught:
        make_client().get_token()
    error = caught.value
    assert (error.status_code, error.business_code) == (status, "AUTH_1")
    assert error.request_id == platform.tokens[0].header("X-Request-ID")
    assert "*** is wrong" in str(error)
    assert SECRET not in str(error)
    assert len(platform.tokens) == 1


def test_refused_credentials_are_not_sent_again_soon(
    platform: Platform, make_client: MakeClient, fake_time: FakeTime
) -> None:
    platform.token = lambda _: Reply(status=401)
    client = make_client()
    for _ in range(5):
        with pytest.raises(M2PAuthError):
            client.get_token()
    assert len(platform.tokens) == 1
    fake_time.now += 31
    with pytest.raises(M2PAuthError):
        client.get_token()
    assert len(platform.tokens) == 2


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_platform_is_asked_again(platform: Platform, make_client: MakeClient, status: int) -> None:
    replies = [Reply(status=status), Reply(status=status), Reply({"access_token": TOKEN})]
    platform.token = lambda _: replies.pop(0)
    assert make_client().get_token() == TOKEN
    assert len({asked.header("X-Request-ID") for asked in platform.tokens}) == 1


def test_but_not_for_ever(platform: Platform, make_client: MakeClient) -> None:
    platform.token = lambda _: Reply(status=503)
    with pytest.raises(M2PApiError, match=r"HTTP 503.*Gave up after 3 attempts"):
        make_client().get_token()
    assert len(platform.tokens) == 3


def test_a_token_path_that_is_not_there(platform: Platform, make_client: MakeClient) -> None:
    platform.token = lambda _: Reply(status=404)
    with pytest.raises(M2PApiError, match=r"HTTP 404: .* Check the host, and the extra 'token_path'\."):
        make_client().get_token()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_do_not_follow_redirects(platform: Platform, make_client: MakeClient, status: int) -> None:
    platform.token = lambda _: Reply(status=status, headers={"Location": f"{platform.url}/elsewhere?x=hidden"})
    with pytest.raises(
        M2PApiError, match=rf"HTTP {status}, a redirect to http://127\.0\.0\.1\. Redirects are not"
    ) as caught:
        make_client().get_token()
    assert caught.value.status_code == status
    assert "hidden" not in str(caught.value)
    assert len(platform.asked) == 1


def test_the_token_is_told_before_it_is_used(platform: Platform, make_client: MakeClient) -> None:
    told: list[tuple[str, int]] = []
    client = make_client({"on_secret": lambda secret: told.append((secret, len(platform.lists)))})
    client.request("GET", "/v1/products/")
    client.request("GET", "/v1/products/")
    assert set(told) == {(TOKEN, 0)}
    # A second client of the process is told, too, though it asks nobody.
    make_client({"on_secret": lambda secret: told.append((secret, -1))}).get_token()
    assert told[-1] == (TOKEN, -1)
    assert len(platform.tokens) == 1


def test_a_token_that_is_refused_as_text_is_told_nonetheless(platform: Platform, make_client: MakeClient) -> None:
    told: list[str] = []
    platform.token = lambda _: {"access_token": "two words"}
    with pytest.raises(M2PAuthError):
        make_client({"on_secret": told.append}).get_token()
    assert told == ["two words"]


def test_many_threads_make_one_call(platform: Platform, make_client: MakeClient) -> None:
    clients = [make_client() for _ in range(4)]
    threads = [threading.Thread(target=client.get_token) for client in clients for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(platform.tokens) == 1


def test_a_refused_token_is_replaced_once_by_all_threads(platform: Platform, make_client: MakeClient) -> None:
    numbers = iter(range(100))
    platform.token = lambda _: {"access_token": f"token-{next(numbers)}", "expires_in": 3600}
    client = make_client()
    client.get_token()
    together = threading.Barrier(4, timeout=10)

    def answer(asked: Asked) -> Any:
        if asked.header("Authorization") == "Bearer token-0":
            together.wait()
            return Reply(status=401)
        return []

    platform.answer = answer
    threads = [threading.Thread(target=client.request, args=("GET", "/v1/products/")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(platform.tokens) == 2
    assert client.get_token() == "token-1"


def test_nothing_of_it_is_logged(platform: Platform, make_client: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    replies = [Reply({"detail": SECRET}, status=503), Reply({"access_token": TOKEN})]
    platform.token = lambda _: replies.pop(0)
    platform.answer = lambda _: Reply({"detail": f"{TOKEN} {SECRET}"}, status=503)
    client = make_client()
    with caplog.at_level(logging.DEBUG), pytest.raises(M2PApiError) as caught:
        client.request("GET", "/v1/products/")
    assert len(caplog.records) > 5
    for text in (caplog.text, str(caught.value), repr(client.settings)):
        assert TOKEN not in text
        assert SECRET not in text


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
ANSWERS = st.fixed_dictionaries({"access_token": st.text()}, optional={"expires_in": JSON, "token_type": JSON})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ANSWERS.map(lambda body: json.dumps(body).encode()) | JSON.map(lambda body: json.dumps(body).encode()) | st.binary()
)
def test_any_answer_is_a_token_or_one_of_our_errors(platform: Platform, make_client: MakeClient, body: bytes) -> None:
    platform.token = lambda _: Reply(body)
    try:
        token = make_client(token_cache="off").get_token()
    except M2PError as error:
        message = str(error)
    else:
        message = token
    assert message.isprintable()


def test_a_huge_answer(platform: Platform, make_client: MakeClient) -> None:
    platform.token = lambda _: Reply(b" " * 2000)
    with pytest.raises(M2PResponseError, match="larger than 1000 bytes"):
        make_client({"max_body_bytes": 1000}).get_token()
