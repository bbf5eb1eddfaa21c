"""Airflow connections for tests, set as environment variables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest
    from sqlalchemy import URL


def m2p_connection(url: str, client_id: str = "acme-viewer", tenant_id: str | None = "ACME_CORP", **extra: Any) -> str:
    """Return a connection to a sandbox; ``password`` among the extras replaces the right one."""
    fields = {
        "conn_type": "m2p",
        "host": url,
        "login": client_id,
        "password": extra.pop("password", f"{client_id}-secret"),
        "extra": {"tenant_id": tenant_id, "token_cache": "process", **extra},
    }
    return json.dumps(fields)


def sql_connection(url: URL) -> str:
    """Return a connection to a database."""
    if url.get_backend_name() == "sqlite":
        return json.dumps({"conn_type": "sqlite", "host": url.database})
    return json.dumps(
        {
            "conn_type": "postgres",
            "host": url.host,
            "port": url.port,
            "login": url.username,
            "schema": url.database,
        }
    )


def connect(monkeypatch: pytest.MonkeyPatch, **connections: str) -> None:
    """Make connections known to Airflow, by their ids."""
    for conn_id, value in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", value)
