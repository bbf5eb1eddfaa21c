"""
Client secrets, tokens and customers' values are in nothing that Airflow keeps, prints or sends.

secrets_run.py does the work, in a process that writes into one folder; all of that is searched.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cryptography.fernet import Fernet

from tests.system.own_airflow import OwnAirflow, own_airflow  # noqa: F401 - a fixture

pytestmark = pytest.mark.timeout(700)


class Traces:
    """
    All that is in a folder.

    :param home: the folder: each file as bytes, each row of each SQLite table, and Parquet as text.
    """

    def __init__(self, home: Path) -> None:
        self.places: dict[str, bytes] = {}
        for path in (path for path in home.rglob("*") if path.is_file()):
            name = str(path.relative_to(home))
            self.places[name] = path.read_bytes()
            if path.suffix == ".db":
                self._add_tables(name, path)
            if path.suffix == ".parquet":
                self.places[f"{name} rows"] = pd.read_parquet(path).to_csv().encode()

    def _add_tables(self, name: str, path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.text_factory = bytes
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                rows = connection.execute(f'SELECT * FROM "{table.decode()}"').fetchall()
                self.places[f"{name} {table.decode()}"] = b"\n".join(_cell(cell) for row in rows for cell in row)

    def where(self, *needles: str) -> list[str]:
        """Return the places that hold one of them."""
        return sorted({name for name, text in self.places.items() if any(needle.encode() in text for needle in needles)})


def _cell(cell: Any) -> bytes:
    return cell if isinstance(cell, bytes) else str(cell).encode()


def parts(secret: str) -> list[str]:
    """Return the halves of a secret: whatever is written between them, JSON and URLs spell in their own ways."""
    return [secret[:24], secret[-24:]]


def test_nothing_holds_a_secret(own_airflow: OwnAirflow, tmp_path: Path) -> None:  # noqa: F811
    own_airflow.run(
        "tests.system.secrets_run",
        str(tmp_path / "needles"),
        AIRFLOW__CORE__DAGS_FOLDER=str(own_airflow.home / "dags"),
        AIRFLOW__CORE__FERNET_KEY=Fernet.generate_key().decode(),
        AIRFLOW__CORE__TEST_CONNECTION="Enabled",
        # Not all of Airflow: at DEBUG, dag.test() prints what it is asked to mask.
        AIRFLOW__LOGGING__NAMESPACE_LEVELS="airflow_provider_m2p=DEBUG urllib3=DEBUG",
        AIRFLOW__OPENLINEAGE__INCLUDE_FULL_TASK_INFO="True",
    )
    needles = json.loads((tmp_path / "needles").read_text())
    traces = Traces(own_airflow.home)

    # It looks where there is something to find.
    told = traces.where("ACME_CORP", "m2p_default")
    tables = ("xcom", "asset_event", "hitl_detail", "rendered_task_instance_fields", "serialized_dag", "task_instance")
    files = ("lineage.json", "output", "said.txt", "spans.json", "warehouse.db _m2p_loads", "warehouse.db m2p_products")
    assert {*files, *(f"airflow.db {table}" for table in tables)} - {*told} == set()
    assert [name for name in traces.places if name.endswith(".token")]
    assert "INITECH" in traces.places["warehouse.db m2p_private"].decode()
    assert len(needles["tokens"]) >= 10

    secrets = [part for secret in needles["secrets"] for part in parts(secret)]
    assert traces.where(*secrets) == []
    tokens = {part for token in needles["tokens"] for part in (*token.split("."), token[-40:], token[:40])}
    assert traces.where(*tokens) == []
    assert traces.where(*needles["private"]) == []
    loaded = traces.where(needles["loaded"])
    assert loaded
    assert [name for name in loaded if not name.startswith(("warehouse.db", "private.parquet"))] == []

    # It finds what there is.
    with closing(sqlite3.connect(own_airflow.home / "airflow.db")) as connection, connection:
        connection.execute("UPDATE dag_run SET conf = ?", (json.dumps({"x": needles["secrets"][0]}),))
    (own_airflow.home / "tmp" / "stage").write_text(f"Bearer {needles['tokens'][0]}")
    traces = Traces(own_airflow.home)
    assert "airflow.db dag_run" in traces.where(*secrets)
    assert traces.where(*tokens) == ["tmp/stage"]
