"""Who takes part. A contestant is a function of a module here, imported only in the process that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """
    :param title: what the tables call it.
    :param function: ``module.function``, called with the ``Job``.
    :param database: ``postgres``, ``sqlite``, or empty for none.
    :param peer: runs with the peers' Python instead of our own.
    :param table: where it leaves its rows.
    :param product_id: SQL for a row's product id.
    :param daily: SQL for ``limits.daily`` as a number.
    :param reloads: takes part in the second load, of a list that changed a little.
    """

    title: str
    function: str
    database: str = ""
    peer: bool = False
    table: str = "products"
    product_id: str = "product_id"
    daily: str = "limits__daily"
    reloads: bool = False


_PG_JSON = "(limits->>'daily')::numeric"
_LITE_JSON = "json_extract(limits, '$.daily')"


def _postgres(title: str, function: str, **more: Any) -> Contestant:
    return Contestant(title=title, function=function, database="postgres", **more)


def _sqlite(title: str, function: str, **more: Any) -> Contestant:
    return Contestant(title=title, function=function, database="sqlite", **more)


CONTESTANTS: dict[str, Contestant] = {
    "limit-postgres": _postgres(
        "the limit: known columns, COPY, ON CONFLICT", "limit.postgres", daily=_PG_JSON, reloads=True
    ),
    "ours-psycopg3": _postgres("ours, psycopg 3", "ours_postgres.by_psycopg3", reloads=True),
    "ours-psycopg2": _postgres("ours, psycopg2", "ours_postgres.by_psycopg2", reloads=True),
    "airflow-postgres": _postgres(
        "Airflow: HttpOperator + insert_rows(replace)",
        "airflow_own.postgres",
        peer=True,
        daily=_PG_JSON,
        reloads=True,
    ),
    "dlt-postgres-tuned": _postgres(
        "dlt rest_api, tuned, no nested tables",
        "dlt_rest.postgres_tuned",
        peer=True,
        table="bench.products",
        daily=_PG_JSON,
        reloads=True,
    ),
    "dlt-postgres": _postgres("dlt rest_api, defaults", "dlt_rest.postgres", peer=True, table="bench.products"),
    "to_sql-postgres": _postgres(
        "requests, json_normalize, to_sql (append)",
        "to_sql.postgres",
        peer=True,
        product_id='"productId"',
        daily='"limits.daily"',
    ),
    "limit-sqlite": _sqlite(
        "the limit: known columns, executemany in one transaction", "limit.sqlite", daily=_LITE_JSON, reloads=True
    ),
    "by-hand-sqlite": _sqlite("by hand: our columns and hash, nothing else", "by_hand.sqlite", reloads=True),
    "by-hand-sqlite-staged": _sqlite("by hand: the same, staged, two hashes", "by_hand.sqlite_staged", reloads=True),
    "ours-sqlite": _sqlite("ours", "ours.sqlite", reloads=True),
    "airflow-sqlite": _sqlite(
        "Airflow: HttpOperator + insert_rows(replace)", "airflow_own.sqlite", peer=True, daily=_LITE_JSON
    ),
    "airflow-sqlite-fast": _sqlite(
        "Airflow: the same with executemany=True",
        "airflow_own.sqlite_fast",
        peer=True,
        daily=_LITE_JSON,
        reloads=True,
    ),
    "to_sql-sqlite": _sqlite(
        "requests, json_normalize, to_sql (append)",
        "to_sql.sqlite",
        peer=True,
        product_id='"productId"',
        daily='"limits.daily"',
    ),
    "frame-ours": Contestant(title="ours: to_dataframe", function="ours_frame.frame"),
    "frame-by-hand": Contestant(title="by hand: known fields, nothing checked", function="by_hand.frame"),
    "frame-json_normalize": Contestant(title="requests, json_normalize", function="frames.normalize"),
    # What a task process needs without a load in it, and with one.
    "task-bare": _postgres("a bare Airflow task process", "task.bare"),
    "task-ours": _postgres("the same, with our load", "task_ours.run"),
}
