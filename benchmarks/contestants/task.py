"""What an Airflow task process holds in memory before a load: the imports, the hook and the connection."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import airflow.sdk
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.sdk import DAG, BaseHook, BaseOperator
from sqlalchemy import text

from benchmarks.job import Job

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["DAG", "BaseOperator", "DbApiHook", "airflow"]


def engine(job: Job) -> Engine:
    name, _, host = job.database.rpartition("/bench_")[2].partition("?host=")
    os.environ["AIRFLOW_CONN_WAREHOUSE"] = json.dumps(
        {"conn_type": "postgres", "host": host, "login": "postgres", "schema": f"bench_{name}"}
    )
    made: Engine = BaseHook.get_connection("warehouse").get_hook().get_sqlalchemy_engine()
    with made.connect() as connection:
        connection.execute(text("select 1"))
    return made


def bare(job: Job) -> None:
    engine(job)
