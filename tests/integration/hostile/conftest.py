"""A platform that answers as it likes, another host that nobody may call, and logs of which every record is one clean line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from airflow_provider_m2p.exceptions import M2PError
from tests.unit.client.conftest import (  # noqa: F401 - fixtures
    SECRET,
    TOKEN,
    MakeClient,
    MakeSettings,
    Platform,
    Reply,
    fake_time,
    jwt,
    make_client,
    make_settings,
    own_token_caches,
    platform,
)


def assert_one_clean_line(text: str) -> None:
    assert text.isprintable(), repr(text)
    assert SECRET not in text
    assert TOKEN not in text


@pytest.fixture(autouse=True)
def clean_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever happens, each of our log records is one line without a secret."""
    caplog.set_level(logging.DEBUG, logger="airflow_provider_m2p")
    yield
    for record in caplog.get_records("call"):
        if record.name.startswith("airflow_provider_m2p"):
            assert_one_clean_line(record.getMessage())


@pytest.fixture
def elsewhere() -> Iterator[Platform]:
    """A host that is not the connection's: nobody may call it."""
    other = Platform()
    yield other
    other.close()
    assert other.connections == 0


def refusal(action: Callable[[], object]) -> M2PError | None:
    """Do something that may end in one of our errors, and only in those; their message is one clean line."""
    try:
        action()
    except M2PError as error:
        assert_one_clean_line(str(error))
        return error
    return None
