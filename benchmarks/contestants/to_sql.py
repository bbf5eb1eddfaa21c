"""The script everybody writes first: requests, json_normalize, ``DataFrame.to_sql``. A rerun doubles the table."""

from __future__ import annotations

import json

from sqlalchemy import create_engine

from benchmarks.contestants.frames import normalize_frame
from benchmarks.job import Job


def postgres(job: Job) -> None:
    _load(job, job.database)


def sqlite(job: Job) -> None:
    _load(job, f"sqlite:///{job.database}")


def _load(job: Job, url: str) -> None:
    frame = normalize_frame(job)
    frame["tags"] = frame["tags"].map(json.dumps)
    frame.to_sql("products", create_engine(url), if_exists="append", index=False)
