"""All products as a pandas DataFrame, by our own flattening."""

from __future__ import annotations

from typing import Any

import pandas  # noqa: F401  # before the clock starts, as for the other contestant

from airflow_provider_m2p.frames import to_dataframe
from benchmarks.contestants.ours import client
from benchmarks.job import Job


def frame(job: Job) -> dict[str, Any]:
    with client(job) as m2p:
        products = to_dataframe(m2p.pages())
    return {
        "rows": len(products),
        "distinct": products["product_id"].nunique(),
        "daily": round(float(products["limits__daily"].sum()), 2),
    }
