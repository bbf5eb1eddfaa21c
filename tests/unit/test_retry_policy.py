from __future__ import annotations

from datetime import timedelta
from importlib import import_module

import airflow.sdk
import pytest

from airflow_provider_m2p.exceptions import (
    M2PApiError,
    M2PAuthError,
    M2PConfigError,
    M2PLoadError,
    M2PPermissionError,
    M2PRateLimitError,
    M2PSchemaError,
)

if hasattr(airflow.sdk, "RetryPolicy"):
    from airflow.sdk import RetryAction, RetryDecision

    from airflow_provider_m2p.retry_policy import M2P_RETRY_POLICY

    def decide(error: BaseException) -> RetryDecision:
        return M2P_RETRY_POLICY.evaluate(error, try_number=1, max_tries=3)

    @pytest.mark.parametrize("error_class", [M2PConfigError, M2PAuthError, M2PPermissionError, M2PSchemaError])
    def test_fails_at_once_where_no_retry_can_help(error_class: type[Exception]) -> None:
        decision = decide(error_class("no"))
        assert decision.action is RetryAction.FAIL
        assert error_class.__name__ in (decision.reason or "")

    def test_waits_as_long_as_the_platform_asks() -> None:
        for error_class in (M2PRateLimitError, M2PApiError):
            decision = decide(error_class("slow down", retry_after=90))
            assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, timedelta(seconds=90))
        assert decide(M2PRateLimitError("slow down", retry_after=1e6)).retry_delay == timedelta(days=1)

    @pytest.mark.parametrize("error", [M2PApiError("down"), M2PLoadError("locked"), OSError("disk")])
    def test_leaves_the_rest_to_the_task(error: Exception) -> None:
        assert decide(error) == RetryDecision.default()

else:

    def test_says_which_airflow_it_needs() -> None:
        with pytest.raises(ImportError, match=r"needs Airflow 3\.3"):
            import_module("airflow_provider_m2p.retry_policy")
