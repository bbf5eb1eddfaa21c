from __future__ import annotations

import logging
import threading
from email.utils import formatdate

import pytest

from airflow_provider_m2p.client.retry import (
    ATTEMPTS,
    FEW_ATTEMPTS,
    Cancellation,
    Cancelled,
    RateLimiter,
    Retrier,
    Transient,
    retry_after,
)
from airflow_provider_m2p.exceptions import M2PApiError, M2PRateLimitError

NOW = 1_800_000_000.0


class Attempts:
    """Fails as told, then succeeds."""

    def __init__(self, *failures: Exception, seconds: float = 0.0, time: FakeTime | None = None) -> None:
        self.failures = list(failures)
        self.made = 0
        self.seconds = seconds
        self.time = time

    def __call__(self) -> str:
        self.made += 1
        if self.time:
            self.time.now += self.seconds
        if self.failures:
            raise self.failures.pop(0)
        return "answer"


class FakeTime:
    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float, stop: Cancellation) -> None:
        stop.check()
        self.pauses.append(seconds)
        self.now += seconds

    def retrier(self, total: float = 300.0, attempts: int = ATTEMPTS) -> Retrier:
        return Retrier(total_seconds=total, attempts=attempts, clock=lambda: self.now, sleep=self.sleep)


def transient(retry_after: float | None = None, attempts: int = ATTEMPTS) -> Transient:
    return Transient(M2PApiError("Busy.", retry_after=retry_after), attempts)


def test_success_needs_no_pause() -> None:
    time = FakeTime()
    assert time.retrier().run(Attempts(), Cancellation()) == "answer"
    assert time.pauses == []


def test_backoff_grows_and_is_jittered() -> None:
    longest = [0.0] * 5
    different = set()
    for _ in range(50):
        time = FakeTime()
        time.retrier().run(Attempts(*[transient() for _ in range(5)]), Cancellation())
        longest = [max(pair) for pair in zip(longest, time.pauses, strict=True)]
        different.add(time.pauses[0])
        assert all(0 <= pause <= 2**number for number, pause in enumerate(time.pauses))
    assert len(different) > 40
    assert longest == sorted(longest)


def test_gives_up_after_as_many_attempts_as_the_failure_is_worth() -> None:
    for worth, made in ((ATTEMPTS, ATTEMPTS), (FEW_ATTEMPTS, FEW_ATTEMPTS), (1, 1)):
        attempts = Attempts(*[transient(attempts=worth) for _ in range(20)])
        with pytest.raises(M2PApiError, match=r"Busy\.") as caught:
            FakeTime().retrier().run(attempts, Cancellation())
        assert attempts.made == made
        assert ("Gave up after" in str(caught.value)) == (made > 1)


def test_the_last_failure_is_raised() -> None:
    last = Transient(M2PRateLimitError("Too fast.", status_code=429, retry_after=7.0), 2)
    with pytest.raises(M2PRateLimitError, match=r"^Too fast\. Gave up after 2 attempts in \d s\.$") as caught:
        FakeTime().retrier().run(Attempts(transient(), last), Cancellation())
    assert caught.value.retry_after == 7.0
    assert caught.value.__suppress_context__


def test_waits_as_long_as_it_is_told_and_a_little_longer() -> None:
    time = FakeTime()
    told = [20, 20, 20, 0, 0]
    time.retrier().run(Attempts(*[transient(retry_after=seconds) for seconds in told]), Cancellation())
    assert all(seconds < pause <= seconds + 1 for seconds, pause in zip(told, time.pauses, strict=True))


def test_does_not_wait_for_longer_than_in_total() -> None:
    time = FakeTime()
    attempts = Attempts(*[transient(retry_after=200) for _ in range(9)])
    with pytest.raises(M2PApiError) as caught:
        time.retrier(total=300).run(attempts, Cancellation())
    assert attempts.made == 2
    assert caught.value.retry_after == 200
    assert time.now < 300


def test_slow_attempts_count_too() -> None:
    time = FakeTime()
    attempts = Attempts(*[transient() for _ in range(9)], seconds=140, time=time)
    with pytest.raises(M2PApiError):
        time.retrier(total=300).run(attempts, Cancellation())
    assert attempts.made <= 3


def test_no_repetition_at_all() -> None:
    attempts = Attempts(transient())
    with pytest.raises(M2PApiError):
        FakeTime().retrier(total=0).run(attempts, Cancellation())
    assert attempts.made == 1


def test_other_errors_are_not_repeated() -> None:
    attempts = Attempts(M2PApiError("No."))
    with pytest.raises(M2PApiError, match=r"^No\.$"):
        FakeTime().retrier().run(attempts, Cancellation())
    assert attempts.made == 1


def test_repetition_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        FakeTime().retrier().run(Attempts(transient(retry_after=20)), Cancellation())
    (record,) = caplog.records
    assert record.getMessage().startswith("Busy. Attempt 1 failed, the next one is in 2")


def test_a_pause_ends_when_the_reader_goes_away() -> None:
    stop = Cancellation()
    threading.Timer(0.05, stop.cancel).start()
    with pytest.raises(Cancelled):
        Retrier(total_seconds=1000).run(Attempts(transient(retry_after=500)), stop)


def test_cancellation_aborts_what_is_watched() -> None:
    stop, aborted = Cancellation(), []
    stop.watch("a", lambda: aborted.append("a"))
    stop.watch("b", lambda: aborted.append("b"))
    stop.forget("a")
    stop.check()
    stop.cancel()
    assert aborted == ["b"]
    with pytest.raises(Cancelled):
        stop.watch("c", lambda: aborted.append("c"))
    with pytest.raises(Cancelled):
        stop.sleep(100)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": " 120 "}, 120.0),
        ({"Retry-After": "0" * 9 + "120"}, 120.0),
        ({"Retry-After": "9" * 5000}, 86_400.0),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "٣"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"Retry-After": formatdate(NOW - 90, usegmt=True)}, 0.0),
        ({"Retry-After": formatdate(NOW + 10**6, usegmt=True)}, 86_400.0),
        # The platform's clock is an hour fast.
        ({"Retry-After": formatdate(NOW + 3690, usegmt=True), "Date": formatdate(NOW + 3600, usegmt=True)}, 90.0),
        ({"Retry-After": "Mon, 99 Foo 99999 99:99:99 GMT"}, None),
        ({"Retry-After": "Mon, 01 Jan 2024 00:00:00 +99999999999999"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


def test_rate_limiter_spaces_requests_evenly() -> None:
    now = 100.0
    limiter = RateLimiter(60, lambda: now)
    assert [limiter.reserve() for _ in range(3)] == [0.0, 1.0, 2.0]
    now = 110.0
    assert [limiter.reserve() for _ in range(2)] == [0.0, 1.0]


def test_no_rate_limit() -> None:
    limiter = RateLimiter(None)
    assert [limiter.reserve() for _ in range(100)] == [0.0] * 100
