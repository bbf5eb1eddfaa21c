"""When to try again, how long to wait before it, and how fast to ask at all."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar

import tenacity

from airflow_provider_m2p.exceptions import M2PApiError

#: Attempts when the platform is out of reach, busy (429) or away (502, 503, 504).
ATTEMPTS = 6
#: Attempts after HTTP 500, which is more often a defect than a moment's weakness.
FEW_ATTEMPTS = 3

_LONGEST_RETRY_AFTER = 86_400.0

T = TypeVar("T")
log = logging.getLogger(__name__)


class Transient(Exception):
    """
    An attempt failed in a way that the next one may not.

    :param error: what to raise when there is no next one.
    :param attempts: how many attempts this kind of failure is worth.
    """

    def __init__(self, error: M2PApiError, attempts: int = ATTEMPTS) -> None:
        super().__init__(str(error))
        self.error = error
        self.attempts = attempts


class Cancelled(Exception):
    """The reader went away while a request was under way. Never leaves the client."""


class Cancellation:
    """Ends what one reader is waiting for, from another thread: pauses as well as answers in flight."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._aborts: dict[object, Callable[[], None]] = {}

    def cancel(self) -> None:
        """End everything now, and whatever begins later at once."""
        with self._lock:
            self._event.set()
            aborts = list(self._aborts.values())
        for abort in aborts:
            abort()

    def check(self) -> None:
        """Raise ``Cancelled`` if the reader went away."""
        if self._event.is_set():
            raise Cancelled

    def sleep(self, seconds: float) -> None:
        """Pause, unless the reader goes away."""
        self._event.wait(seconds)
        self.check()

    def watch(self, key: object, abort: Callable[[], None]) -> None:
        """
        Call ``abort`` should the reader go away before ``forget``.

        :param key: what to tell ``forget``.
        :param abort: ends the wait; called from another thread.
        """
        with self._lock:
            self.check()
            self._aborts[key] = abort

    def forget(self, key: object) -> None:
        """The wait is over."""
        with self._lock:
            self._aborts.pop(key, None)


class Retrier:
    """
    Repeats an attempt that failed with ``Transient``: exponential backoff with full jitter, or the ``Retry-After``.

    :param total_seconds: the longest time from the first attempt to the start of the last one.
    :param attempts: the most attempts, whatever the failure.
    :param clock: seconds that only go forward.
    :param sleep: pauses; takes the seconds and the reader's ``Cancellation``.
    """

    def __init__(
        self,
        *,
        total_seconds: float,
        attempts: int = ATTEMPTS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float, Cancellation], None] = lambda seconds, stop: stop.sleep(seconds),
    ) -> None:
        self._total_seconds = total_seconds
        self._attempts = attempts
        self._clock = clock
        self._sleep = sleep
        self._backoff = tenacity.wait_random_exponential(multiplier=1, max=30)
        self._spread = tenacity.wait_random(0, 1)

    def run(self, attempt: Callable[[], T], stop: Cancellation) -> T:
        """
        Return what the attempt returns, or raise the last failure's error.

        :param attempt: one try.
        :param stop: the reader it is for.
        """
        started = self._clock()

        def wait(state: tenacity.RetryCallState) -> float:
            retry_after = _failure(state).error.retry_after
            # All the workers told to come back at one moment should not.
            return self._backoff(state) if retry_after is None else retry_after + self._spread(state)

        def give_up(state: tenacity.RetryCallState) -> bool:
            if state.attempt_number >= min(_failure(state).attempts, self._attempts):
                return True
            return self._clock() - started + state.upcoming_sleep > self._total_seconds

        def report(state: tenacity.RetryCallState) -> None:
            log.warning(
                "%s Attempt %s failed, the next one is in %.1f s.",
                _failure(state).error,
                state.attempt_number,
                state.upcoming_sleep,
            )

        def fail(state: tenacity.RetryCallState) -> T:
            error = _failure(state).error
            if state.attempt_number > 1:
                seconds = self._clock() - started
                error.args = (f"{error} Gave up after {state.attempt_number} attempts in {seconds:.0f} s.",)
            raise error from None

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Transient),
            wait=wait,
            stop=give_up,
            before_sleep=report,
            retry_error_callback=fail,
            sleep=lambda seconds: self._sleep(seconds, stop),
        )
        return retrying(attempt)


class RateLimiter:
    """
    Spaces requests evenly, over all threads.

    :param per_minute: the most requests in a minute; ``None`` for no limit.
    :param clock: seconds that only go forward.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._next = clock()

    def reserve(self) -> float:
        """Take the next free moment and return the seconds until then."""
        with self._lock:
            now = self._clock()
            moment = max(now, self._next)
            self._next = moment + self._interval
            return moment - now


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """
    Return the seconds an answer asks us to wait, from ``Retry-After`` as seconds or as a date.

    :param headers: the answer's headers. A date is measured from their ``Date``: the platform's clock may not be ours.
    :param now: the time, should they have none.
    """
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        seconds = float(value)
    else:
        moment = _http_date(value)
        if moment is None:
            return None
        sent = _http_date(headers.get("Date", ""))
        seconds = moment - (now if sent is None else sent)
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)


def _http_date(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _failure(state: tenacity.RetryCallState) -> Transient:
    failure = state.outcome.exception() if state.outcome else None
    if not isinstance(failure, Transient):
        raise TypeError("only Transient failures are retried")
    return failure
