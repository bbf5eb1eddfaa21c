"""What the log says while a long list is read."""

from __future__ import annotations

import itertools
import logging
from types import SimpleNamespace

import pytest

from airflow_provider_m2p.warehouse import load as load_module
from tests.integration.warehouse.streams import Warehouse

#: Four rows each, which come every two seconds.
PAGES = [[{"id": f"{page}-{row}"} for row in range(4)] for page in range(10)]


@pytest.mark.parametrize(
    ("total", "of", "left"),
    [
        (40, " of 10", [", about 14 s left", ", about 8 s left", ", about 2 s left"]),
        (16, " of 10", [", about 2 s left", "", ""]),  # the platform may be wrong
        (None, "", ["", "", ""]),
    ],
)
def test_every_few_seconds_the_log_says_how_far_the_reading_is(
    sqlite: Warehouse,
    total: int | None,
    of: str,
    left: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(load_module, "time", SimpleNamespace(monotonic=itertools.count(step=2.0).__next__))
    with caplog.at_level(logging.INFO, load_module.__name__):
        sqlite.load(*PAGES, total_rows=total)
    assert [message for message in caplog.messages if message.startswith("Read ")] == [
        f"Read 12 rows, page 3{of}, 2 rows/s{left[0]}",
        f"Read 24 rows, page 6{of}, 2 rows/s{left[1]}",
        f"Read 36 rows, page 9{of}, 2 rows/s{left[2]}",
    ]
