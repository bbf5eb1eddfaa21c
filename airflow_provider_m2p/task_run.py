"""Which Airflow task run is at work, and the identifiers that follow from it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOAD_IDS = uuid.UUID("6f1c1e5c-3a55-5d0e-9c39-4a8d4f2b7d10")


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRun:
    """
    One try of one task in one dag run.

    :param dag_id: as Airflow names it (as ``run_id`` and ``task_id``).
    :param map_index: index of a mapped task, -1 if it is not mapped.
    :param try_number: 1 for the first try.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 1

    @classmethod
    def of(cls, context: Mapping[str, Any]) -> TaskRun | None:
        """Return the task run of an ``execute`` context, ``None`` outside a task."""
        ti = context.get("ti")
        if ti is None:
            return None
        return cls(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            try_number=ti.try_number,
        )

    @classmethod
    def current(cls) -> TaskRun | None:
        """Return the task run this code is called from, ``None`` outside a task."""
        from airflow.sdk import get_current_context

        try:
            context = get_current_context()
        except RuntimeError:  # Airflow's answer outside a task
            return None
        return cls.of(context)

    @property
    def load_id(self) -> str:
        """Return an id that every try of this dag run, task and map index shares."""
        name = f"{self.dag_id}\n{self.run_id}\n{self.task_id}\n{self.map_index}"
        return str(uuid.uuid5(_LOAD_IDS, name))

    @property
    def request_id_prefix(self) -> str:
        """Return what the request ids of this try begin with, to find them in the platform's logs."""
        mapped = "" if self.map_index < 0 else f"/map={self.map_index}"
        return f"{self.dag_id}/{self.run_id}/{self.task_id}{mapped}/try={self.try_number}"


def random_load_id() -> str:
    """Return the load id of a load outside a task."""
    return str(uuid.uuid4())
