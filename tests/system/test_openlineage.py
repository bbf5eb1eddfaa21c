"""What OpenLineage is told by a task that Airflow runs; and that nobody misses it where it is not installed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text

from tests.connections import m2p_connection, sql_connection
from tests.system.own_airflow import OwnAirflow, own_airflow  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL

    from airflow_provider_m2p.sandbox.server import SandboxServer

pytestmark = pytest.mark.timeout(700)

DAG = """
import pendulum
from airflow.sdk import DAG
from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator

with DAG("m2p_load", start_date=pendulum.datetime(2026, 1, 1), schedule=None):
    M2PToSqlOperator(
        task_id="load", sql_conn_id="warehouse", table="products", child_tables=True, hash_columns=["productType"]
    )
"""
#: For the start of a Python: all that has to do with OpenLineage is not installed.
NOT_INSTALLED = """
import importlib.metadata, importlib_metadata, sys

class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "openlineage" or name.startswith("airflow.providers.openlineage"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing)
for metadata in (importlib.metadata, importlib_metadata):  # Airflow asks the one or the other
    installed = metadata.distributions
    metadata.distributions = lambda installed=installed, **of: (
        found for found in installed(**of) if "openlineage" not in found.metadata["Name"]
    )
"""


def load(airflow: OwnAirflow, sandbox: SandboxServer, sqlite_url: URL, **environment: str) -> list[dict[str, Any]]:
    """Run the DAG by Airflow's command line, and return the events that its task emitted."""
    (airflow.home / "dags").mkdir()
    (airflow.home / "dags" / "m2p_load.py").write_text(DAG)
    airflow.run(
        "airflow",
        *("dags", "test", "m2p_load"),
        AIRFLOW__CORE__DAGS_FOLDER=str(airflow.home / "dags"),
        AIRFLOW_CONN_M2P_DEFAULT=m2p_connection(sandbox.url),
        AIRFLOW_CONN_WAREHOUSE=sql_connection(sqlite_url),
        **environment,
    )
    engine = create_engine(sqlite_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM products")).scalar() == 250
    engine.dispose()
    lines = airflow.lineage.read_text().splitlines() if airflow.lineage.exists() else []
    return [event for event in map(json.loads, lines) if event["job"]["name"] == "m2p_load.load"]


def fields(dataset: dict[str, Any]) -> set[tuple[str, str]]:
    return {(field["name"], field["type"]) for field in dataset["facets"]["schema"]["fields"]}


def test_a_finished_load_tells_where_its_rows_came_from_and_went(
    own_airflow: OwnAirflow,  # noqa: F811
    sandbox: SandboxServer,
    sqlite_url: URL,
) -> None:
    events = load(own_airflow, sandbox, sqlite_url)
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"]
    (read,) = events[-1]["inputs"]
    assert read["namespace"] == f"m2p://{sandbox.url.removeprefix('http://')}"
    assert read["name"] == "ACME_CORP/v1/products"
    assert read["inputFacets"]["inputStatistics"]["rowCount"] == 250
    assert ("productId", "text") in fields(read)

    outputs = {output["name"].removeprefix(f"{sqlite_url.database}."): output for output in events[-1]["outputs"]}
    arrays = {field for product in sandbox.catalogue() for field, value in product.items() if isinstance(value, list)}
    assert "binRanges" in arrays
    assert {"products", "products__bin_ranges"} <= outputs.keys()
    assert len(outputs) == 1 + len(arrays)
    assert {output["namespace"] for output in outputs.values()} == {"sqlite"}
    written = outputs["products"]
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == 250
    assert ("product_id", "TEXT") in fields(written)
    columns = written["facets"]["columnLineage"]["fields"]
    (source,) = columns["limits__daily"]["inputFields"]
    assert (source["namespace"], source["name"], source["field"]) == (read["namespace"], read["name"], "limits.daily")
    masked = {name for name, of in columns.items() if of["inputFields"][0]["transformations"][0]["masking"]}
    assert masked == {"product_type"}


def test_without_it_nobody_hears_of_it(
    own_airflow: OwnAirflow,  # noqa: F811
    sandbox: SandboxServer,
    sqlite_url: URL,
    tmp_path: Path,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOT_INSTALLED)
    assert load(own_airflow, sandbox, sqlite_url, PYTHONPATH=str(tmp_path)) == []
    output = own_airflow.output.read_text()
    assert "Loaded 250 rows" in output
    assert "ineage" not in output
