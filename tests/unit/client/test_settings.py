from __future__ import annotations

import json
import logging
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import certifi
import pytest

from airflow_provider_m2p.client.settings import KNOWN_EXTRAS, ClientSettings, check_path
from airflow_provider_m2p.exceptions import M2PConfigError

FIELDS: dict[str, Any] = {
    "conn_id": "m2p_test",
    "host": "https://api.example.com",
    "login": "acme-admin",
    "password": "top secret value",
}


def read(extra: Any = None, **fields: Any) -> ClientSettings:
    if not isinstance(extra, str):
        extra = {"tenant_id": "ACME_CORP", **(extra or {})}
    return ClientSettings.from_connection(**{**FIELDS, "extra": extra, **fields})


def refusal(extra: Any = None, **fields: Any) -> str:
    with pytest.raises(M2PConfigError) as caught:
        read(extra, **fields)
    message = str(caught.value)
    assert "m2p_test" in message
    assert "top secret value" not in message
    return message


def test_defaults() -> None:
    settings = read()
    assert settings == ClientSettings(
        conn_id="m2p_test",
        base_url="https://api.example.com",
        client_id="acme-admin",
        client_secret="top secret value",
        tenant_id="ACME_CORP",
        token_path="/auth/token",
        products_path="/v1/products/",
        paging="auto",
        page_size=100,
        max_concurrency=4,
        max_requests_per_minute=None,
        connect_timeout=10.0,
        read_timeout=60.0,
        verify=True,
        credentials_issued_on=None,
        token_cache="disk",
    )
    assert "top secret value" not in repr(settings)


@pytest.mark.parametrize(
    ("host", "port", "base_url"),
    [
        ("https://api.example.com", 0, "https://api.example.com"),
        ("http://127.0.0.1:8099", 0, "http://127.0.0.1:8099"),
        ("https://api.example.com", None, "https://api.example.com"),
        ("https://api.example.com/", None, "https://api.example.com"),
        ("HTTPS://API.Example.com", None, "https://api.example.com"),
        (" https://api.example.com ", None, "https://api.example.com"),
        ("http://127.0.0.1:8099", None, "http://127.0.0.1:8099"),
        ("http://127.0.0.1", 8099, "http://127.0.0.1:8099"),
        ("http://127.0.0.1:8099", 8099, "http://127.0.0.1:8099"),
        ("api.example.com", None, "https://api.example.com"),
        ("api.example.com", 8443, "https://api.example.com:8443"),
        ("api.example.com:8443", None, "https://api.example.com:8443"),
        ("localhost", None, "https://localhost"),
        ("sandbox_1", 80, "https://sandbox_1:80"),
        ("::1", 8099, "https://[::1]:8099"),
        ("[::1]:8099", None, "https://[::1]:8099"),
        ("http://[::1]:8099", None, "http://[::1]:8099"),
    ],
)
def test_base_url(host: str, port: int | None, base_url: str) -> None:
    assert read(host=host, port=port).base_url == base_url


@pytest.mark.parametrize("schema", [None, "", "https", "HTTPS"])
def test_schema_that_changes_nothing(schema: str | None) -> None:
    assert read(schema=schema).base_url == "https://api.example.com"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"host": None}, ["'host'", "empty", "https://"]),
        ({"host": "  "}, ["'host'", "empty"]),
        ({"host": "https://api.example.com/configs"}, ["'host'", "products_path"]),
        ({"host": "api.example.com/configs"}, ["'host'", "products_path"]),
        ({"host": "https://api.example.com/?tenant=x"}, ["'host'", "products_path"]),
        ({"host": "https://api.example.com?"}, ["'host'", "products_path"]),
        ({"host": "https://api.example.com#x"}, ["'host'", "products_path"]),
        ({"host": "https://me:pw@api.example.com"}, ["'host'", "login and password"]),
        ({"host": "ftp://api.example.com"}, ["'host'", "https://"]),
        ({"host": "https://"}, ["'host'", "host name"]),
        ({"host": "https://a..b"}, ["'host'", "host name"]),
        ({"host": "https://" + "a" * 64 + ".com"}, ["'host'", "host name"]),
        ({"host": "https://api example.com"}, ["'host'", "characters"]),
        ({"host": "https://api.example.com\r\nX-Evil: 1"}, ["'host'", "characters"]),
        ({"host": "https://api.example.com\\@evil.com"}, ["'host'", "characters"]),
        ({"host": "https://bücher.example"}, ["'host'", "characters"]),
        ({"host": "https://[::1"}, ["'host'", "URL"]),
        ({"host": "https://api.example.com:99999"}, ["'host'", "port"]),
        ({"host": "https://api.example.com:abc"}, ["'host'", "port"]),
        ({"host": "https://api.example.com:0"}, ["'port'", "65535"]),
        ({"port": 70000}, ["'port'", "65535"]),
        ({"host": "https://api.example.com:1", "port": 2}, ["'port'", "leave one"]),
        ({"schema": "http"}, ["'schema'", "http://"]),
        ({"schema": "configs"}, ["'schema'", "products_path"]),
        ({"login": None}, ["'login'", "client id"]),
        ({"login": " "}, ["'login'", "client id"]),
        ({"password": None}, ["'password'", "client secret"]),
        ({"password": ""}, ["'password'", "client secret"]),
        ({"password": "***"}, ["'password'", "masked", "again"]),
        ({"login": "***"}, ["'login'", "masked"]),
        ({"password": "top secret value\n"}, ["'password'", "line break", "again"]),
    ],
)
def test_refused_fields(fields: dict[str, Any], words: list[str]) -> None:
    message = refusal(**fields)
    assert all(word in message for word in words), message


def test_tenant_id_is_required() -> None:
    assert "'tenant_id' is missing" in refusal(extra={"tenant_id": None})
    assert "'tenant_id' is missing" in refusal(extra={"tenant_id": ""})
    with pytest.raises(M2PConfigError, match="m2p_test: extra 'tenant_id' is missing"):
        ClientSettings.from_connection(**FIELDS)


@pytest.mark.parametrize(
    "tenant", ["A\r\nX-Evil: 1", "A\n", "tenänt", " A", "A ", "A\x00", "x" * 129, True, ["A"], 1.5]
)
def test_tenant_ids_that_are_no_header(tenant: Any) -> None:
    assert "'tenant_id' must be" in refusal(extra={"tenant_id": tenant})


def test_tenant_id_as_number() -> None:
    assert read({"tenant_id": 42}).tenant_id == "42"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("page_size", "500", 500),
        ("page_size", 500.0, 500),
        ("page_size", "", 100),
        ("page_size", None, 100),
        ("max_concurrency", "1", 1),
        ("max_requests_per_minute", "600", 600),
        ("connect_timeout", "2.5", 2.5),
        ("read_timeout", 1, 1.0),
        ("paging", "None", "none"),
        ("paging", "PAGE", "page"),
        ("paging", "", "auto"),
        ("token_cache", "off", "off"),
        ("verify", "true", True),
        ("verify", "False", False),
        ("verify", False, False),
        ("verify", 0, False),
        ("verify", 1, True),
        ("verify", "", True),
        ("credentials_issued_on", "2026-01-31", date(2026, 1, 31)),
        ("credentials_issued_on", "", None),
        ("token_path", "/oauth/token", "/oauth/token"),
        ("products_path", "/configs/v1/products/", "/configs/v1/products/"),
        ("products_path", "/v1/products/?status=ACTIVE", "/v1/products/?status=ACTIVE"),
    ],
)
def test_extras(name: str, value: Any, expected: Any) -> None:
    found = getattr(read({name: value}), name)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("name", ["page_size", "max_concurrency", "max_requests_per_minute"])
@pytest.mark.parametrize("value", [0, -1, "0", "abc", "1.5", 1.5, True, [1], {}, "nan", "inf", 10**30, "1" * 400])
def test_refused_whole_numbers(name: str, value: Any) -> None:
    assert f"'{name}' must be a positive whole number" in refusal({name: value})


@pytest.mark.parametrize("name", ["connect_timeout", "read_timeout"])
@pytest.mark.parametrize("value", [0, -0.5, "nan", float("nan"), float("inf"), "ten", False, 1e9])
def test_refused_seconds(name: str, value: Any) -> None:
    assert f"'{name}' must be a positive number" in refusal({name: value})


@pytest.mark.parametrize("value", ["pages", 1, True, ["auto"]])
@pytest.mark.parametrize("name", ["paging", "token_cache"])
def test_refused_choices(name: str, value: Any) -> None:
    assert f"'{name}' must be one of" in refusal({name: value})


@pytest.mark.parametrize("value", ["31.01.2026", "2026-02-30", "20260131", 20260131, "soon", "\uff12026-01-31"])
def test_refused_dates(value: Any) -> None:
    assert "'credentials_issued_on' must be a date such as" in refusal({"credentials_issued_on": value})


def test_ca_file(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    shutil.copy(certifi.where(), file)
    assert read({"verify": str(file)}).verify == str(file)


@pytest.mark.parametrize("value", ["/no/such/ca.pem", "/tmp", __file__, "maybe", 2, [], "a\0b"])
def test_refused_ca_files(value: Any) -> None:
    assert "'verify' is neither" in refusal({"verify": value})


PATHS_THAT_LEAVE = [
    "v1/products/",
    "https://evil.example/v1/products/",
    "//evil.example/v1/products/",
    "/%2fevil.example/",
    "/\\evil.example/",
    "/v1/../admin",
    "/v1/%2e%2e/admin",
    "/v1/%252e%252e/admin",
    "/./v1",
    "/..",
    "/v1/products/\r\nX-Evil: 1",
    "/v1/%0d%0aX-Evil: 1",
    "/v1\x00",
    "/v1#x",
    "/v1\udc80",
    "",
]


@pytest.mark.parametrize("path", PATHS_THAT_LEAVE)
@pytest.mark.parametrize("name", ["token_path", "products_path"])
def test_refused_paths(name: str, path: str) -> None:
    assert check_path(path) is not None
    if path:
        assert f"'{name}' must" in refusal({name: path}) or f"'{name}' has" in refusal({name: path})


@pytest.mark.parametrize("path", ["/", "/v1/products/", "/v1/a b/ü?x=../y", "/v1/...", "/v1/a..b/"])
def test_paths_that_stay(path: str) -> None:
    assert check_path(path) is None


@pytest.mark.parametrize("name", ["token_path", "products_path"])
def test_paths_are_text(name: str) -> None:
    assert f"'{name}' must be a path" in refusal({name: 5})


def test_extra_as_json_text() -> None:
    assert read(json.dumps({"tenant_id": "T", "page_size": 7})).page_size == 7


@pytest.mark.parametrize("extra", ["{", "[1]", "5", "[" * 100_000])
def test_extra_that_is_no_object(extra: str) -> None:
    assert "'extra'" in refusal(extra)


def test_unknown_extras_are_named_once_without_values(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read(
            {
                "headers": {"X": "value"},
                "proxy\n": "hidden value",
                **dict.fromkeys(KNOWN_EXTRAS, None),
                "tenant_id": "T",
            }
        )
    (record,) = caplog.records
    message = record.getMessage()
    assert "m2p_test" in message
    assert "ignored: headers, proxy?." in message
    assert "value" not in message


def test_known_extras_are_the_contract() -> None:
    assert set(KNOWN_EXTRAS) <= set(ClientSettings.__dataclass_fields__)


@pytest.mark.parametrize(
    ("day", "words"),
    [
        (date(2026, 4, 20), None),  # the 79th day
        (date(2026, 4, 21), "in 10 days"),
        (date(2026, 5, 1), "today"),
        (date(2026, 5, 4), "3 days ago"),
    ],
)
def test_the_reminder_of_the_rotation(day: date, words: str | None) -> None:
    reminder = read({"tenant_id": "T", "credentials_issued_on": "2026-01-31"}).rotation_reminder(day)
    if words is None:
        assert reminder is None
    else:
        assert reminder is not None
        assert f"on 2026-05-01 ({words})" in reminder


def test_no_reminder_without_a_date() -> None:
    assert read({"tenant_id": "T"}).rotation_reminder(date(2026, 5, 4)) is None
