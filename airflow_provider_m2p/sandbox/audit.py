"""Who did what: tokens, secrets, changes and refusals. Reads that succeed are not recorded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_m2p.sandbox.clock import Clock
from airflow_provider_m2p.sandbox.state import State


@dataclass(frozen=True)
class Event:
    """
    One line of the audit log.

    :param actor: client id, or the address of a caller who has not shown who they are.
    :param outcome: ``OK`` or the business code of the refusal.
    """

    at: str
    tenant: str
    actor: str
    action: str
    target: str
    outcome: str
    request_id: str

    def as_json(self) -> dict[str, Any]:
        event = asdict(self)
        event["requestId"] = event.pop("request_id")
        return event


class Audit:
    """The audit log, append-only."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock

    def record(self, *, tenant: str, actor: str, action: str, target: str, outcome: str, request_id: str) -> None:
        sql = "INSERT INTO audit (at, tenant, actor, action, target, outcome, request_id) VALUES (?, ?, ?, ?, ?, ?, ?)"
        self._state.run(sql, (self._clock.instant(), tenant, actor, action, target, outcome, request_id))

    def events(self, tenant: str) -> list[Event]:
        """What happened at a tenant, oldest first."""
        sql = (
            "SELECT at, tenant, actor, action, target, outcome, request_id FROM audit WHERE tenant = ? ORDER BY number"
        )
        return [Event(*row) for row in self._state.run(sql, (tenant,))]
