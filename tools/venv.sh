#!/usr/bin/env bash
# Make or refresh a virtual environment with this project (editable) and everything its commands use.
# Usage: tools/venv.sh VENV CONSTRAINTS [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 constraints=$2 python=${3:-}

new_enough() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if ! new_enough "$venv/bin/python"; then
    for candidate in $python python3 python3.13 python3.12 python3.11 python; do
        if new_enough "$candidate"; then
            rm -rf "$venv"
            "$candidate" -m venv "$venv"
            break
        elif [ "$candidate" = "$python" ]; then
            echo "PYTHON=$python is not a Python 3.11 or newer with the venv module." >&2
            exit 1
        fi
    done
fi
if ! [ -x "$venv/bin/python" ]; then
    echo "No Python 3.11 or newer with the venv module found. Install one, or say where it is: make PYTHON=/path/to/python3" >&2
    exit 1
fi

# uv is quicker, but goes its own way through proxies and mirrors; where it cannot, pip can.
echo "Installing into $venv ..."
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
if "${pip[@]}" install --constraint "$constraints" uv 2>/dev/null &&
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --constraint "$constraints" --editable '.[dev]'; then
    :
else
    echo "uv could not install; going on with pip." >&2
    "${pip[@]}" install --constraint "$constraints" --editable '.[dev]'
fi
"$venv/bin/python" -m pip --disable-pip-version-check check > /dev/null ||
    { "$venv/bin/python" -m pip --disable-pip-version-check check >&2; exit 1; }
