"""
Install the built wheel in clean environments, one for each Airflow and Python that we support, and use it there.

A Python that this machine does not have is named at the end, as a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.local import CLIENT_ID, ROOT, TENANT, connections, running_sandbox
from tools.verify import compare, read_table, served_products

AIRFLOWS = {"3.2": "constraints-airflow-3.2.txt", "3.3": "constraints.txt"}
PYTHONS = ("3.11", "3.12", "3.13")
TABLE = "m2p_products"


class Failed(Exception):
    """An environment in which something does not work."""


def run(command: list[str | Path], **options: object) -> str:
    """Run a command and return what it prints; if it fails, that is in the error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}{done.stderr[-6000:]}")
    return str(done.stdout)


def uv() -> str:
    """Return the ``uv`` of this virtual environment."""
    return str(Path(sys.executable).parent / "uv")


def find_python(wanted: str) -> Path | None:
    """
    Return a Python of this version that works: on the PATH, uv's own, or pyenv's.

    :param wanted: such as ``3.12``.
    """
    on_path = [Path(folder) / f"python{wanted}" for folder in os.get_exec_path()]
    roots = {
        Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions": f"{wanted}.*/bin/python{wanted}",
        Path("~/.local/share/uv/python").expanduser(): f"cpython-{wanted}.*/bin/python{wanted}",
    }
    kept = [path for root, pattern in roots.items() for path in sorted(root.glob(pattern), reverse=True)]
    show = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in (Path(sys.executable), *on_path, *kept):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run([candidate, "-c", show], capture_output=True, text=True, check=False, timeout=30)
            if done.returncode == 0 and done.stdout.strip() == wanted:
                return candidate
    return None


def build(directory: Path) -> Path:
    """
    Build the wheel, from the source distribution as a release does.

    :param directory: where to.
    """
    run([uv(), "build", "--quiet", "--out-dir", directory, ROOT])
    (wheel,) = directory.glob("*.whl")
    return wheel


def check(wheel: Path, airflow: str, python: Path, directory: Path) -> str:
    """
    Install the wheel and use it; return the versions it was used with.

    :param wheel: the wheel.
    :param airflow: a key of ``AIRFLOWS``.
    :param python: the interpreter.
    :param directory: for the environment and all it writes; empty.
    """
    venv, home, database = directory / "venv", directory / "home", directory / "warehouse.db"
    home.mkdir()
    interpreter = venv / "bin" / "python"
    run([uv(), "venv", "--quiet", "--python", python, venv])
    target: list[str | Path] = ["--quiet", "--python", interpreter]
    constraints = ROOT / AIRFLOWS[airflow]
    wanted = [str(wheel), "apache-airflow-providers-sqlite"]
    run([uv(), "pip", "install", *target, "--constraint", constraints, *wanted])
    run([uv(), "pip", "check", *target])
    pinned = {line.partition("==")[0] for line in constraints.read_text().splitlines()}
    installed = {line.partition("==")[0] for line in run([uv(), "pip", "freeze", *target]).splitlines() if "==" in line}
    if installed - pinned:
        raise Failed(f"{constraints.name} pins no version of {', '.join(sorted(installed - pinned))}")
    with running_sandbox(interpreter) as base_url:
        environment = {
            "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "AIRFLOW_HOME": str(home / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__API_AUTH__JWT_SECRET": os.urandom(64).hex(),  # Airflow 3.2 makes none up
            **{
                f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(connection)
                for conn_id, connection in connections(
                    base_url, {"conn_type": "sqlite", "host": str(database)}
                ).items()
            },
        }
        # -P: neither this directory nor the working one is searched for modules.
        run([interpreter, "-P", ROOT / "tools" / "smoke.py"], env=environment, cwd=home)
        served = served_products(base_url, CLIENT_ID, f"{CLIENT_ID}-secret", TENANT)
    verdict = compare(served, read_table(f"sqlite:///{database}", TABLE), TENANT)
    with contextlib.closing(sqlite3.connect(database)) as warehouse:
        loads = warehouse.execute("SELECT inserted, unchanged FROM _m2p_loads ORDER BY finished_at").fetchall()
    if verdict.differences or loads != [(len(served), 0), (0, len(served))]:
        raise Failed(f"loads {loads} of {len(served)} products; {verdict.differences[:10]}")
    show = "import platform, importlib.metadata as m; print(platform.python_version(), m.version('apache-airflow'))"
    return run([interpreter, "-c", show]).strip()


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="make matrix", description=__doc__)
    parser.parse_args()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="m2p-matrix-") as name:
        directory = Path(name)
        wheel = build(directory / "dist")
        print(wheel.name, flush=True)
        for wanted in PYTHONS:
            python = find_python(wanted)
            if python is None:
                failures.append(f"Python {wanted} is missing on this machine; pyenv, uv or the system may bring it.")
                continue
            for airflow in AIRFLOWS:
                started = time.monotonic()
                place = directory / f"{wanted}-{airflow}"
                place.mkdir()
                try:
                    print(f"  Python {wanted}, Airflow {airflow}: ", end="", flush=True)
                    versions = check(wheel, airflow, python, place)
                    print(f"ok ({versions}, {time.monotonic() - started:.0f} s)", flush=True)
                except Failed as error:
                    print("FAILED", flush=True)
                    failures.append(f"Python {wanted}, Airflow {airflow}: {error}")
                shutil.rmtree(place)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
