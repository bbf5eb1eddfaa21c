"""``make ui``: Airflow in the browser, with the sandbox as its platform and the example DAGs. Ctrl-C ends it all."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tools.local import airflow, airflow_environment, connections, fresh_home, running_sandbox

START_SECONDS = 180
STOP_SECONDS = 20


@contextlib.contextmanager
def standalone(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``airflow standalone`` in a process group of its own, and end the whole group afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            airflow("standalone"), env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_SECONDS)
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the API server answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"{url}/api/v2/version", timeout=5)  # noqa: S310 - loopback
            return
        time.sleep(1)
    raise SystemExit(f"Airflow did not start; see {log}. Is another program on the port? Then: make ui PORT=8081")


def stop(*_: object) -> None:
    """End as Ctrl-C does."""
    raise KeyboardInterrupt


def main() -> int:
    """Run until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make ui", description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    port: int = parser.parse_args().port
    signal.signal(signal.SIGTERM, stop)
    home = fresh_home()
    url, log = f"http://127.0.0.1:{port}", home / "airflow.log"
    warehouse = {"conn_type": "sqlite", "host": str(home / "warehouse.db")}
    environment = {
        **airflow_environment(home),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__PARALLELISM": "4",
        # One user, on loopback: no password to look for.
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    }
    try:
        with running_sandbox() as base_url:
            print("Starting Airflow ...", flush=True)
            # In the database rather than in the environment, so that the UI shows them and can edit and test them.
            wiring = home / "connections.json"
            wiring.write_text(json.dumps(connections(base_url, warehouse)))
            for arguments in (["db", "migrate"], ["connections", "import", str(wiring)]):
                with log.open("ab") as output:
                    subprocess.run(
                        airflow(*arguments), env=environment, stdout=output, stderr=subprocess.STDOUT, check=True
                    )
            with standalone(environment, log) as process:
                wait_until_up(url, process, log)
                print(f"Airflow    {url}")
                print(f"Sandbox    {base_url} (API docs: {base_url}/api-docs)")
                print("Warehouse  .demo/warehouse.db (SQLite)")
                print("Unpause or trigger m2p_products_sync. Ctrl-C ends it all.", flush=True)
                process.wait()
                raise SystemExit(f"Airflow ended by itself; see {log}.")
    except KeyboardInterrupt:
        print("\nStopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
