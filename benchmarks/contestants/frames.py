"""All products as a pandas DataFrame, as one usually does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas
import requests

from benchmarks.job import CLIENT_ID, CLIENT_SECRET, TENANT, Job

if TYPE_CHECKING:
    from pandas import DataFrame


def normalize_frame(job: Job) -> DataFrame:
    session = requests.Session()
    token = session.post(
        f"{job.base_url}/auth/token",
        json={"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET, "grantType": "client_credentials"},
        timeout=60,
    ).json()["access_token"]
    session.headers.update({"Authorization": f"Bearer {token}", "X-TENANT-ID": TENANT})
    products: list[dict[str, Any]] = []
    number, pages = 0, 1
    while number < pages:
        body = session.get(
            job.base_url + job.path, params={"pageNo": number, "pageSize": job.page_size}, timeout=60
        ).json()
        products += body["result"]
        number, pages = number + 1, body["pagination"]["totalPages"]
    return pandas.json_normalize(products)


def normalize(job: Job) -> dict[str, Any]:
    frame = normalize_frame(job)
    return {
        "rows": len(frame),
        "distinct": frame["productId"].nunique(),
        "daily": round(frame["limits.daily"].sum(), 2),
    }
