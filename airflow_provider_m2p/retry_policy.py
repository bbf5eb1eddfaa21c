"""
A retry policy for tasks that talk to the M2P Prepaid Platform. For Airflow 3.3 and newer.

Our operators fail at once on hopeless errors with and without it. It does the same for ``@task`` functions, and waits
as long as the platform asks::

    @task(retries=5, retry_delay=timedelta(minutes=1), retry_policy=M2P_RETRY_POLICY)
    def count_products() -> int:
        return len(M2PHook().get_products())
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_provider_m2p.exceptions import M2PApiError
from airflow_provider_m2p.retries import HOPELESS

try:
    from airflow.sdk import RetryDecision, RetryPolicy
except ImportError as error:
    raise ImportError(
        "M2P_RETRY_POLICY needs Airflow 3.3. On Airflow 3.2 the M2P operators fail at once where no retry can help."
    ) from error

if TYPE_CHECKING:
    from airflow.sdk import Context

_LONGEST_DELAY = timedelta(days=1)


class M2PRetryPolicy(RetryPolicy):
    """Fail at once where no retry can help, wait as long as the platform asks, else follow the task's own retries."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        """Decide by the class of the error; errors that are not the provider's are none of its business."""
        if isinstance(exception, HOPELESS):
            return RetryDecision.fail(f"{type(exception).__name__}: the same try again would fail the same way")
        if isinstance(exception, M2PApiError) and exception.retry_after is not None:
            delay = min(timedelta(seconds=exception.retry_after), _LONGEST_DELAY)
            return RetryDecision.retry(delay, f"the platform asked to wait {delay.total_seconds():.0f} s")
        return RetryDecision.default()


M2P_RETRY_POLICY = M2PRetryPolicy()
