"""
Tell the team in time that an M2P client secret is due for rotation.

The platform asks for new credentials every 90 days. From day 80 on, the task of a connection whose
``credentials_issued_on`` is that old fails every day, so whatever tells you about failed tasks tells you about the
secret: a callback in ``default_args``, e-mail, or the grid. Nothing is sent to the platform. To watch more connections,
name them in ``CONNECTIONS``. Connections: those in ``CONNECTIONS``.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_m2p.hooks.m2p import M2PHook

CONNECTIONS = ["m2p_default", "m2p_globex"]


@task(map_index_template="{{ conn_id }}")
def check_age(conn_id: str) -> None:
    """Fail if the secret is due within ten days."""
    if reminder := M2PHook(conn_id).rotation_reminder():
        raise AirflowFailException(reminder)


with DAG(
    dag_id="m2p_credentials_rotation",
    description="Fails from day 80 of 90 of an M2P client secret, every day",
    doc_md=__doc__,
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"on_failure_callback": []},  # name here whatever tells your team
    tags=["m2p", "example"],
):
    check_age.expand(conn_id=CONNECTIONS)
