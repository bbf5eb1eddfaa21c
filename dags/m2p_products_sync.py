"""
Keep a warehouse table in step with the product catalogue of the M2P Prepaid Platform.

Connections: ``m2p_default`` (type *M2P*) and ``warehouse`` (any SQL database that Airflow has a hook for).
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Asset

from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator

PRODUCTS = Asset("m2p_products")

with DAG(
    dag_id="m2p_products_sync",
    description="M2P product catalogue to the warehouse, every hour",
    doc_md=__doc__,
    schedule="@hourly",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2), "retry_exponential_backoff": True},
    tags=["m2p", "example"],
):
    M2PToSqlOperator(
        task_id="load_products",
        m2p_conn_id="m2p_default",
        sql_conn_id="warehouse",
        table="m2p_products",
        write_mode="upsert",
        outlets=[PRODUCTS],
    )
