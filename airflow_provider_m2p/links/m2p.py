"""Links from a task in Airflow's UI to the M2P Prepaid Platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class M2PApiDocsLink(BaseOperatorLink):
    """The API documentation of the platform the task talked to: ``/api-docs`` of its connection's base URL."""

    name = "M2P API docs"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the link; it is empty if the task failed before it knew the platform."""
        return getattr(operator, "api_docs_url", "")
