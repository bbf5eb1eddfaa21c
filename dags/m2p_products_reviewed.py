"""
Load products only if the change is small, or if a person says so.

1. ``stage_products`` reads the platform and stages the rows; the table stays as it is. Its result is a plan: exactly
   what publishing will do, counted, without values.
2. ``is_small`` compares the plan with ``MOST_CHANGED`` and ``MOST_DELETED``. Small changes go to ``publish_small``.
3. Anything else, also the first load and every change of columns, waits in ``ask_a_checker`` (*Required Actions* in the
   UI), for ``PATIENCE`` at most. Only the users in ``CHECKERS`` may answer, and ``other_person`` refuses the answer
   of whoever triggered the run: nobody approves their own load. Scheduled runs have no maker among the users.
4. *Approve* publishes the plan; if the table was loaded since, or the load was staged again, nothing is written and the
   run fails. *Reject* ends the run without a load. No answer in time fails the run.
5. ``discard`` removes what was staged, whatever happened before it.

Replace ``CHECKERS`` by the ids and names of your users. Not for MySQL, which cannot rehearse a change of columns.
Connections: ``m2p_default`` and ``warehouse``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Asset, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_m2p.operators.m2p import M2PPublishLoadOperator
from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator

PRODUCTS = Asset("m2p_products_reviewed")
CHECKERS = [{"id": "checker", "name": "checker"}, {"id": "admin", "name": "admin"}]
PATIENCE = timedelta(days=1)
MOST_CHANGED = 0.05
MOST_DELETED = 10

PLAN = """
{%- set plan = ti.xcom_pull(task_ids='stage_products') -%}
Tenant **{{ plan.tenant_id }}**, table **{{ plan.table }}**, {{ plan.rows_read }} rows read, plan `{{ plan.plan_id }}`.

| inserted | updated | unchanged | deleted |
|---|---|---|---|
| {{ plan.inserted }} | {{ plan.updated }} | {{ plan.unchanged }} | {{ plan.deleted }} |

{% for column, rows in plan.changed_columns.items() -%}
- `{{ column }}` changes in {{ rows }} rows
{% endfor -%}
{% for change in plan.schema_changes -%}
- {{ change.change }} column `{{ change.column }}`
{% endfor %}
"""


@task.branch
def is_small(plan: dict[str, Any], ti: Any = None) -> str:
    """Choose who decides on the plan."""
    ti.xcom_push("plan_id", plan["plan_id"])
    changed = plan["inserted"] + plan["updated"] + plan["deleted"]
    small = (
        not plan["schema_changes"] and plan["deleted"] <= MOST_DELETED and changed <= MOST_CHANGED * plan["rows_read"]
    )
    return "publish_small" if small else "ask_a_checker"


def remember_plan(context: Any) -> None:
    """Keep which plan the question is about: the load may be staged again while it waits for an answer, or later."""
    ti = context["ti"]
    if ti.xcom_pull(task_ids=ti.task_id, key="plan_id") is None:  # else this is the answer
        ti.xcom_push("plan_id", ti.xcom_pull(task_ids="stage_products")["plan_id"])


@task
def other_person(answer: dict[str, Any], dag_run: Any = None) -> None:
    """Refuse an approval by the maker."""
    checker, maker = answer["responded_by_user"], dag_run.triggering_user_name
    if checker is None or maker in (checker["id"], checker["name"]):
        raise AirflowFailException(f"{maker} triggered this run, so somebody else has to approve it.")


with DAG(
    dag_id="m2p_products_reviewed",
    description="M2P product catalogue to the warehouse; large changes wait for a second person",
    doc_md=__doc__,
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2), "retry_exponential_backoff": True},
    tags=["m2p", "example"],
):
    stage = M2PToSqlOperator(
        task_id="stage_products",
        m2p_conn_id="m2p_default",
        sql_conn_id="warehouse",
        table="m2p_products_reviewed",
        max_delete_ratio=1,  # a person decides
        publish=False,
    )
    ask = ApprovalOperator(
        task_id="ask_a_checker",
        subject="Publish the products of {{ ti.xcom_pull(task_ids='stage_products')['tenant_id'] }}?",
        body=PLAN,
        assigned_users=CHECKERS,
        response_timeout=PATIENCE,
        pre_execute=remember_plan,
        retries=0,
    )
    load = {
        "sql_conn_id": "warehouse",
        "load_id": "{{ ti.xcom_pull(task_ids='stage_products')['load_id'] }}",
    }
    decided = "{{{{ ti.xcom_pull('{}', key='plan_id') }}}}"  # by the task of this name
    publish_small = M2PPublishLoadOperator(
        task_id="publish_small", plan_id=decided.format("is_small"), outlets=[PRODUCTS], **load
    )
    publish_approved = M2PPublishLoadOperator(
        task_id="publish_approved", plan_id=decided.format("ask_a_checker"), outlets=[PRODUCTS], **load
    )
    discard = M2PPublishLoadOperator(task_id="discard", action="discard", **load)

    is_small(stage.output) >> [publish_small, ask]
    other_person(ask.output) >> publish_approved
    # A teardown runs whatever happened, and does not hide it. Not with setups=stage: clearing a task would stage anew.
    [publish_small, publish_approved] >> discard.as_teardown()
