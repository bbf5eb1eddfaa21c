"""``docs/faults.md``: what came of each fault, a line each."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.integration.faults.cases import Case

PATH: Final = Path(__file__).parents[3] / "docs" / "faults.md"

HEAD: Final = """\
# What the connector does when the platform fails

Each line is what a test sees, in every write mode: a table that holds eleven products is loaded anew after some have changed,
one is gone and one is new, three pages of four. It ends in one of two ways: the **exact data**, or a **typed error** with the
table, its history and `_m2p_loads` as they were. The load after it, without the fault, is exact. No secret, token or product's
value is in message, log or table. The faults are those of the sandbox: `m2p-sandbox --fault 503@page1x2` shows the same.

- One case is in between: if the total changes while the list is read, its rows are loaded, but what it lacks is not deleted
  before a load that is beyond doubt. A warning says so.
- An answer may have 256 MiB; here the limit is 4 MB, and pauses are skipped.

| fault | that is | where | outcome |
|---|---|---|---|
"""


def line(case: Case, outcomes: dict[str, str]) -> str:
    """Return a case's line: one outcome, or one for each group of write modes that agree."""
    groups: dict[str, list[str]] = {}
    for mode, outcome in outcomes.items():
        groups.setdefault(outcome, []).append(mode)
    if len(groups) == 1:
        (told,) = groups
    else:
        told = "<br>".join(f"{', '.join(modes)}: {outcome}" for outcome, modes in groups.items())
    return f"| {' | '.join((*case.cells(), told))} |"
