"""The rate limit: a token bucket for every caller."""

from __future__ import annotations

import math

from airflow_provider_m2p.sandbox.clock import Clock
from airflow_provider_m2p.sandbox.problems import Code, Problem
from airflow_provider_m2p.sandbox.settings import requests_per_second


class Limiter:
    """
    Refuses a caller who asks faster than the limit.

    :param limit: such as ``600/min``; ``None``: no limit.
    """

    def __init__(self, limit: str | None, clock: Clock) -> None:
        self._limit = requests_per_second(limit)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def spend(self, caller: str) -> None:
        """Count one request of this caller; :class:`Problem` 429 with ``Retry-After`` if it is one too many."""
        if self._limit is None:
            return
        burst, rate = self._limit
        now = self._clock()
        left, then = self._buckets.get(caller, (float(burst), now))
        left = min(float(burst), left + (now - then) * rate)
        if left < 1:
            self._buckets[caller] = (left, now)
            wait = max(1, math.ceil((1 - left) / rate))
            raise Problem(
                Code.RATE_LIMIT,
                f"Too many requests. Try again in {wait} s.",
                headers={"Retry-After": str(wait)},
            )
        self._buckets[caller] = (left - 1, now)
