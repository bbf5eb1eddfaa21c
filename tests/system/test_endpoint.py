"""The example of docs/endpoints.md in a DAG: another list than the products, without personal data."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

import pytest
from airflow.dag_processing.dagbag import DagBag
from sqlalchemy import MetaData, select

from airflow_provider_m2p.sandbox.issuances import issuance_rows
from tests.system.conftest import xcom

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from airflow_provider_m2p.sandbox.server import SandboxServer
    from tests.system.conftest import RunDag

GUIDE = Path(__file__).parents[2] / "docs" / "endpoints.md"
DAG = """
import pendulum
from airflow.sdk import DAG

with DAG("m2p_issuances", start_date=pendulum.datetime(2026, 1, 1), schedule=None):
"""


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_the_documented_example(
    run_dag: RunDag,
    dagbag: DagBag,
    sandbox: SandboxServer,
    warehouse: Engine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    example = re.search("```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert example
    dag_file = tmp_path / "dags" / "m2p_issuances.py"
    dag_file.parent.mkdir()
    dag_file.write_text(DAG + indent(example[1], "    "))

    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(dag_file.parent))
    monkeypatch.setitem(dagbag.dags, "m2p_issuances", DagBag(dag_file).dags["m2p_issuances"])

    run = run_dag("m2p_issuances")
    assert run.state == "success"
    settings = sandbox.platform.settings
    sent = [json.loads(row) for row in issuance_rows(settings.seed, "ACME_CORP", settings.products, "APPROVED")]
    assert xcom(run, "load_issuances")["inserted"] == len(sent) > 20

    metadata = MetaData()
    metadata.reflect(warehouse, only=["m2p_issuances"])
    columns = metadata.tables["m2p_issuances"].columns
    assert "remarks" not in columns
    with warehouse.connect() as connection:
        loaded = connection.execute(
            select(columns["application_number"], columns["corporate__corporate_id"], columns["no_of_cards"])
        )
        assert {tuple(row) for row in loaded} == {
            (row["applicationNumber"], pseudonym(row["corporate"]["corporateId"]), row["noOfCards"]) for row in sent
        }


def pseudonym(value: str) -> str:
    return sha256(f"ACME_CORP\0{value}".encode()).hexdigest()
