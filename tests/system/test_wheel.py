"""What is published: a wheel of the package alone, the same bytes wherever and whenever it is built, that works elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path
from typing import TYPE_CHECKING

import airflow
import pytest

from airflow_provider_m2p import __version__
from tools import matrix

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).parents[2]
WHEEL = f"airflow_provider_m2p-{__version__}-py3-none-any.whl"
SDIST = f"airflow_provider_m2p-{__version__}.tar.gz"
INFO = f"airflow_provider_m2p-{__version__}.dist-info"
PARTS = ("airflow_provider_m2p", "dags", "docs")
BESIDE = ("CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "pyproject.toml", ".gitignore")


def build(source: Path, target: Path, *options: str, **environment: str) -> Path:
    command = [matrix.uv(), "build", "--quiet", "--out-dir", target, *options, source]
    subprocess.run(command, check=True, env={**os.environ, **environment}, timeout=150)
    return target


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source distribution and wheel, the wheel built from the source distribution."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(dist / WHEEL)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(wheel.read(f"{INFO}/METADATA").decode())


def modules() -> set[str]:
    """The package as it stands in the tree, example DAGs included, and nothing else that lies about there."""
    package = ROOT / "airflow_provider_m2p"
    found = {path.relative_to(ROOT) for path in package.rglob("*.py")}
    found |= {path.relative_to(ROOT) for path in (package / "example_dags").glob("*.py")}
    return {path.as_posix() for path in found} | {"airflow_provider_m2p/py.typed"}


def test_the_wheel_has_the_package_alone(wheel: zipfile.ZipFile) -> None:
    about = {f"{INFO}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    names = wheel.namelist()
    assert set(names) == modules() | about
    assert len(names) == len(set(names))
    for entry in wheel.infolist():
        assert not entry.is_dir()
        assert entry.external_attr >> 16 in (0o100644, 0o644), entry.filename  # no link, nothing to execute


def test_the_source_distribution_has_what_the_wheel_needs_and_its_documentation(dist: Path) -> None:
    with tarfile.open(dist / SDIST) as archive:
        members = archive.getmembers()
    assert all(member.isfile() for member in members)
    assert {member.uname for member in members} == {""}
    names = {member.name.partition("/")[2] for member in members}
    documents = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*") if path.is_file()}
    assert names == modules() | documents | {*BESIDE, "PKG-INFO"}


def test_no_file_tells_where_it_was_built(wheel: zipfile.ZipFile) -> None:
    for name in wheel.namelist():
        assert not any(place in wheel.read(name) for place in (bytes(ROOT), bytes(Path.home()))), name


def test_two_builds_are_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    copy = tmp_path / "another place"
    copy.mkdir()
    for name in PARTS:
        shutil.copytree(ROOT / name, copy / name, symlinks=True, copy_function=shutil.copyfile)
    for name in BESIDE:
        shutil.copyfile(ROOT / name, copy / name)
    for number, path in enumerate(sorted(copy.rglob("*"))):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)
            os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
    for litter in (".venv", ".demo", "tests", "airflow_provider_m2p/__pycache__", "airflow_provider_m2p/client/__pycache__"):
        (copy / litter).mkdir(exist_ok=True)
        (copy / litter / "litter.pyc").write_bytes(os.urandom(10))
    again = build(copy, tmp_path / "again", TZ="Asia/Kolkata", LC_ALL="C", PYTHONHASHSEED="7")
    for name in (WHEEL, SDIST):
        assert (again / name).read_bytes() == (dist / name).read_bytes(), name
    direct = build(copy, tmp_path / "direct", "--wheel")
    assert (direct / WHEEL).read_bytes() == (dist / WHEEL).read_bytes()
    dated = build(copy, tmp_path / "dated", "--wheel", SOURCE_DATE_EPOCH="1600000000")
    assert {entry.date_time for entry in zipfile.ZipFile(dated / WHEEL).infolist()} == {(2020, 9, 13, 12, 26, 40)}


def test_metadata(metadata: Message) -> None:
    def get(name: str) -> list[str]:
        return [str(value) for value in metadata.get_all(name, [])]

    assert (get("Name"), get("Version")) == (["airflow-provider-m2p"], [__version__])
    assert (get("License-Expression"), get("License-File")) == (["Apache-2.0"], ["LICENSE"])
    assert get("Requires-Python") == [">=3.11"]
    assert set(get("Provides-Extra")) == {"dev", "mysql", "openlineage", "postgres"}
    assert {"Typing :: Typed", "Framework :: Apache Airflow :: Provider"} <= set(get("Classifier"))
    tested = {classifier.rpartition(" ")[2] for classifier in get("Classifier") if re.search(r":: 3\.\d+$", classifier)}
    assert tested == set(matrix.PYTHONS)
    assert not [requirement for requirement in get("Requires-Dist") if "@" in requirement or "://" in requirement]
    assert "apache-airflow>=3.2.0" in get("Requires-Dist")
    assert str(metadata.get_payload()) == (ROOT / "README.md").read_text("utf-8")


def test_entry_points(wheel: zipfile.ZipFile) -> None:
    found = ConfigParser()
    found.read_string(wheel.read(f"{INFO}/entry_points.txt").decode())
    assert {section: dict(found[section]) for section in found.sections()} == {
        "apache_airflow_provider": {"provider_info": "airflow_provider_m2p.get_provider_info:get_provider_info"},
        "console_scripts": {"m2p-sandbox": "airflow_provider_m2p.sandbox.__main__:main"},
    }


@pytest.mark.timeout(900)
def test_it_works_in_a_clean_environment(dist: Path, tmp_path: Path) -> None:
    line = ".".join(airflow.__version__.split(".")[:2])
    versions = matrix.check(dist / WHEEL, line, Path(sys.executable), tmp_path)
    assert versions.endswith(f" {airflow.__version__}")


def test_a_python_that_is_missing_is_a_failure_that_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert matrix.find_python(here)
    monkeypatch.setattr(matrix, "PYTHONS", ("3.99",))
    monkeypatch.setattr(sys, "argv", ["matrix"])
    assert matrix.main() == 1
    assert "Python 3.99 is missing on this machine" in capsys.readouterr().err
