from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_m2p import exceptions
from airflow_provider_m2p.exceptions import (
    M2PApiError,
    M2PAuthError,
    M2PConfigError,
    M2PError,
    M2PLoadError,
    M2PPermissionError,
    M2PRateLimitError,
    M2PResponseError,
    M2PSchemaError,
)
from airflow_provider_m2p.retries import no_hopeless_retries

HOPELESS = [M2PConfigError, M2PAuthError, M2PPermissionError, M2PSchemaError]
HOPEFUL = [M2PApiError, M2PRateLimitError, M2PResponseError, M2PLoadError]


def context(**task: Any) -> dict[str, Any]:
    return {"ti": SimpleNamespace(task=SimpleNamespace(**task))}


@pytest.mark.parametrize("error_class", HOPELESS)
def test_in_a_task_a_hopeless_error_is_also_one_that_airflow_does_not_retry(error_class: type[M2PError]) -> None:
    error = error_class("no such tenant")
    with pytest.raises(error_class, match="no such tenant") as caught, no_hopeless_retries(context()):
        raise error
    assert caught.value is error
    assert isinstance(error, AirflowFailException)
    assert type(error).__name__ == error_class.__name__


def test_the_attributes_stay() -> None:
    with pytest.raises(M2PPermissionError) as caught, no_hopeless_retries(context()):
        raise M2PPermissionError("no", status_code=403, business_code="B1", request_id="r", retry_after=None)
    assert isinstance(caught.value, AirflowFailException)
    assert (caught.value.status_code, caught.value.business_code, caught.value.request_id) == (403, "B1", "r")


@pytest.mark.parametrize("error_class", HOPEFUL)
def test_other_errors_are_left_to_airflows_retries(error_class: type[M2PError]) -> None:
    with pytest.raises(error_class) as caught, no_hopeless_retries(context()):
        raise error_class("later, perhaps")
    assert type(caught.value) is error_class


@pytest.mark.parametrize("error_class", HOPELESS)
def test_outside_a_task_every_error_stays_what_it_is(error_class: type[M2PError]) -> None:
    with pytest.raises(error_class) as caught, no_hopeless_retries({}):
        raise error_class("no")
    assert type(caught.value) is error_class


def test_a_retry_policy_decides_for_itself() -> None:
    with pytest.raises(M2PConfigError) as caught, no_hopeless_retries(context(retry_policy=object())):
        raise M2PConfigError("no")
    assert not isinstance(caught.value, AirflowFailException)


def test_every_error_class_has_been_thought_about() -> None:
    classes = {value for value in vars(exceptions).values() if isinstance(value, type)}
    assert {c for c in classes if not any(issubclass(c, known) for known in HOPELESS + HOPEFUL)} == {M2PError}
