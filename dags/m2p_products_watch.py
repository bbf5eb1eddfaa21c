"""
Load the product catalogue when it changes, not by the clock.

The triggerer looks at the list every five minutes. Once its content differs from what it saw before, the asset
``m2p_catalogue`` gets an event, and that starts this DAG. All watchers of a connection share one look. Connections:
``m2p_default`` and ``warehouse``.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator
from airflow_provider_m2p.triggers.m2p import M2PCatalogueTrigger

CATALOGUE = Asset(
    "m2p_catalogue",
    watchers=[
        AssetWatcher(name="m2p_catalogue", trigger=M2PCatalogueTrigger("m2p_default", poll_interval=300)),
    ],
)

with DAG(
    dag_id="m2p_products_watch",
    description="M2P product catalogue to the warehouse, whenever it changes",
    doc_md=__doc__,
    schedule=[CATALOGUE],
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
        table="m2p_products_watched",
        write_mode="upsert",
    )
