from __future__ import annotations

import pytest

from airflow_provider_m2p.client.address import caller_address


def test_an_address_of_a_private_network_is_not_the_one_the_platform_sees() -> None:
    said = caller_address("http://127.0.0.1:8099", by_proxy=False)
    assert said == "worker 127.0.0.1 before NAT"


def test_ipv6() -> None:
    assert "::1 before NAT" in caller_address("https://[::1]", by_proxy=False)


def test_a_proxys_address_is_what_counts() -> None:
    assert caller_address("http://127.0.0.1:8099", by_proxy=True) == "this worker's proxy"


@pytest.mark.parametrize("url", ["https://no-such-host.invalid", "https://255.255.255.255"])
def test_an_address_that_cannot_be_known(url: str) -> None:
    assert caller_address(url, by_proxy=False) == "this worker's address"
