"""dlt's REST source: as its documentation starts one, and with every documented option that made it faster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dlt
import requests
from dlt.destinations import postgres as postgres_destination
from dlt.sources.rest_api import rest_api_source

from benchmarks.job import CLIENT_ID, CLIENT_SECRET, TENANT, Job

# No calls home, and no looking into Airflow, which happens to be installed beside it, for every option.
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = os.environ["PROVIDERS__ENABLE_AIRFLOW_SECRETS"] = "false"


def _source(job: Job) -> Any:
    token = requests.post(
        f"{job.base_url}/auth/token",
        json={"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET, "grantType": "client_credentials"},
        timeout=60,
    ).json()["access_token"]
    return rest_api_source(
        {
            "client": {
                "base_url": job.base_url,
                "auth": {"type": "bearer", "token": token},
                "headers": {"X-TENANT-ID": TENANT},
                "paginator": {
                    "type": "page_number",
                    "base_page": 0,
                    "page_param": "pageNo",
                    "total_path": "pagination.totalPages",
                },
            },
            "resources": [
                {
                    "name": "products",
                    "primary_key": "productId",
                    "write_disposition": "merge",
                    "endpoint": {
                        "path": job.path.lstrip("/"),
                        "params": {"pageSize": job.page_size},
                        "data_selector": "result",
                    },
                }
            ],
        }
    )


def _run(job: Job, source: Any, **options: Any) -> None:
    name, _, host = job.database.rpartition("/bench_")[2].partition("?host=")
    pipeline = dlt.pipeline(
        pipeline_name="bench",
        pipelines_dir=str(Path(job.workdir) / "dlt"),
        # dlt wants a host and a password; libpq lets the query's host, a socket directory, win.
        destination=postgres_destination(f"postgresql://postgres:trust@localhost/bench_{name}?host={host}"),
        dataset_name="bench",
    )
    pipeline.run(source, **options).raise_on_failed_jobs()


def postgres(job: Job) -> None:
    _run(job, _source(job))


def postgres_tuned(job: Job) -> None:
    os.environ.update(
        {
            "EXTRACT__DATA_WRITER__BUFFER_MAX_ITEMS": "25000",
            "EXTRACT__DATA_WRITER__FILE_MAX_ITEMS": "25000",
            "NORMALIZE__DATA_WRITER__BUFFER_MAX_ITEMS": "25000",
            "NORMALIZE__WORKERS": "2",
            "NORMALIZE__DATA_WRITER__DISABLE_COMPRESSION": "true",
            "LOAD__WORKERS": "4",
        }
    )
    source = _source(job)
    source.max_table_nesting = 0
    source.products.apply_hints(write_disposition={"disposition": "merge", "strategy": "upsert"})
    _run(job, source, loader_file_format="csv")
