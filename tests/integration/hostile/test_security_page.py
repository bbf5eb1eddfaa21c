"""SECURITY.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "SECURITY.md").read_text("utf-8"))


def test_every_test_that_it_names_exists() -> None:
    assert len(NAMED) > 20
    for path, test in NAMED:
        source = (ROOT / path).read_text("utf-8")
        assert not test or f"def {test}(" in source, f"{path}::{test}"
