#!/usr/bin/env bash
# Write both constraints files anew: exact versions only, one for all Pythons we support.
# Usage: tools/lock.sh UV, where UV is the uv executable.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$1

# lock FILE TITLE REQUIREMENT...: the requirements bound what may be chosen.
lock() {
    local file=$1 title=$2
    shift 2
    {
        echo "# $title"
        echo "# Exact versions of all we install and test with. Written by \`make lock\`; do not edit."
        printf '%s\n' "$@" | "$uv" pip compile --quiet --no-header --no-annotate --all-extras --universal \
            --fork-strategy fewest --python-version 3.11 --constraint /dev/stdin pyproject.toml
    } > "$file.new"
    mv "$file.new" "$file"
}

lock constraints.txt "Airflow 3.3 on Python 3.11 and newer" "apache-airflow==3.3.2"
# The older line is tested with the older client, pandas and SQLAlchemy too. FastAPI and cadwyn as Airflow 3.3 bounds
# them. svcs as it was: dag.test() of Airflow 3.2 lets its application state go before the task runs.
lock constraints-airflow-3.2.txt "Airflow 3.2 on Python 3.11 and newer" \
    "apache-airflow==3.2.2" "apache-airflow-client<3.3" "pandas<3" "sqlalchemy<2.1" "fastapi<0.137" "cadwyn<8" "svcs<26"
