"""How much the random tests try: ``EFFORT=20 make test ARGS=tests/integration/warehouse`` is the long form."""

from __future__ import annotations

import os
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

EFFORT: Final = int(os.environ.get("EFFORT", "1"))
#: For modules of tests that take longer with more effort.
PATIENCE: Final = pytest.mark.timeout(180 * EFFORT)


def effort(examples: int) -> settings:
    """Return settings for a property test that loads a warehouse, which the examples share."""
    shared = HealthCheck.function_scoped_fixture
    return settings(max_examples=examples * EFFORT, deadline=None, suppress_health_check=[shared])
