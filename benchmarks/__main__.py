"""
``python -m benchmarks [--runs 3] [--rows 100000] [--only CASE]... [--contestant NAME]... [--output FILE]``.

Prints every run as it ends and the tables at the end, and writes them to RESULTS.md when nothing was left out.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import cases, peers, report
from benchmarks.cases import Results
from benchmarks.contestants import CONTESTANTS
from benchmarks.harness import Bench

_RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
_PEERS = ("dlt", "apache-airflow-providers-http", "apache-airflow-providers-common-sql", "pandas", "SQLAlchemy")

Case = Callable[[Bench, Results], None]


def _names(database: str) -> list[str]:
    return [
        name
        for name, contestant in CONTESTANTS.items()
        if contestant.database == database and not name.startswith("task-")
    ]


def _loads(database: str, chosen: list[str]) -> Case:
    names = [name for name in _names(database) if not chosen or name in chosen]
    return partial(cases.loads, case=database, names=names)


def _peer_versions(python: str) -> dict[str, str]:
    script = (
        "import json, importlib.metadata as m\nfound = {}\n"
        f"for name in {_PEERS!r}:\n    try: found[name] = m.version(name)\n    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


def main() -> None:
    names = ("postgres", "sqlite", "latency", "scale", "frames", "imports")
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the loader beside its peers.")
    parser.add_argument("--runs", type=int, default=3, help="rounds; the median counts (default: 3)")
    parser.add_argument("--rows", type=int, default=100_000, help="products (default: 100000)")
    parser.add_argument("--only", action="append", choices=names, help="a case to run; may be repeated (default: all)")
    parser.add_argument(
        "--contestant", action="append", default=[], choices=_names("postgres") + _names("sqlite"),
        help="who takes part in the cases postgres and sqlite; may be repeated (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, help=f"where to write the tables (default for a whole run: {_RESULTS.name})"
    )
    arguments = parser.parse_args()

    chosen = arguments.only or list(names)
    output = arguments.output or (_RESULTS if not arguments.only and not arguments.contestant else None)
    all_cases: dict[str, Case] = {
        "postgres": _loads("postgres", arguments.contestant),
        "sqlite": _loads("sqlite", arguments.contestant),
        "latency": cases.latency,
        "scale": cases.scale,
        "frames": cases.frames,
        "imports": cases.imports,
    }
    python, complaint = peers.python()
    results = Results(rows=arguments.rows, runs=arguments.runs)
    warnings.simplefilter("ignore")  # the embedded PostgreSQL's own, about the runtime directory
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # whoever ends us, servers and databases go with us
    postgres = None
    with Bench(peers_python=python) as bench:
        try:
            for name in chosen:
                print(f"{name} ...", flush=True)
                all_cases[name](bench, results)
        except KeyboardInterrupt:
            print("Interrupted; what was measured:", file=sys.stderr)
            output = arguments.output
        if {"postgres", "latency", "scale"} & {case for case, _, _ in results.series}:
            postgres = bench.postgres_version()
    text = report.render(results, postgres=postgres, peers=_peer_versions(python), complaint=complaint)
    print()
    print(text)
    if output:
        output.write_text(text)
        print(f"Written to {output}.")


if __name__ == "__main__":
    main()
