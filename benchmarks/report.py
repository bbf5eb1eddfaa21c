"""The results as tables, for the terminal and for RESULTS.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise

from benchmarks.cases import LATENCY_MS, SCALE_ROWS, Results
from benchmarks.contestants import CONTESTANTS
from benchmarks.harness import POSTGRES_SETTINGS

# Within 10% of the middle, up or down.
_FLAT = 1.22
_PACKAGES = ("apache-airflow", "SQLAlchemy", "psycopg", "psycopg2-binary", "msgspec", "requests", "pandas", "pyarrow")


def _table(headers: list[str], rows: Iterable[list[str]]) -> list[str]:
    cells = [headers, *rows]
    widths = [max(len(row[n]) for row in cells) for n in range(len(headers))]

    def line(row: list[str]) -> str:
        padded = [
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = (
        "|" + "|".join("-" * (width + 2) if n == 0 else "-" * (width + 1) + ":" for n, width in enumerate(widths)) + "|"
    )
    return [line(headers), rule, *(line(row) for row in cells[1:]), ""]


def _number(value: float | None, form: str = "{:,.0f}") -> str:
    return "-" if value is None else form.format(value)


def _ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base


def _rate(results: Results, seconds: float | None) -> float | None:
    return None if not seconds else results.rows / seconds


def _names(results: Results, case: str) -> list[str]:
    return list(dict.fromkeys(name for c, name, _ in results.series if c == case))


def _errors(results: Results, case: str) -> list[str]:
    said = {
        f"- {CONTESTANTS[name].title} ({variant}): not measured: `{series.error}`"
        for (c, name, variant), series in results.series.items()
        if c == case and series.error
    }
    return [*sorted(said), ""] if said else []


def _loads(results: Results, case: str, limit: str, title: str) -> list[str]:
    best = results.median(case, limit)
    rows = []
    for name in _names(results, case):
        first, again = results.median(case, name), results.median(case, name, "again")
        if first is not None:
            rows.append([
                CONTESTANTS[name].title,
                _number(_rate(results, first)),
                _number(_ratio(best, first), "{:.2f}"),
                _number(first, "{:.2f}"),
                _number(results.median(case, name, what="cpu"), "{:.1f}"),
                _number(results.median(case, name, what="peak_mb")),
                _number(again, "{:.2f}"),
                _number(_ratio(first, again), "{:.2f}"),
            ])  # fmt: skip
    headers = [
        "into " + title,
        "rows/s",
        "of the limit",
        "s",
        "CPU s",
        "peak MB",
        "again, 0.1% changed, s",
        "times as fast",
    ]
    return [f"## {results.rows:,} products into {title}", "", *_table(headers, rows), *_errors(results, case)]


def _latency(results: Results) -> list[str]:
    rows = []
    for case, name, variant in results.series:
        if case == "latency" and variant.startswith(f"{LATENCY_MS} ms"):
            in_flight = variant.partition("/")[2]
            slow = results.median(case, name, variant)
            quick = results.median(case, name, f"0 ms/{in_flight}")
            if slow is not None:
                rows.append([
                    CONTESTANTS[name].title,
                    in_flight,
                    _number(_rate(results, quick)),
                    _number(_rate(results, slow)),
                    _number(_ratio(quick, slow), "{:.2f}"),
                ])  # fmt: skip
    headers = ["into PostgreSQL", "pages in flight", "rows/s at 0 ms", f"rows/s at {LATENCY_MS} ms", "ratio"]
    return [f"## {LATENCY_MS} ms of latency a page", "", *_table(headers, rows), *_errors(results, "latency")]


def _cost(results: Results, rows: int, what: str = "seconds") -> float | None:
    """Return microseconds a row, without what a bare task process spends on Airflow's connection and its driver."""
    ours = results.median("scale", "task-ours", str(rows), what)
    bare = results.median("scale", "task-bare", str(rows), what)
    return None if ours is None or bare is None else (ours - bare) / rows * 1e6


def _further_cost(results: Results, fewer: int, more: int) -> float | None:
    """Return microseconds for each row by which one load is larger than another."""
    small, large = (results.median("scale", "task-ours", str(rows)) for rows in (fewer, more))
    return None if small is None or large is None else (large - small) / (more - fewer) * 1e6


def _above_bare(results: Results, rows: int) -> float | None:
    ours = results.median("scale", "task-ours", str(rows), "peak_mb")
    bare = results.median("scale", "task-bare", str(rows), "peak_mb")
    return None if ours is None or bare is None else ours - bare


def _scale(results: Results) -> list[str]:
    rows = []
    for count in SCALE_ROWS:
        limit = results.median("scale", "limit-postgres", str(count))
        rows.append([
            f"{count:,}",
            _number(results.median("scale", "task-bare", str(count), "peak_mb"), "{:.1f}"),
            _number(results.median("scale", "task-ours", str(count), "peak_mb"), "{:.1f}"),
            _number(_above_bare(results, count), "{:.1f}"),
            _number(_cost(results, count), "{:.1f}"),
            _number(_cost(results, count, "cpu"), "{:.1f}"),
            _number(limit and limit / count * 1e6, "{:.1f}"),
        ])  # fmt: skip
    headers = ["products", "bare task, peak MB", "with our load", "above bare", "us/row above", "CPU", "limit us/row"]
    return [
        "## Memory and cost per row, in an Airflow task process, into PostgreSQL",
        "",
        *_table(headers, rows),
        *_errors(results, "scale"),
    ]


def _frames(results: Results) -> list[str]:
    base = results.median("frames", "frame-json_normalize")
    rows = []
    for name in _names(results, "frames"):
        seconds = results.median("frames", name)
        if seconds is not None:
            rows.append([
                CONTESTANTS[name].title,
                _number(seconds, "{:.2f}"),
                _number(_ratio(base, seconds), "{:.1f}"),
                _number(results.median("frames", name, what="peak_mb")),
            ])  # fmt: skip
    headers = ["DataFrame", "s", "times as fast", "peak MB"]
    return [f"## DataFrame of {results.rows:,} products", "", *_table(headers, rows), *_errors(results, "frames")]


def _imports(results: Results) -> list[str]:
    rows, errors = [], []
    for name, said in results.imports.items():
        if "error" in said:
            errors.append(f"- {name}: not measured: `{said['error']}`")
        else:
            heavy = ", ".join(said["heavy"]) or "none"
            rows.append([name, _number(said["ms"], "{:.1f}"), str(said["modules"]), heavy])
    headers = [
        "what a DAG file imports",
        "ms beyond airflow.sdk",
        "modules",
        "imports of pandas, pyarrow, SQLAlchemy, NumPy",
    ]
    return ["## Import time, best of 11", "", *_table(headers, rows), *errors, ""]


def _targets(results: Results) -> list[str]:
    """What we set out to reach, and what was reached in this run."""

    def times(case: str, peer: str, ours: str, variant: str = "first") -> float | None:
        return _ratio(results.median(case, peer, variant), results.median(case, ours, variant))

    above = [_above_bare(results, rows) for rows in SCALE_ROWS]
    cost = [_cost(results, rows) for rows in SCALE_ROWS]
    imported = results.imports.get("ours", {}).get("ms")
    further = [_further_cost(results, fewer, more) for fewer, more in pairwise(SCALE_ROWS)]

    def kept(in_flight: int) -> float | None:
        variants = (f"{latency} ms/{in_flight}" for latency in (0, LATENCY_MS))
        quick, slow = (results.median("latency", "ours-psycopg3", variant) for variant in variants)
        return _ratio(quick, slow)

    goals: list[tuple[str, float | None, str, bool, float]] = [
        ("PostgreSQL: of the limit", times("postgres", "limit-postgres", "ours-psycopg3"), "{:.2f}", True, 0.7),
        ("PostgreSQL: times dlt's defaults", times("postgres", "dlt-postgres", "ours-psycopg3"), "{:.1f}", True, 12),
        ("PostgreSQL: times dlt tuned", times("postgres", "dlt-postgres-tuned", "ours-psycopg3"), "{:.1f}", True, 4),
        ("PostgreSQL: times Airflow's own", times("postgres", "airflow-postgres", "ours-psycopg3"), "{:.1f}", True, 3),
        ("SQLite: of the limit", times("sqlite", "limit-sqlite", "ours-sqlite"), "{:.2f}", True, 0.6),
        ("SQLite: times Airflow's own", times("sqlite", "airflow-sqlite", "ours-sqlite"), "{:.1f}", True, 10),
        ("  the same with executemany=True", times("sqlite", "airflow-sqlite-fast", "ours-sqlite"), "{:.1f}", True, 10),
        (
            "again with 0.1% changed: times the first load",
            _ratio(results.median("postgres", "ours-psycopg3"), results.median("postgres", "ours-psycopg3", "again")),
            "{:.2f}",
            True,
            1.5,
        ),
        (f"{LATENCY_MS} ms a page, 8 in flight: of the rate at 0 ms", kept(8), "{:.2f}", True, 0.7),
        ("  the same, 16 in flight", kept(16), "{:.2f}", True, 0.7),
        ("peak memory above a bare task process, MB", max(filter(None, above), default=None), "{:.0f}", False, 80),
        ("  the same, largest / smallest", _spread(above), "{:.2f}", False, _FLAT),
        ("cost per row above a bare task, largest / smallest", _spread(cost), "{:.2f}", False, _FLAT),
        ("  the same, of each further row", _spread(further), "{:.2f}", False, _FLAT),
        ("DataFrame: times json_normalize", times("frames", "frame-json_normalize", "frame-ours"), "{:.1f}", True, 8),
        ("import time beyond airflow.sdk, ms", imported, "{:.1f}", False, 30),
    ]
    rows = [
        [what, ("at least " if more else "at most ") + f"{goal:g}", _number(value, form), _verdict(value, goal, more)]
        for what, value, form, more, goal in goals
    ]
    return ["## Goals", "", *_table(["goal", "wanted", "reached", ""], rows)]


def _spread(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return max(there) / min(there) if len(there) == len(values) and min(there) > 0 else None


def _verdict(value: float | None, goal: float, more: bool) -> str:
    if value is None:
        return "not measured"
    return "yes" if (value >= goal if more else value <= goal) else "no"


def _machine(results: Results, postgres: str | None, peers: dict[str, str]) -> list[str]:
    ours = {}
    for package in _PACKAGES:
        try:
            ours[package] = version(package)
        except PackageNotFoundError:
            continue
    said = [
        f"- {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        f"- {platform.python_implementation()} {platform.python_version()}; "
        + ", ".join(f"{package} {number}" for package, number in ours.items()),
        "- peers: " + (", ".join(f"{package} {number}" for package, number in peers.items()) or "not installed"),
        f"- {results.rows:,} products in pages of 500 from a server on the same machine; "
        f"medians of {results.runs} interleaved runs",
    ]
    if postgres:
        said.append(f"- PostgreSQL {postgres} over a Unix socket, with " + ", ".join(POSTGRES_SETTINGS))
    return said


def render(results: Results, *, postgres: str | None, peers: dict[str, str], complaint: str | None) -> str:
    """
    Return the whole report.

    :param postgres: the version of PostgreSQL, if it was used.
    :param peers: versions of what the peers' environment holds.
    :param complaint: why the peers could not be installed.
    """
    cases = {case for case, _, _ in results.series}
    lines = [
        "# Benchmark",
        "",
        "Written by `make bench`. Each contestant is a fresh process that loads the same products (25 fields, about",
        "1.1 kB of JSON each) into a fresh database; rows and a checksum are verified after every run. `s` is from the",
        "token call to the commit, without imports. The machine is small and rarely idle: compare within a table, not",
        "between runs.",
        "",
        *_machine(results, postgres, peers),
        "",
    ]
    if complaint:
        lines += [f"**The peers could not all be installed:** `{complaint}`", ""]
    lines += _targets(results)
    if "postgres" in cases:
        lines += _loads(results, "postgres", "limit-postgres", "PostgreSQL")
    if "sqlite" in cases:
        lines += _loads(results, "sqlite", "limit-sqlite", "SQLite")
    if "latency" in cases:
        lines += _latency(results)
    if "scale" in cases:
        lines += _scale(results)
    if "frames" in cases:
        lines += _frames(results)
    if results.imports:
        lines += _imports(results)
    return "\n".join(lines).rstrip() + "\n"
