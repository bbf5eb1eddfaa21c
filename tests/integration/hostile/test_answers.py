"""Answers made to confuse: whatever they say, the outcome is what was asked for or a typed error on one clean line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_m2p.exceptions import M2PApiError, M2PError, M2PPermissionError
from tests.integration.hostile.conftest import SECRET, TOKEN, MakeClient, Platform, Reply, jwt, refusal

PATH = "/v1/products/"
JUNK = ("\r\nFAKE line", "\x1b[31mred\x1b[0m", "%s %(secret)s %n", "{0} {secret}", "\u2028\u202e\x85\x00", "\udc80")
WORDS = st.sampled_from([SECRET, *JUNK, f"x{SECRET}", SECRET.replace(" ", "\n")]) | st.text(max_size=20)
SAYINGS = WORDS | st.sampled_from([TOKEN, f"x{TOKEN}{SECRET}"])  # once the token is known
STATUSES = st.sampled_from([200, 201, 204, 301, 307, 400, 401, 403, 404, 409, 429, 500, 503])


def documents(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=8,
    )


def headers(texts: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, str]]:
    names = ["Content-Type", "Retry-After", "Date", "Location", "WWW-Authenticate", "Set-Cookie", "Link"]
    values = texts.map(lambda text: "".join(char for char in text if "\x20" <= char < "\x7f"))
    return st.dictionaries(st.sampled_from(names), values)


JSON = documents(SAYINGS)
fuzz = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def body_of(document: Any) -> bytes:
    return document if isinstance(document, bytes) else json.dumps(document).encode()


TOKENS = st.fixed_dictionaries(
    {}, optional={"access_token": WORDS, **dict.fromkeys(["expires_in", "token_type", "error", "detail"], documents(WORDS))}
)


@fuzz
@given(STATUSES, TOKENS | documents(WORDS) | st.binary(max_size=100), headers(WORDS))
def test_any_token_answer(platform: Platform, make_client: MakeClient, status: int, body: Any, head: Any) -> None:
    platform.token = lambda _: Reply(body_of(body), status, head)
    client = make_client({"retry_seconds": 0}, token_cache="off")
    if refusal(client.get_token) is None:
        value = client.get_token()
        assert status in range(200, 300)
        assert value == body["access_token"]
        assert value.isascii()
        assert value.isprintable()


ENVELOPES = st.fixed_dictionaries(
    {},
    optional={
        "result": JSON | st.lists(st.dictionaries(SAYINGS, JSON, max_size=2), max_size=2),
        "pagination": JSON | st.dictionaries(st.sampled_from(["pageNo", "pageSize", "totalPages", "totalElements"]), JSON),
        **dict.fromkeys(["status", "title", "detail", "businessCode", "exception", "fieldErrors", "business"], JSON),
        "next": st.just("http://evil.example/"),
    },
)
PROBLEMS = st.fixed_dictionaries(
    {
        "title": SAYINGS,
        "detail": SAYINGS,
        "businessCode": SAYINGS,
        "fieldErrors": st.lists(st.fixed_dictionaries({"field": SAYINGS, "message": SAYINGS}), max_size=3),
    }
)


@fuzz
@given(STATUSES, ENVELOPES | PROBLEMS | JSON, headers(SAYINGS))
def test_any_list_answer(platform: Platform, make_client: MakeClient, status: int, body: Any, head: Any) -> None:
    platform.answer = lambda _: Reply(body_of(body), status, head)
    client = make_client({"retry_seconds": 0})
    error = refusal(lambda: list(client.pages()))
    assert error is None or error.__cause__ is None
    assert status == 200 or error is not None
    refusal(lambda: client.request("POST", PATH, json={}))


def give(platform: Platform, token: str) -> None:
    platform.token = lambda _: {"access_token": token, "expires_in": 3600}


@pytest.mark.parametrize("junk", [SECRET, *JUNK])
def test_claims_of_a_token_are_shown_on_one_line_and_without_the_secret(
    platform: Platform, make_client: MakeClient, junk: str
) -> None:
    platform.answer = lambda _: Reply({"detail": junk}, status=403)
    give(platform, jwt(roles=[junk, f"Viewer {junk}"], tenant=["ACME_CORP", junk]))
    error = refusal(lambda: list(make_client(token_cache="off").pages()))
    assert isinstance(error, M2PPermissionError)
    give(platform, jwt(roles=[f"Clerk {junk}"], tenant=junk))
    error = refusal(lambda: list(make_client(token_cache="off").pages()))
    assert isinstance(error, M2PPermissionError)


@pytest.mark.parametrize(
    "document",
    [
        {"detail": SECRET},
        {"detail": SECRET.replace(" ", "\r\n")},
        {"detail": SECRET.replace(" ", " \x00\u2028 ")},
        {"fieldErrors": [{"field": SECRET, "message": SECRET.replace(" ", "\t")}]},
        {"businessCode": SECRET.replace(" ", "_")},
    ],
)
def test_an_echoed_secret_is_hidden_however_it_is_spaced(
    platform: Platform, make_client: MakeClient, document: dict[str, Any]
) -> None:
    platform.answer = lambda _: Reply(document, status=400)
    assert isinstance(refusal(lambda: make_client().request("GET", PATH)), M2PApiError)
    platform.token = lambda _: Reply(document, status=400)
    assert isinstance(refusal(make_client(token_cache="off").get_token), M2PApiError)


@pytest.mark.parametrize("where", ["Content-Type", "Location"])
@pytest.mark.parametrize("status", [200, 302, 400])
def test_a_secret_in_a_header_is_not_shown(
    platform: Platform, make_client: MakeClient, where: str, status: int
) -> None:
    def echo(value: str) -> Reply:
        return Reply(b"<html>", status, {where: f"https://{value}/" if where == "Location" else value})

    platform.token = lambda _: echo("words")
    assert refusal(make_client(token_cache="off", password="words").get_token)
    platform.token = lambda _: Reply({"access_token": f"{TOKEN} "}, headers={"Content-Type": TOKEN})
    assert refusal(make_client(token_cache="off").get_token)
    platform.token = lambda _: {"access_token": TOKEN}
    platform.answer = lambda asked: echo(asked.headers["Authorization"].removeprefix("Bearer "))
    for secret in ("words", SECRET):
        client = make_client(token_cache="off", password=secret)
        assert refusal(lambda: list(client.pages()))  # noqa: B023


def test_a_message_is_short(platform: Platform, make_client: MakeClient) -> None:
    long = "x" * 5_000
    errors = [{"field": long, "message": long}] * 20
    platform.answer = lambda _: Reply({"title": long, "detail": long, "fieldErrors": errors, "business": long}, status=400)
    with pytest.raises(M2PError) as caught:
        make_client().request("GET", PATH)
    assert len(str(caught.value)) < 5000
