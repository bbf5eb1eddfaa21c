"""How much the random tests try: ``EFFORT=20 make test ARGS=tests/integration/warehouse`` is the long form."""

from __future__ import annotations

import os
from typing import Final

from hypothesis import settings

EFFORT: Final = int(os.environ.get("EFFORT", "1"))
_EXAMPLES: Final = {"sqlite": 20, "psycopg": 12, "psycopg2": 4, "portable": 6, "mariadb": 8}


def effort(way: str) -> settings:
    """Return settings for a property test that loads a database in some way."""
    return settings(max_examples=_EXAMPLES[way] * EFFORT, deadline=None)
