"""Connections as somebody may write them who is no author of DAGs: settings or a typed error, and nothing to gain."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from airflow.sdk import Connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_m2p.client.settings import KNOWN_EXTRAS, ClientSettings
from airflow_provider_m2p.exceptions import M2PConfigError
from airflow_provider_m2p.hooks.m2p import M2PHook
from tests.integration.hostile.conftest import SECRET, TOKEN, MakeClient, MakeSettings, Platform, Reply, refusal

NAMES = st.sampled_from([*KNOWN_EXTRAS, "proxies", "headers", "", "a\nb\x1b[31m%s"]) | st.text(max_size=8)
TEXTS = st.sampled_from(["true", "none", "1e3", "0x10", "1_0", "../..", "/etc/passwd", "2026-01-31", SECRET, "\r\nX: 1"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
EXTRAS = st.dictionaries(NAMES, VALUES, max_size=6)
fuzz = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def assert_sound(found: ClientSettings) -> None:
    """What later code relies on."""
    assert found.base_url == "https://api.example.com"
    assert (found.client_id, found.client_secret) == ("acme", SECRET)
    assert found.tenant_id.isascii()
    assert found.tenant_id.isprintable()
    assert found.token_path.startswith("/")
    assert found.products_path.startswith("/")
    assert found.paging in ("auto", "page", "none")
    assert found.token_cache in ("disk", "process", "off")
    assert type(found.page_size) is type(found.max_concurrency) is int
    assert 0 < found.page_size <= 100_000
    assert 0 < found.max_concurrency <= 64
    assert found.max_requests_per_minute is None or found.max_requests_per_minute > 0
    assert 0 < found.connect_timeout <= 3600
    assert 0 < found.read_timeout <= 3600
    assert isinstance(found.verify, bool) or os.path.isfile(found.verify)
    assert "client_secret" not in repr(found)


def read(connection: Connection) -> None:
    hook = M2PHook("m2p_test")
    hook.__dict__["connection"] = connection
    error = refusal(lambda: assert_sound(hook.settings))
    assert error is None or isinstance(error, M2PConfigError)


FIELDS = {"conn_type": "m2p", "host": "https://api.example.com", "login": "acme", "password": SECRET}


@fuzz
@given(EXTRAS | VALUES)
def test_any_extras_as_json(extra: Any) -> None:
    if isinstance(extra, dict):
        extra = {"tenant_id": "ACME_CORP", **extra}
    read(Connection(conn_id="m2p_test", **FIELDS, extra=json.dumps(extra)))
    read(Connection.from_json(json.dumps(FIELDS | {"extra": extra}), conn_id="m2p_test"))


@fuzz
@given(st.text(max_size=40))
def test_any_text_as_extras(extra: str) -> None:
    read(Connection(conn_id="m2p_test", **FIELDS, extra=extra))


@fuzz
@given(st.dictionaries(NAMES, TEXTS | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20), max_size=6))
def test_any_extras_in_a_uri(extra: dict[str, str]) -> None:
    query = urlencode({"tenant_id": "ACME_CORP"} | {name.encode(errors="replace"): value for name, value in extra.items()})
    password = SECRET.replace(" ", "%20")
    read(Connection.from_uri(f"m2p://acme:{password}@api.example.com/?{query}", conn_id="m2p_test"))


@pytest.mark.parametrize("name", ["tenant_id", "verify", "page_size", "read_timeout"])
def test_a_number_of_thousands_of_digits(make_settings: MakeSettings, name: str) -> None:
    assert isinstance(refusal(lambda: make_settings(**{name: 10**5000})), M2PConfigError)


def test_an_editor_gains_no_more_than_the_form_has(
    platform: Platform, elsewhere: Platform, make_client: MakeClient, make_settings: MakeSettings, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("hidden")
    wanted: dict[str, Any] = {
        **dict.fromkeys(["proxy", "base_url", "url", "endpoint", "endpoint_url", "host", "token_url", "issuer"], elsewhere.url),
        "proxies": {"http": elsewhere.url, "https": elsewhere.url},
        "headers": {"X-Evil": "1", "X-TENANT-ID": "GLOBEX"},
        **dict.fromkeys(["user_agent", "cookies", "auth", "params", "json", "data", "method"], "evil"),
        **dict.fromkeys(["cert", "ssl_cert", "ca_bundle", "cache_dir", "M2P_CACHE_DIR", "log_file", "path", "netrc"], str(file)),
        **dict.fromkeys(["class", "hook", "adapter", "auth_class", "session", "callback", "plugin", "loader"], "os.system"),
        **dict.fromkeys(["allow_redirects", "follow_redirects", "trust_env", "debug", "stream"], True),
        **dict.fromkeys(["sql_conn_id", "table", "schema", "write_mode", "max_pages", "retries"], "evil"),
        "extra__m2p__host": elsewhere.url,
        "__extra__": json.dumps({"products_path": "/evil"}),
    }
    assert not wanted.keys() & set(KNOWN_EXTRAS)
    assert make_settings(**{k: v for k, v in wanted.items() if k != "host"}) == make_settings()
    client = make_client(**{k: v for k, v in wanted.items() if k != "host"}, token_cache="off")
    list(client.pages())
    assert [asked.path for asked in platform.asked] == ["/auth/token", "/v1/products/"]
    for asked in platform.asked:
        assert "evil" not in str(asked.headers).lower()
        assert b"hidden" not in asked.body
        assert asked.header("Cookie") is None
    assert platform.lists[0].header("X-TENANT-ID") == "ACME_CORP"
    assert platform.lists[0].header("Authorization") == f"Bearer {TOKEN}"


def test_verify_says_nothing_of_the_machines_files(make_settings: MakeSettings, tmp_path: Path) -> None:
    """A file that is there, one that is not, a directory, a device: all the same."""
    there, key, pipe = tmp_path / "there", tmp_path / "key.pem", tmp_path / "pipe"
    there.write_text("hidden")
    key.write_text("-----BEGIN PRIVATE KEY-----\nhidden\n-----END PRIVATE KEY-----\n")
    os.mkfifo(pipe)
    files = (there, key, pipe, tmp_path, tmp_path / "missing", Path("/dev/zero"), Path("/proc/self/environ"), Path("/etc/passwd"))
    said = {str(refusal(lambda path=path: make_settings(verify=str(path)))) for path in files}  # type: ignore[misc]
    assert len(said) == 1
    assert "'verify' is neither true nor false nor a CA file" in said.pop()


@pytest.mark.parametrize("name", sorted({*KNOWN_EXTRAS} - {"tenant_id", "verify"}))
def test_no_value_of_an_extra_is_repeated(make_settings: MakeSettings, name: str) -> None:
    error = refusal(lambda: make_settings(**{name: "http://hush-hush.example/"}))
    assert isinstance(error, M2PConfigError)
    assert "hush-hush" not in str(error)


def test_what_the_platform_redirects_to_is_not_read_back(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda _: Reply(b"", 302, {"Location": "file:///etc/passwd"})
    error = refusal(lambda: list(make_client().pages()))
    assert "passwd" not in str(error)
