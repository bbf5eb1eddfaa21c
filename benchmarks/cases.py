"""What is measured. Each case runs its contestants in turns, round after round, and keeps every outcome by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from benchmarks import catalogue
from benchmarks.contestants import CONTESTANTS
from benchmarks.harness import ROOT, Bench, Outcome, Series

LATENCY_MS = 50
SCALE_ROWS = (10_000, 100_000, 1_000_000)
_WARM_UP_ROWS = 2_000
_IMPORTS = 11


@dataclass
class Results:
    """
    :param series: the runs, by ``(case, contestant, variant)``.
    :param imports: milliseconds and modules of what a DAG file imports, by name.
    """

    rows: int
    runs: int
    series: dict[tuple[str, str, str], Series] = field(default_factory=dict)
    imports: dict[str, Any] = field(default_factory=dict)

    def add(self, case: str, name: str, variant: str, outcome: Outcome) -> None:
        self.series.setdefault((case, name, variant), Series()).outcomes.append(outcome)
        said = outcome.error or f"{outcome.seconds:.2f} s, {outcome.cpu:.2f} s CPU, {outcome.peak_mb:.0f} MB"
        print(f"  {case:<9} {name:<22} {variant:<10} {said}", flush=True)

    def of(self, case: str, name: str, variant: str = "first") -> Series | None:
        """Return the runs of a contestant if there are any and all of them succeeded."""
        series = self.series.get((case, name, variant))
        return None if series is None or series.error else series

    def median(self, case: str, name: str, variant: str = "first", what: str = "seconds") -> float | None:
        series = self.of(case, name, variant)
        return None if series is None else series.median(what)

    def failed(self, case: str, name: str) -> bool:
        return any(series.error for (c, n, _), series in self.series.items() if (c, n) == (case, name))


def _warm_up(bench: Bench, names: list[str]) -> None:
    """Run everyone once, unmeasured: compiled bytecode, PostgreSQL's log segments, the server's pages."""
    for name in names:
        kind = CONTESTANTS[name].database
        database = bench.fresh_database(kind)
        bench.run(name, rows=_WARM_UP_ROWS, database=database)
        bench.drop_database(kind, database)


def loads(bench: Bench, results: Results, case: str, names: list[str]) -> None:
    """Load everything into an empty database; then again, with one product in 1,000 changed."""
    bench.warm_up(results.rows)
    _warm_up(bench, names)
    for _ in range(results.runs):
        for name in names:
            if results.failed(case, name):
                continue
            contestant = CONTESTANTS[name]
            database = bench.fresh_database(contestant.database)
            first = bench.run(name, rows=results.rows, database=database)
            results.add(case, name, "first", first)
            if contestant.reloads and first.error is None:
                again = bench.run(name, rows=results.rows, database=database, changed=True)
                results.add(case, name, "again", again)
            bench.drop_database(contestant.database, database)


def latency(bench: Bench, results: Results) -> None:
    """Load from a server that takes its time for every page, and from one that does not, in turns."""
    bench.warm_up(results.rows)
    variants = [
        ("limit-postgres", 0, 8),
        ("limit-postgres", LATENCY_MS, 8),
        ("ours-psycopg3", 0, 8),
        ("ours-psycopg3", LATENCY_MS, 8),
        ("ours-psycopg3", 0, 4),
        ("ours-psycopg3", LATENCY_MS, 4),
        ("ours-psycopg3", 0, 16),
        ("ours-psycopg3", LATENCY_MS, 16),
        ("dlt-postgres-tuned", LATENCY_MS, 1),
        ("airflow-postgres", LATENCY_MS, 1),
    ]
    _warm_up(bench, list(dict.fromkeys(name for name, _, _ in variants)))
    for _ in range(results.runs):
        for name, milliseconds, in_flight in variants:
            if not results.failed("latency", name):
                database = bench.fresh_database("postgres")
                outcome = bench.run(
                    name, rows=results.rows, database=database, latency_ms=milliseconds, in_flight=in_flight
                )
                results.add("latency", name, f"{milliseconds} ms/{in_flight}", outcome)
                bench.drop_database("postgres", database)


def scale(bench: Bench, results: Results) -> None:
    """Load ever more rows in a process that is what an Airflow task process is."""
    _warm_up(bench, ["task-ours", "limit-postgres"])
    for _ in range(results.runs):
        for rows in SCALE_ROWS:
            for name in ("task-bare", "task-ours", "limit-postgres"):
                if not results.failed("scale", name):
                    database = bench.fresh_database("postgres")
                    outcome = bench.run(name, rows=rows, database=database, check=name != "task-bare")
                    results.add("scale", name, str(rows), outcome)
                    bench.drop_database("postgres", database)


def frames(bench: Bench, results: Results) -> None:
    """Fetch everything into one pandas DataFrame."""
    bench.warm_up(results.rows)
    names = ["frame-ours", "frame-by-hand", "frame-json_normalize"]
    _warm_up(bench, names)
    wanted = {"rows": results.rows, "distinct": results.rows, "daily": catalogue.daily_sum(results.rows)}
    for _ in range(results.runs):
        for name in names:
            if not results.failed("frames", name):
                outcome = bench.run(name, rows=results.rows, database="")
                if outcome.error is None and outcome.said != wanted:
                    outcome.error = f"wrong data: {outcome.said} instead of {wanted}"
                results.add("frames", name, "first", outcome)


# What a DAG file imports, after what every DAG file imports from Airflow.
_DAG_IMPORTS = {
    "ours": (
        "airflow_provider_m2p",
        "import airflow_provider_m2p.operators.m2p, airflow_provider_m2p.transfers.m2p_to_sql",
    ),
    "apache-airflow-providers-common-sql": (
        "airflow.providers.common.sql",
        "import airflow.providers.common.sql.operators.sql",
    ),
}
_HEAVY = ("pandas", "pyarrow", "sqlalchemy", "numpy")
# Airflow itself loads some of the heavy modules: what counts is who else asks for them.
_IMPORT_SCRIPT = """
import builtins, json, sys, time
from airflow.sdk import DAG, BaseHook, BaseOperator
before, asked, plain_import = set(sys.modules), set(), builtins.__import__
def noting_import(name, globals=None, *rest, **more):
    if globals and str(globals.get("__name__")).startswith({package!r}):
        asked.add(name.partition(".")[0])
    return plain_import(name, globals, *rest, **more)
builtins.__import__ = noting_import
start = time.perf_counter()
{statement}
end = time.perf_counter()
heavy = sorted(asked.intersection({heavy!r}))
print(json.dumps([1000 * (end - start), heavy, len(set(sys.modules) - before)]))
"""


def imports(bench: Bench, results: Results) -> None:
    """Import what a DAG file imports, in fresh interpreters, in turns. The best time counts."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(bench.workdir / "airflow"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    measured: dict[str, list[list[Any]]] = {name: [] for name in _DAG_IMPORTS}
    for turn in range(_IMPORTS + 1):
        for name, (package, statement) in _DAG_IMPORTS.items():
            done = subprocess.run(
                [sys.executable, "-c", _IMPORT_SCRIPT.format(statement=statement, package=package, heavy=_HEAVY)],
                cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                results.imports[name] = {"error": done.stderr.strip().splitlines()[-1]}
            elif turn:
                measured[name].append(json.loads(done.stdout.splitlines()[-1]))
    for name, said in measured.items():
        if said:
            results.imports[name] = {
                "ms": min(row[0] for row in said),
                "heavy": said[0][1],
                "modules": said[0][2],
            }
            print(f"  imports   {name:<40} {results.imports[name]['ms']:.1f} ms", flush=True)
