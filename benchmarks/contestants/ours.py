"""Our loader, as plain Python uses it: a client, an engine, a load specification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine

from airflow_provider_m2p.client import M2PClient
from airflow_provider_m2p.client.settings import ClientSettings
from airflow_provider_m2p.warehouse import Loader
from airflow_provider_m2p.warehouse.spec import LoadSpec
from benchmarks.job import CLIENT_ID, CLIENT_SECRET, TENANT, Job

if TYPE_CHECKING:
    from sqlalchemy import Engine


def client(job: Job) -> M2PClient:
    return M2PClient(
        ClientSettings.from_connection(
            conn_id="m2p_default",
            host=job.base_url,
            port=None,
            schema=None,
            login=CLIENT_ID,
            password=CLIENT_SECRET,
            extra={
                "tenant_id": TENANT,
                "products_path": job.path,
                "page_size": job.page_size,
                "max_concurrency": job.in_flight,
                "token_cache": "off",
            },
        )
    )


def load(job: Job, engine: Engine) -> dict[str, Any]:
    spec = LoadSpec(table="products", tenant_id=TENANT, load_id=f"bench-{job.path.strip('/').replace('/', '-')}")
    with client(job) as m2p:
        result = Loader(engine, spec).run(m2p.pages()).as_dict()
    return {name: result[name] for name in ("pages", "rows_read", "inserted", "updated", "unchanged", "deleted")}


def sqlite(job: Job) -> dict[str, Any]:
    return load(job, create_engine(f"sqlite:///{job.database}"))
