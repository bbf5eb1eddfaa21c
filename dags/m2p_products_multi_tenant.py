"""
Load the product catalogues of several tenants into one table, one mapped task per tenant.

Each tenant has its own M2P connection, with its own client id and secret; rows carry ``_m2p_tenant_id``.
To add a tenant, create its connection and name it in ``TENANTS``. Connections: those in ``TENANTS`` and
``warehouse``.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG

from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator

TENANTS = ["m2p_default", "m2p_globex"]

with DAG(
    dag_id="m2p_products_multi_tenant",
    description="M2P product catalogues of several tenants into one table, every day",
    doc_md=__doc__,
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2), "retry_exponential_backoff": True},
    tags=["m2p", "example"],
):
    M2PToSqlOperator.partial(
        task_id="load_products",
        sql_conn_id="warehouse",
        table="m2p_products_all_tenants",
        map_index_template="{{ task.m2p_conn_id }}",
    ).expand(m2p_conn_id=TENANTS)
