"""Typed rows into the tables of a SQL database, atomically. Knows nothing of Airflow."""

from __future__ import annotations

from typing import Any

__all__ = ["Loader"]


def __getattr__(name: str) -> Any:
    # SQLAlchemy is loaded when a load runs, not when a DAG file is parsed.
    if name == "Loader":
        from airflow_provider_m2p.warehouse.loader import Loader

        return Loader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
