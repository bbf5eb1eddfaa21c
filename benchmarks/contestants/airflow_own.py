"""
Airflow's own parts, as its documentation puts them together: HttpOperator with a pagination function, then the SQL
hook's ``insert_rows(replace=True)`` into a table made by hand. No scheduler: operator and hook run in this process.
"""

from __future__ import annotations

import json
import os
from typing import Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import BaseHook

from benchmarks.contestants.limit import COLUMNS
from benchmarks.job import CLIENT_ID, CLIENT_SECRET, TENANT, Job

_NAMES = [column for _, column, _ in COLUMNS]


def _connections(job: Job, warehouse: dict[str, Any]) -> None:
    os.environ["AIRFLOW_CONN_M2P_HTTP"] = json.dumps({"conn_type": "http", "host": job.base_url})
    os.environ["AIRFLOW_CONN_WAREHOUSE"] = json.dumps(warehouse)


def _rows(job: Job) -> list[tuple[Any, ...]]:
    """Return every product as a tuple of the known columns; a page is parsed once, when the next is asked for."""
    token = HttpOperator(
        task_id="token",
        http_conn_id="m2p_http",
        endpoint="auth/token",
        headers={"Content-Type": "application/json"},
        data=json.dumps({"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET, "grantType": "client_credentials"}),
        response_filter=lambda response: response.json()["access_token"],
    ).execute({})
    products: list[dict[str, Any]] = []

    def next_page(response: Any) -> dict[str, Any] | None:
        body = response.json()
        products.extend(body["result"])
        number = body["pagination"]["pageNo"] + 1
        return {"data": {"pageNo": number}} if number < body["pagination"]["totalPages"] else None

    HttpOperator(
        task_id="products",
        http_conn_id="m2p_http",
        method="GET",
        endpoint=job.path,
        headers={"Authorization": f"Bearer {token}", "X-TENANT-ID": TENANT},
        data={"pageNo": 0, "pageSize": job.page_size},
        pagination_function=next_page,
        response_filter=lambda responses: None,
    ).execute({})
    return [
        tuple(json.dumps(product[field]) if kind == "json" else product[field] for field, _, kind in COLUMNS)
        for product in products
    ]


def _load(rows: list[tuple[Any, ...]], **options: Any) -> None:
    hook = BaseHook.get_connection("warehouse").get_hook()
    definition = ", ".join(f"{column} {kind}" for _, column, kind in COLUMNS)
    hook.run(f"create table if not exists products ({definition}, primary key (product_id))")
    hook.insert_rows("products", rows, target_fields=_NAMES, replace=True, replace_index="product_id", **options)


def _postgres_connection(job: Job) -> dict[str, Any]:
    name, _, host = job.database.rpartition("/bench_")[2].partition("?host=")
    return {"conn_type": "postgres", "host": host, "login": "postgres", "schema": f"bench_{name}"}


def postgres(job: Job) -> None:
    _connections(job, _postgres_connection(job))
    _load(_rows(job))


def sqlite(job: Job) -> None:
    _connections(job, {"conn_type": "sqlite", "host": job.database})
    _load(_rows(job))


def sqlite_fast(job: Job) -> None:
    _connections(job, {"conn_type": "sqlite", "host": job.database})
    _load(_rows(job), executemany=True)
