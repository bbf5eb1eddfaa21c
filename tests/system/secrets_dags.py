"""DAGs that load, review and extract personal data; see secrets_run.py."""

from __future__ import annotations

import os
from typing import Any

import pendulum
from airflow.sdk import DAG

from airflow_provider_m2p.operators.m2p import M2PExtractProductsOperator, M2PPublishLoadOperator
from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator

PRIVATE: dict[str, Any] = {
    "m2p_conn_id": "m2p_private",
    "exclude_columns": ["holder.mobile", "cards.number"],
    "hash_columns": ["holder.name"],
}
LOAD = {"sql_conn_id": "warehouse", **PRIVATE}

with DAG("private", start_date=pendulum.datetime(2026, 1, 1), schedule=None):
    (
        M2PToSqlOperator(task_id="load", table="m2p_private", child_tables=True, **LOAD)
        >> M2PToSqlOperator(task_id="stage", table="m2p_private_reviewed", publish=False, **LOAD)
        >> M2PPublishLoadOperator(
            task_id="publish", sql_conn_id="warehouse", load_id="{{ ti.xcom_pull('stage')['load_id'] }}"
        )
        >> M2PExtractProductsOperator(
            task_id="extract", output_path=f"file://{os.environ['AIRFLOW_HOME']}/private.parquet", **PRIVATE
        )
    )

with DAG("private_refused", start_date=pendulum.datetime(2026, 1, 1), schedule=None):
    M2PToSqlOperator(task_id="load", table="refused", **{**LOAD, "key_columns": ["holder.city"]})
