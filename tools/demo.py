"""
``make demo``: the product catalogue, loaded into a SQL table by a real Airflow DAG, and checked field by field.

Exit code 0 only if every field of every product stands in the table as the platform serves it, after both runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import re
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tools.local import CLIENT_ID, TENANT, airflow, airflow_environment, connections, fresh_home, running_sandbox
from tools.postgres import postgres_server
from tools.verify import Table, compare, read_table, served_products

DAG_ID = "m2p_products_sync"
TABLE = "m2p_products"
TIMEOUT_SECONDS = 180
SHOWN_COLUMNS = ("product_id", "product_type", "status", "issuance_fee", "limits__monthly", "created_at")
# A line of Airflow's log: time, level, text, logger.
LOG_LINE = re.compile(r"(?P<time>\S+T\S+)Z? \[(?P<level>\w+) *\] (?P<text>.*?) *\[(?P<logger>[\w.]+)\]")


class DemoError(Exception):
    """Something did not go as it should; the message says what and where to look."""


@dataclass
class Warehouse:
    """Where the demo loads to: what it is, how Airflow connects to it, and where the check reads."""

    name: str
    connection: dict[str, object]
    url: str

    def table(self) -> Table:
        """Return the loaded table as it stands."""
        return read_table(self.url, TABLE)


@contextlib.contextmanager
def sqlite_warehouse(home: Path) -> Iterator[Warehouse]:
    """Yield a SQLite file that stays for a look afterwards."""
    path = home / "warehouse.db"
    name = f"SQLite {sqlite3.sqlite_version}, {path.relative_to(home.parent)}"
    yield Warehouse(name, {"conn_type": "sqlite", "host": str(path)}, f"sqlite:///{path}")


@contextlib.contextmanager
def postgres_warehouse(home: Path) -> Iterator[Warehouse]:
    """Yield a real PostgreSQL, running for as long as the demo does."""
    with postgres_server() as port:
        conn = {"conn_type": "postgres", "host": "127.0.0.1", "port": port, "login": "postgres", "schema": "postgres"}
        yield Warehouse(f"PostgreSQL, 127.0.0.1:{port}", conn, f"postgresql://postgres@127.0.0.1:{port}/postgres")


def say(text: str = "") -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


def run_airflow(arguments: list[str], environment: dict[str, str], log: Path) -> None:
    """
    Run an ``airflow`` command. Everything goes into the log; what is ours, or a warning, is shown.

    :param arguments: the command's arguments.
    :param environment: its environment.
    :param log: file for the whole output.
    """
    say(f"$ airflow {' '.join(arguments)}")
    started = time.monotonic()
    with log.open("w") as copy:
        process = subprocess.Popen(
            airflow(*arguments), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                copy.write(line)
                found = LOG_LINE.match(line)
                if found and (found["level"] not in ("info", "debug") or "airflow_provider_m2p" in found["logger"]):
                    level = "" if found["level"] == "info" else f"{found['level'].upper()}: "
                    say(f"  {found['time'][11:19]}  {level}{found['text']}")
                if time.monotonic() - started > TIMEOUT_SECONDS:
                    break
            process.stdout.close()
            process.terminate()
        finally:
            process.wait()
    if "DagRun Finished" not in log.read_text() and arguments[0] == "dags":
        say(log.read_text()[-6000:])
    if process.returncode:
        raise DemoError(f"airflow {' '.join(arguments)} failed; its whole output is in {log}.")


def last_result(home: Path) -> dict[str, Any]:
    """Return what the load task of the last dag run returned: its XCom, from Airflow's metadata database."""
    with closing(sqlite3.connect(home / "airflow" / "airflow.db")) as connection:
        found = connection.execute(
            "SELECT value FROM xcom WHERE dag_id = ? AND key = 'return_value' ORDER BY timestamp DESC", [DAG_ID]
        ).fetchone()
    if found is None:
        raise DemoError("The load task returned nothing.")
    result: dict[str, Any] = json.loads(found[0])
    return result


def show_rows(table: Table, count: int = 5) -> None:
    """Print the first rows of a table, as far as they fit."""
    rows = [["" if row[name] is None else str(row[name]) for name in SHOWN_COLUMNS] for row in table.rows[:count]]
    widths = [max(map(len, column)) for column in zip(SHOWN_COLUMNS, *rows, strict=True)]
    for cells in (list(SHOWN_COLUMNS), ["-" * width for width in widths], *rows):
        say("  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def show_result(result: dict[str, Any]) -> None:
    """Print a load's result, its schema changes summed up."""
    changes = result["schema_changes"]
    shown = {**result, "schema_changes": f"<{len(changes)} columns added>" if len(changes) > 3 else changes}
    for name, value in shown.items():
        say(f"  {name:<15} {value}")


def check(base_url: str, warehouse: Warehouse, expected: dict[str, int], result: dict[str, Any]) -> None:
    """Compare table and platform, and the load's counts with what was done to the catalogue."""
    products = served_products(base_url, CLIENT_ID, f"{CLIENT_ID}-secret", TENANT)
    verdict = compare(products, warehouse.table(), TENANT)
    differences = [
        f"the load says {name}={result[name]}, not {count}" for name, count in expected.items() if result[name] != count
    ]
    differences += verdict.differences
    if differences:
        listed = "\n".join(f"  - {text}" for text in differences[:20])
        more = f"\n  ... and {len(differences) - 20} more" if len(differences) > 20 else ""
        raise DemoError(f"{TABLE} is not what the platform serves:\n{listed}{more}")
    say(
        f"  CHECKED: {len(products)} products served = {verdict.rows} rows; all {verdict.values:,} values in "
        f"{verdict.columns} columns equal, types included."
    )
    if verdict.marked_deleted:
        say(f"           {verdict.marked_deleted} more marked in _m2p_deleted_at: no longer on the platform.")


def evolve(base_url: str) -> dict[str, list[str]]:
    """Let the sandbox's catalogue change as in a day; return the ids of products added, changed and removed."""
    url = f"{base_url}/_sandbox/catalogue/{TENANT}/evolve"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=30) as answer:  # noqa: S310
        changes: dict[str, list[str]] = json.load(answer)
        return changes


def demo(home: Path, warehouse: Warehouse, base_url: str) -> None:
    """Load, check, let the catalogue change, load and check again."""
    environment = airflow_environment(home)
    for conn_id, connection in connections(base_url, warehouse.connection).items():
        environment[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(connection)
    versions = [("airflow-provider-m2p", "airflow-provider-m2p"), ("Airflow", "apache-airflow"), ("pandas", "pandas")]
    versions += [("SQLAlchemy", "sqlalchemy")]
    say("  ".join(f"{name} {version(package)}" for name, package in versions) + f"  Python {platform.python_version()}")
    say(f"Platform   the sandbox, {base_url}, tenant {TENANT}")
    say(f"Warehouse  {warehouse.name}")
    say()
    run_airflow(["db", "migrate"], environment, home / "migrate.log")

    say("\n1. The first load")
    run_airflow(["dags", "test", DAG_ID], environment, home / "first-run.log")
    result = last_result(home)
    say(f"\n  The first rows of {TABLE}:")
    show_rows(warehouse.table())
    say("\n  The task's result:")
    show_result(result)
    total = result["rows_read"]
    check(base_url, warehouse, {"inserted": total, "updated": 0, "unchanged": 0, "deleted": 0}, result)

    changes = evolve(base_url)
    counts = {name: len(ids) for name, ids in changes.items()}
    say(
        f"\n2. The catalogue changes ({counts['added']} products added, {counts['changed']} changed, "
        f"{counts['removed']} removed), the second load"
    )
    run_airflow(["dags", "test", DAG_ID], environment, home / "second-run.log")
    result = last_result(home)
    say("\n  The task's result:")
    show_result(result)
    untouched = total - counts["changed"] - counts["removed"]
    expected = {"inserted": counts["added"], "updated": counts["changed"], "unchanged": untouched}
    check(base_url, warehouse, {**expected, "deleted": counts["removed"]}, result)


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--warehouse", choices=["sqlite", "postgres"], default="sqlite")
    options = parser.parse_args()
    started = time.monotonic()
    home = fresh_home()
    warehouses = {"sqlite": sqlite_warehouse, "postgres": postgres_warehouse}
    try:
        with running_sandbox() as base_url, warehouses[options.warehouse](home) as warehouse:
            demo(home, warehouse, base_url)
    except DemoError as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    say(f"\nDone in {time.monotonic() - started:.0f} s. Airflow's whole log: .demo/*.log. In a browser: make ui")
    return 0


if __name__ == "__main__":
    sys.exit(main())
