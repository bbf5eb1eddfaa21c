"""Which errors are worth another try of the task."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_m2p.exceptions import (
    M2PAuthError,
    M2PConfigError,
    M2PError,
    M2PPermissionError,
    M2PSchemaError,
    M2PWarehouseAccessError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Only a person can mend these: the same try again would fail the same way.
HOPELESS: tuple[type[M2PError], ...] = (
    M2PConfigError,
    M2PAuthError,
    M2PPermissionError,
    M2PSchemaError,
    M2PWarehouseAccessError,
)


@contextmanager
def no_hopeless_retries(context: Mapping[str, Any]) -> Iterator[None]:
    """
    Let a hopeless error fail the task at once, whatever its ``retries``.

    Airflow does so for ``AirflowFailException``. Wrapping the error in one would hide its class and
    attributes from callbacks, so the error itself becomes an ``AirflowFailException`` too. Outside a task it
    is left alone, and a task with a ``retry_policy`` leaves the choice to that.

    :param context: the operator's execution context.
    """
    try:
        yield
    except HOPELESS as error:
        ti = context.get("ti")
        if ti is not None and getattr(ti.task, "retry_policy", None) is None:
            error.__class__ = _failing(type(error))
        raise


def _failing(error_class: type[M2PError]) -> type[M2PError]:
    from airflow.sdk.exceptions import AirflowFailException

    return type(error_class.__name__, (error_class, AirflowFailException), {"__module__": error_class.__module__})
