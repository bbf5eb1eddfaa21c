"""
Every fault of the sandbox, in every write mode: exact data, or a typed error and nothing changed.

What comes of each is a line of ``docs/faults.md``. ``FAULTS=write`` writes the page anew instead of comparing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from airflow_provider_m2p.client.transport import MAX_BODY_BYTES
from airflow_provider_m2p.sandbox import SandboxServer
from airflow_provider_m2p.sandbox.faults import KINDS, Kind, Phase
from tests.integration.faults import page
from tests.integration.faults.cases import CASES, Case, uncovered
from tests.integration.faults.trial import AFTER, BEFORE, TENANT, Trial, load, load_before, serve
from tools.record import Record, Served

WRITE = os.environ.get("FAULTS") == "write"
#: No case takes longer, however slow the machine: what does hangs.
pytestmark = pytest.mark.timeout(150)

ON_POSTGRES = (
    "503@page1",
    "nan@page1",
    "huge-number@page1",
    "row-moves",
    "row-moves@page0x1",
    "total-changes",
    "truncated@page1",
)


@pytest.fixture(scope="module")
def box() -> Iterator[SandboxServer]:
    with SandboxServer(products=0) as server:
        yield server


@pytest.fixture(scope="module")
def loaded(box: SandboxServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with what was there before the fault."""
    path = tmp_path_factory.mktemp("faults") / "warehouse.db"
    load_before(sa.make_url(f"sqlite:///{path}"), box)
    return path


@pytest.fixture(scope="module", autouse=True)
def seen() -> Iterator[dict[str, str]]:
    """The line of each case, by its id; the page is made of them at the end, if it is to be written."""
    seen: dict[str, str] = {}
    yield seen
    if WRITE:
        page.PATH.write_text(page.HEAD + "".join(f"{seen[case.id]}\n" for case in CASES), "utf-8")


@pytest.fixture(autouse=True)
def all_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")


def test_every_fault_has_its_cases() -> None:
    assert uncovered() == []
    assert len({case.id for case in CASES}) == len(CASES)


def test_a_fault_that_is_new_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "new-fault", Kind(Phase.ANSWER, "what nobody has thought of yet"))
    assert uncovered() == ["new-fault", "new-fault@token"]


def test_the_page_has_the_lines_of_all_cases_and_no_others() -> None:
    lines = page.PATH.read_text("utf-8").removeprefix(page.HEAD).splitlines()
    if not WRITE:
        assert [line.split(" | ")[:3] for line in lines] == [
            page.line(case, {"": ""}).split(" | ")[:3] for case in CASES
        ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_fault(
    case: Case,
    box: SandboxServer,
    loaded: Path,
    seen: dict[str, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copyfile(loaded, tmp_path / "warehouse.db")
    with ExitStack() as stack:
        sick = None
        if case.server:
            sick = stack.enter_context(SandboxServer(products=0, **case.server))
            serve(sick, AFTER)
        trial = Trial(sa.make_url(f"sqlite:///{tmp_path / 'warehouse.db'}"), box, case, caplog, sick)
        seen[case.id] = page.line(case, trial.outcomes())
    _compare(seen[case.id])


@pytest.mark.parametrize("case", [case for case in CASES if case.spec in ON_POSTGRES], ids=lambda case: case.id)
def test_fault_on_postgres(
    case: Case, box: SandboxServer, postgres_url: sa.URL, caplog: pytest.LogCaptureFixture
) -> None:
    load_before(postgres_url, box)
    _compare(page.line(case, Trial(postgres_url, box, case, caplog).outcomes()))


def test_a_page_of_200_mb(box: SandboxServer, loaded: Path, tmp_path: Path) -> None:
    path = shutil.copyfile(loaded, tmp_path / "warehouse.db")
    box.set_faults("big-page@page1")
    load(sa.make_url(f"sqlite:///{path}"), box, "upsert", "load", max_body_bytes=MAX_BODY_BYTES)
    record = Record(TENANT, "upsert", "upsert", [Served("before", BEFORE), Served("load", AFTER)])
    assert record.differences(f"sqlite:///{path}") == []
    assert box.faults_fired() == {"big-page@page1": 1}


def _compare(line: str) -> None:
    if not WRITE:
        assert line in page.PATH.read_text("utf-8").splitlines()
