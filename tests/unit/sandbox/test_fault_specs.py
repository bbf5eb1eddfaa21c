"""The grammar of faults, and that every fault named in it has an effect."""

from __future__ import annotations

import pytest

from airflow_provider_m2p.sandbox import fault_effects
from airflow_provider_m2p.sandbox.faults import KINDS, Asked, Fault, Faults, Phase, listing


@pytest.mark.parametrize(
    ("spec", "name", "value", "where", "number", "times", "chance"),
    [
        ("503", "503", "", "api", None, None, 1),
        ("503@page3x2", "503", "", "page", 3, 2, 1),
        ("429=7@writesx1~0.5", "429", "7", "writes", None, 1, 0.5),
        ("503=date5", "503", "date5", "api", None, None, 1),
        ("latency=1.5@token", "latency", "1.5", "token", None, None, 1),
        ("reset-in-body~0.05", "reset-in-body", "", "api", None, None, 0.05),
        ("redirect=http://127.0.0.1:80@call7", "redirect", "http://127.0.0.1:80", "call", 7, None, 1),
        ("redirect=https://example.test/x~1x1", "redirect", "https://example.test/x~1", "api", None, 1, 1),
        ("expires-in=missing", "expires-in", "missing", "token", None, None, 1),
        ("clock-skew=-300x3", "clock-skew", "-300", "token", None, 3, 1),
        ("big-page", "big-page", "200", "api", None, None, 1),
    ],
)
def test_specs(
    spec: str, name: str, value: str, where: str, number: int | None, times: int | None, chance: float
) -> None:
    fault = Fault.parse(spec)
    assert (fault.name, fault.value, fault.where, fault.number) == (name, value, where, number)
    assert (fault.times, fault.chance) == (times, chance)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "is not NAME"),
        ("503 @page3", "is not NAME"),
        ("200", "there is no fault '200'; known are a status from 400 to 599, big-page, clock-skew"),
        ("earthquake", "there is no fault 'earthquake'"),
        ("503=soon", "'soon' in '503=soon' is no value of 503"),
        ("empty=1", "is no value of empty"),
        ("drip=fast", "is no value of drip"),
        ("503@page", "has to be @api, @token, @writes, @pageN or @callN"),
        ("503@api3", "has to be @api"),
        ("503@everywhere", "has to be @api"),
        ("nan@token", "nan cannot be @token"),
        ("expires-in=0@api", "expires-in cannot be @api"),
        ("503~0", "the chance in '503~0' has to be more than 0"),
        ("503~1.5", "the chance"),
        ("503~0.1.2", "is not NAME"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fault.parse(spec)


def test_every_fault_has_an_effect_and_a_line_in_the_help() -> None:
    tables = {
        Phase.REQUEST: fault_effects.REQUEST,
        Phase.ANSWER: fault_effects.ANSWER,
        Phase.PAGE: fault_effects.PAGE,
        Phase.WIRE: fault_effects.WIRE,
    }
    for phase, table in tables.items():
        assert set(table) == {name for name, kind in KINDS.items() if kind.phase is phase}
    for name in KINDS:
        assert f"    {name}" in listing()
        Fault.parse(name)


def test_a_request_that_no_fault_takes_is_not_counted() -> None:
    faults = Faults(["500x1", "502x1"], seed=1)
    asked = Asked("GET", "/v1/products/", 0)
    hit = []
    for _ in range(3):
        hit += [fault.name for fault in [next(faults.hit(Phase.REQUEST, asked), None)] if fault]
    assert hit == ["500", "502"]


@pytest.mark.parametrize(
    ("method", "path", "query", "page"),
    [
        ("GET", "/v1/products/", b"", 0),
        ("GET", "/v1/products/", b"pageSize=5&pageNo=3", 3),
        ("GET", "/prepaid/middleware/v1/corporate-issuances/fetch-by-status/FAILED", b"pageNo=2", 2),
        ("GET", "/v1/products/", b"pageNo=-1", None),
        ("GET", "/v1/products/", b"pageNo=" + b"9" * 5000, None),
        ("POST", "/v1/products/", b"", None),
        ("GET", "/v1/product-changes/one", b"", None),
    ],
)
def test_page_of_a_request(method: str, path: str, query: bytes, page: int | None) -> None:
    assert Asked.of({"method": method, "path": path, "query_string": query}).page == page
