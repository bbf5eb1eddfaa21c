"""An Airflow home of its own, for tests that look at all that a process of Airflow leaves behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class OwnAirflow:
    """
    Runs Python modules as Airflow processes that write nowhere but into one folder.

    :param home: the folder.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lineage = home / "lineage.json"
        self.output = home / "output"
        (home / "tmp").mkdir()
        self._environment = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__OPENLINEAGE__TRANSPORT": f'{{"type": "file", "log_file_path": "{self.lineage}", "append": true}}',
            "TMPDIR": str(home / "tmp"),
            "XDG_CACHE_HOME": str(home / "cache"),
        }

    def run(self, module: str, *arguments: str, **environment: str) -> None:
        """Run a module to its end; what it prints is appended to ``output``."""
        with self.output.open("ab") as output:
            done = subprocess.run(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env={**self._environment, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=600,
            )
        assert done.returncode == 0, self.output.read_text("utf-8", "replace")[-8000:]


@pytest.fixture
def own_airflow(airflow_db: Path, tmp_path: Path) -> OwnAirflow:
    """A new home with a migrated metadata database."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(airflow_db, home / "airflow.db")
    return OwnAirflow(home)
