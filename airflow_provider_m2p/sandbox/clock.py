"""The sandbox's clock, which tests move instead of waiting."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """Seconds since the epoch, plus what :meth:`advance` added."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds

    def instant(self) -> str:
        """Now, written the way the platform writes instants."""
        return datetime.fromtimestamp(self(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
