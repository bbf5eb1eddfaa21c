"""The Dockerfile builds from what is in the repository, and ends without root."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.system.docker.compose import DOCKER, ROOT

TEXT = (DOCKER / "Dockerfile").read_text("utf-8")
INSTRUCTIONS = [
    tuple(line.split(maxsplit=1))
    for line in re.sub(r"\\\n\s*", "", TEXT).splitlines()
    if line and not line.startswith("#")
]
COPIED = [
    word
    for instruction, rest in INSTRUCTIONS
    if instruction == "COPY"
    for word in rest.split()[:-1]
    if not word.startswith("--")
]


def test_hadolint() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "hadolint", "--no-color", DOCKER / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_base_is_the_airflow_of_the_constraints() -> None:
    constraints = (ROOT / "constraints.txt").read_text("utf-8")
    (airflow,) = re.findall(r"^apache-airflow==(.+)$", constraints, re.MULTILINE)
    bases = {rest.split()[0] for instruction, rest in INSTRUCTIONS if instruction == "FROM"}
    assert bases == {f"apache/airflow:slim-{airflow}-python3.11"}
    assert "--constraint /opt/airflow/constraints.txt" in TEXT
    for package in ("apache-airflow-providers-celery", "apache-airflow-providers-postgres", "redis"):
        assert re.search(rf"^{package}==", constraints, re.MULTILINE)


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    assert sorted(COPIED) == sorted(line[1:] for line in ignore if line.startswith("!"))
    assert "*" in ignore
    assert [name for name in COPIED if not (ROOT / name).exists()] == []


def test_what_the_wheel_is_built_from_is_copied() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    hatch = package["tool"]["hatch"]
    needed = {
        package["project"]["readme"],
        *package["project"]["license-files"],
        *hatch["build"]["targets"]["wheel"]["packages"],
        Path(hatch["version"]["path"]).parts[0],
    }
    links = {
        path.resolve().relative_to(ROOT).parts[0] for path in ROOT.glob("airflow_provider_m2p/*") if path.is_symlink()
    }
    assert needed | links | {"pyproject.toml", "constraints.txt"} == set(COPIED)


def test_ends_without_root_and_names_no_address() -> None:
    users = [rest for instruction, rest in INSTRUCTIONS if instruction == "USER"]
    assert users == ["50000"]
    assert INSTRUCTIONS[-1] == ("USER", "50000")
    assert "://" not in TEXT
