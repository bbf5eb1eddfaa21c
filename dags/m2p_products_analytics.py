"""
How often does each product change? Answered anew whenever the history of the products has changed.

Runs on the asset that ``m2p_products_history`` updates, and writes ``m2p_product_changes``: a row per product, in one
transaction. Connections: ``warehouse``.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import DAG, Asset

with DAG(
    dag_id="m2p_products_analytics",
    description="How often M2P products change, after every change of their history",
    doc_md=__doc__,
    schedule=[Asset("m2p_products_history")],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2)},
    tags=["m2p", "example"],
):
    SQLExecuteQueryOperator(
        task_id="count_changes",
        conn_id="warehouse",
        sql=[
            """
            CREATE TABLE IF NOT EXISTS m2p_product_changes (
                tenant_id text NOT NULL,
                product_id text NOT NULL,
                changes bigint NOT NULL,
                is_current boolean NOT NULL,
                PRIMARY KEY (tenant_id, product_id)
            )
            """,
            "DELETE FROM m2p_product_changes",
            """
            INSERT INTO m2p_product_changes
            SELECT _m2p_tenant_id, product_id, COUNT(*) - 1, COUNT(*) > COUNT(_m2p_valid_to)
            FROM m2p_products_history
            GROUP BY _m2p_tenant_id, product_id
            """,
        ],
    )
