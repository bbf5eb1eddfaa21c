"""
The same connection said in three ways, each loaded into a table of its own.

Connections: ``m2p_rest``, ``m2p_json``, ``m2p_uri`` and ``warehouse``.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator

with DAG("m2p_each_way", schedule=None):
    M2PToSqlOperator.partial(task_id="load", sql_conn_id="warehouse").expand_kwargs(
        [{"m2p_conn_id": conn_id, "table": conn_id} for conn_id in ("m2p_rest", "m2p_json", "m2p_uri")]
    )
