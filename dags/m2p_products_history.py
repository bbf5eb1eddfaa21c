"""
Keep every state the products ever had (SCD type 2), and tell the DAGs that analyse them.

``m2p_products_history`` has a row per product and state: ``_m2p_valid_from`` inclusive, ``_m2p_valid_to`` exclusive,
null for the current one. The asset of the same name gets an event only if something changed; ``m2p_products_analytics``
waits for it. Connections: ``m2p_default`` and ``warehouse``.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Asset

from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator

HISTORY = Asset("m2p_products_history")

with DAG(
    dag_id="m2p_products_history",
    description="M2P product catalogue with its history to the warehouse, every hour",
    doc_md=__doc__,
    schedule="@hourly",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2), "retry_exponential_backoff": True},
    tags=["m2p", "example"],
):
    M2PToSqlOperator(
        task_id="load_history",
        m2p_conn_id="m2p_default",
        sql_conn_id="warehouse",
        table="m2p_products_history",
        write_mode="history",
        if_unchanged="quiet",
        outlets=[HISTORY],
    )
