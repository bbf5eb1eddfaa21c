"""The peers' own virtual environment, made on first use, so that ours holds only what we need."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_VENV = _HERE.parent / ".venv-bench"
_REQUIREMENTS = _HERE / "requirements.txt"


def python() -> tuple[str, str | None]:
    """
    Return the peers' interpreter, and why a peer may be missing in it, if it could not be filled.

    A peer that is missing is reported as such by the run that cannot import it.
    """
    interpreter = _VENV / "bin" / "python"
    stamp = _VENV / ".installed"
    wanted = _REQUIREMENTS.read_text() + (_HERE.parent / "constraints.txt").read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return str(interpreter), None
    print("Installing the peers into .venv-bench ...", flush=True)
    if not interpreter.exists():
        venv.create(_VENV, with_pip=True)
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    commands = [[str(interpreter), "-m", "pip", "--disable-pip-version-check", "install"]]
    if uv:
        commands.insert(0, [uv, "pip", "install", "--python", str(interpreter)])
    why = None
    for command in commands:
        done = subprocess.run(
            [*command, "--quiet", "-r", str(_REQUIREMENTS)], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            stamp.write_text(wanted)
            return str(interpreter), None
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        why = lines[-1][:200] if lines else f"exit code {done.returncode}"
    return str(interpreter), why
