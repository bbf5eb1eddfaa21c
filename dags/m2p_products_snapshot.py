"""
The products as they were at the logical date, safe to backfill.

The platform tells only how products are now, so a snapshot that reads it would store today's products under
yesterday's date as soon as somebody clears or backfills a run. This one asks the history that ``m2p_products_history``
keeps instead: the same logical date gives the same rows, however often and in whatever order it runs. Dates before the
history begins fail, and store nothing. Give the snapshot of a day time until the load before it has ended, as the
schedule here does. Connections: ``warehouse``.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.providers.common.sql.operators.sql import SQLCheckOperator, SQLExecuteQueryOperator
from airflow.sdk import DAG


def midnight(logical_date: pendulum.DateTime) -> str:
    """Return the instant of the snapshot: PostgreSQL reads it as one, SQLite compares it as text."""
    return logical_date.in_timezone("UTC").start_of("day").strftime("%Y-%m-%d %H:%M:%S.%f+00")


with DAG(
    dag_id="m2p_products_snapshot",
    description="M2P products as they were at each midnight, from their history",
    doc_md=__doc__,
    schedule="0 2 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2)},
    user_defined_macros={"midnight": midnight},
    tags=["m2p", "example"],
):
    reaches_back = SQLCheckOperator(
        task_id="history_reaches_back",
        conn_id="warehouse",
        sql="SELECT COUNT(*) FROM m2p_products_history WHERE _m2p_valid_from <= '{{ midnight(logical_date) }}'",
        retries=0,
    )
    take_snapshot = SQLExecuteQueryOperator(
        task_id="take_snapshot",
        conn_id="warehouse",
        sql=[
            """
            CREATE TABLE IF NOT EXISTS m2p_products_snapshots (
                day date NOT NULL,
                tenant_id text NOT NULL,
                product_id text NOT NULL,
                product_type text,
                status text,
                PRIMARY KEY (day, tenant_id, product_id)
            )
            """,
            "DELETE FROM m2p_products_snapshots WHERE day = '{{ midnight(logical_date)[:10] }}'",
            """
            INSERT INTO m2p_products_snapshots
            SELECT '{{ midnight(logical_date)[:10] }}', _m2p_tenant_id, product_id, product_type, status
            FROM m2p_products_history
            WHERE _m2p_valid_from <= '{{ midnight(logical_date) }}'
                AND (_m2p_valid_to IS NULL OR _m2p_valid_to > '{{ midnight(logical_date) }}')
            """,
        ],
    )
    reaches_back >> take_snapshot
