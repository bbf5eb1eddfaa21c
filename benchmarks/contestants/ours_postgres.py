"""Our loader into PostgreSQL, with the drivers imported before the clock starts, as the other contestants have them."""

from __future__ import annotations

from typing import Any

import psycopg  # noqa: F401
import psycopg2  # noqa: F401
from sqlalchemy import create_engine

from benchmarks.contestants.ours import load
from benchmarks.job import Job


def by_psycopg3(job: Job) -> dict[str, Any]:
    return load(job, create_engine(job.database.replace("postgresql://", "postgresql+psycopg://", 1)))


def by_psycopg2(job: Job) -> dict[str, Any]:
    return load(job, create_engine(job.database.replace("postgresql://", "postgresql+psycopg2://", 1)))
