"""
Take the product catalogue as a pandas DataFrame, transform it in Python, load the outcome.

For catalogues of up to ``max_rows`` products: the DataFrames travel through XCom. Connections:
``m2p_default`` and ``warehouse``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pendulum
from airflow.sdk import DAG, BaseHook, task

from airflow_provider_m2p.operators.m2p import M2PExtractProductsOperator

if TYPE_CHECKING:
    import pandas as pd


@task
def count_by_type(products: pd.DataFrame) -> pd.DataFrame:
    """Count the products of each type and status."""
    counts = products.groupby(["product_type", "status"], dropna=False).size()
    return counts.rename("products").reset_index()


@task
def load(counts: pd.DataFrame, table: str) -> int:
    """Replace the table with the counts."""
    engine = BaseHook.get_connection("warehouse").get_hook().get_sqlalchemy_engine()
    try:
        counts.to_sql(table, engine, if_exists="replace", index=False)
    finally:
        engine.dispose()
    return len(counts)


with DAG(
    dag_id="m2p_products_dataframe",
    description="M2P product catalogue as a DataFrame: extract, transform, load",
    doc_md=__doc__,
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2), "retry_exponential_backoff": True},
    tags=["m2p", "example"],
):
    products = M2PExtractProductsOperator(task_id="extract_products", m2p_conn_id="m2p_default")
    load(count_by_type(products.output), table="m2p_products_by_type")
