from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_m2p.sandbox import SandboxServer


@pytest.fixture(scope="module")
def box() -> Iterator[SandboxServer]:
    """One sandbox for the tests of a module that do not change it."""
    with SandboxServer(products=120, page_size_max=50) as server:
        yield server
