"""The same task process with our load: a module of its own, since the clock starts after a contestant's imports."""

from __future__ import annotations

from typing import Any

from benchmarks.contestants.ours import load
from benchmarks.contestants.task import engine
from benchmarks.job import Job


def run(job: Job) -> dict[str, Any]:
    return load(job, engine(job))
