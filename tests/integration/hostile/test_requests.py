"""Texts made to change a request, and answers made to send it elsewhere: one request, to one host, as it was meant."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_m2p.exceptions import M2PApiError, M2PConfigError
from tests.integration.hostile.conftest import MakeClient, Platform, Reply, refusal

PATH = "/v1/products/"
OURS = {
    "host",
    "authorization",
    "x-tenant-id",
    "x-request-id",
    "content-type",
    "content-length",
    "accept",
    "accept-encoding",
    "user-agent",
}
#: Characters and their likenesses that end headers, paths and hosts.
TRICKS = st.lists(
    st.sampled_from(
        [
            *("\r\n", "\n", "\0", "..", "/", "//", "\\", "@", ":", "?", "#", "%2e", "%2f", "%0d%0a", "%5c", ";", " ", "\t", "\x85"),
            *("\uff0f", "\u2215", "\u2024\u2024", "\u2028", "\u202e", "\u00e9", "\udc80", "evil.example", "http:", "X-Evil: 1", "a"),
        ]
    ),
    max_size=6,
).map("".join)
fuzz = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def assert_ours_alone(platform: Platform) -> None:
    """What arrived went to the connection's host and has our headers, no more, each once."""
    for asked in platform.asked:
        names = [name.lower() for name in asked.headers]
        assert set(names) <= OURS
        assert len(names) == len(set(names))
        assert asked.header("Host") == urlsplit(platform.url).netloc
        assert asked.target.startswith("/")


@fuzz
@given(TRICKS | st.text(max_size=8))
def test_any_tenant(platform: Platform, make_client: MakeClient, tenant: str) -> None:
    platform.asked.clear()
    error = refusal(lambda: make_client(tenant_id=tenant).request("GET", PATH))
    assert_ours_alone(platform)
    if error is None:
        assert [asked.header("X-TENANT-ID") for asked in platform.lists] == [tenant]
    else:
        assert isinstance(error, M2PConfigError)
        assert platform.asked == []


@fuzz
@given(TRICKS | st.text(max_size=8))
def test_any_request_id(platform: Platform, make_client: MakeClient, request_id: str) -> None:
    platform.asked.clear()
    error = refusal(lambda: make_client().request("POST", PATH, json={}, request_id=request_id))
    assert_ours_alone(platform)
    if error is None:
        assert [asked.header("X-Request-ID") for asked in platform.lists] == [request_id]
    else:
        assert isinstance(error, M2PConfigError)
        assert platform.lists == []


@fuzz
@given(TRICKS.map(lambda path: f"/{path}") | TRICKS)
@pytest.mark.parametrize("where", ["endpoint", "products_path", "token_path"])
def test_any_path(platform: Platform, make_client: MakeClient, where: str, path: str) -> None:
    platform.asked.clear()
    platform.answer = lambda asked: Reply({"access_token": "t"} if asked.method == "POST" else [])
    if where == "endpoint":
        error = refusal(lambda: list(make_client(paging="none").pages(path)))
    else:
        error = refusal(lambda: list(make_client(paging="none", token_cache="off", **{where: path}).pages()))
    assert_ours_alone(platform)
    assert error is None or isinstance(error, M2PConfigError)
    given_path = path if where == "endpoint" or path.strip() else {"products_path": PATH, "token_path": "/auth/token"}[where]
    if error is None:
        targets = [asked.target for asked in platform.asked]
        assert unquote(given_path).rstrip("?") in [unquote(target).rstrip("?") for target in targets]  # a bare "?" says nothing


@fuzz
@given(TRICKS)
def test_any_parameter(platform: Platform, make_client: MakeClient, text: str) -> None:
    platform.asked.clear()
    error = refusal(lambda: make_client().request("GET", PATH, params={"q": text, text or "n": "v"}))
    assert [asked.path for asked in platform.lists] == ([PATH] if error is None else [])
    assert error is None or isinstance(error, M2PConfigError)
    assert_ours_alone(platform)


HOSTS = [
    "{good}@{evil}",
    "{good}#@{evil}",
    "{good}\\@{evil}",
    "{good}/@{evil}",
    "{good}?@{evil}",
    "{good}\r\nHost: {evil}",
    "{good}\u2028{evil}",
    "http:\\\\{evil}",
    "http:{evil}",
    "//{evil}",
    "\uff48ttp://{evil}",
    "http://ev\u0131l.example",
    "http://\u2460\u2461\u2466.0.0.1",
    "http://127\u30020\u30020\u30021",
    "gopher://{evil}",
    "file:///etc/passwd",
    "unix:///run/x.sock",
    "http+unix://%2frun%2fx.sock",
]


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_what_it_looks_like(platform: Platform, elsewhere: Platform, make_client: MakeClient, host: str) -> None:
    written = host.format(good=platform.url, evil=urlsplit(elsewhere.url).netloc)
    assert isinstance(refusal(lambda: make_client(host=written)), M2PConfigError)
    assert platform.asked == []


@pytest.mark.parametrize("path", ["{evil}/", "//{netloc}/", "/\\{netloc}/", "/%2f{netloc}/", "\t//{netloc}", "@{netloc}/", ":80@{netloc}/"])
def test_no_path_reaches_another_host(platform: Platform, elsewhere: Platform, make_client: MakeClient, path: str) -> None:
    written = path.format(evil=elsewhere.url, netloc=urlsplit(elsewhere.url).netloc)
    client = make_client()
    for action in (
        lambda: client.request("GET", written),
        lambda: list(client.pages(written)),
        lambda: client.peek(written),
        lambda: make_client(products_path=written),
        lambda: make_client(token_path=written),
    ):
        assert isinstance(refusal(action), M2PConfigError)
    assert platform.asked == []


def links(url: str) -> dict[str, Any]:
    """Every way to say where the next page is, were one to follow it."""
    names = ("next", "nextPage", "next_url", "nextPageUrl", "nextLink", "@odata.nextLink", "href", "self", "last", "url")
    flat = dict.fromkeys(names, f"{url}/next")
    nested = {"links": flat, "_links": {name: {"href": f"{url}/next"} for name in names}, "paging": flat, "meta": flat}
    return flat | nested


def test_no_link_in_an_answer_is_followed(platform: Platform, elsewhere: Platform, make_client: MakeClient) -> None:
    headers = {
        "Link": f'<{elsewhere.url}/next>; rel="next"',
        "Location": f"{elsewhere.url}/",
        "Content-Location": f"{elsewhere.url}/",
        "Refresh": f"0; url={elsewhere.url}/",
        "Alt-Svc": f'h2="{urlsplit(elsewhere.url).netloc}"',
        "X-Accel-Redirect": f"{elsewhere.url}/",
    }
    platform.token = lambda _: Reply(
        {"access_token": "t", "token_endpoint": elsewhere.url, "base_url": elsewhere.url, **links(elsewhere.url)},
        headers=headers,
    )

    def answer(asked: Any) -> Reply:
        rows = [{"productId": str(asked.page), "url": elsewhere.url}] if asked.page < 3 else []
        pagination = {"pageNo": asked.page, "pageSize": 1, "totalPages": 3, **links(elsewhere.url)}
        return Reply({"result": rows, **links(elsewhere.url), "pagination": pagination}, headers=headers)

    platform.answer = answer
    rows = [row for page in make_client(page_size=1, token_cache="off").pages() for row in page.records()]
    assert [row["productId"] for row in rows] == ["0", "1", "2"]
    assert {asked.path for asked in platform.asked} == {"/auth/token", PATH}


@pytest.mark.parametrize("status", [201, 202, 300, 301, 302, 303, 305, 307, 308])
@pytest.mark.parametrize("location", ["{evil}/x", "//{netloc}/x", "\\\\{netloc}", "http:{netloc}", "/%2f{netloc}"])
def test_no_redirect_is_followed(
    platform: Platform, elsewhere: Platform, make_client: MakeClient, status: int, location: str
) -> None:
    where = location.format(evil=elsewhere.url, netloc=urlsplit(elsewhere.url).netloc)
    away = Reply(b"", status, {"Location": where, "Content-Type": "text/plain"})
    platform.answer = lambda _: away
    assert refusal(lambda: list(make_client().pages())) is not None
    assert len(platform.lists) == 1
    platform.token = lambda _: away
    assert refusal(make_client(token_cache="off").get_token) is not None
    assert {asked.path for asked in platform.asked} == {"/auth/token", PATH}


def test_a_login_page_is_no_place_for_credentials(platform: Platform, elsewhere: Platform, make_client: MakeClient) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="{elsewhere.url}", authorization_uri="{elsewhere.url}"'}
    platform.answer = lambda _: Reply(b"", 401, challenge)
    assert isinstance(refusal(lambda: list(make_client().pages())), M2PApiError)
    platform.answer = lambda _: Reply(b"", 407, {"Proxy-Authenticate": f'Basic realm="{elsewhere.url}"'})
    assert isinstance(refusal(lambda: list(make_client().pages())), M2PApiError)
