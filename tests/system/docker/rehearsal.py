"""
The services of the compose files as processes of this machine: same commands, same environment, same order.

What differs is what containers have of their own: addresses and ports, host names, and the directory ``/opt/airflow``.
One PostgreSQL server stands in for both, with a role and a database for each.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg

from tests.system.docker.compose import filled_environment, load
from tools.postgres import free_port, postgres_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BIN = Path(sys.executable).parent
DATABASES = ("metadata", "warehouse")
START_SECONDS = 400
STOP_SECONDS = 15


class Rehearsal:
    """
    A running project.

    :param project: what the compose files say.
    :param home: stands in for ``/opt/airflow``.
    :param postgres: port of the server that stands in for both databases.
    """

    def __init__(self, project: dict[str, Any], home: Path, postgres: int) -> None:
        self.services: dict[str, dict[str, Any]] = project["services"]
        self.configs: dict[str, dict[str, str]] = project["configs"]
        self.home = home
        self.ports = {name: free_port() for name in ("api-server", "sandbox", "scheduler", "redis")}
        self.ports |= dict.fromkeys(DATABASES, postgres)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}"

    def here(self, text: str) -> str:
        """Put this machine's addresses and directory in the place of a container's."""
        for name, port in self.ports.items():
            text = re.sub(rf"(?<=[@/]){name}:\d+", f"127.0.0.1:{port}", text)
            text = re.sub(rf'"host": "{name}", "port": \d+', f'"host": "127.0.0.1", "port": {port}', text)
        return text.replace("/opt/airflow", str(self.home))

    def environment(self, name: str) -> dict[str, str]:
        return {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.ports["api-server"]),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_HOST": "127.0.0.1",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(self.ports["scheduler"]),
            "HOSTNAME": name,
            **{key: self.here(value) for key, value in self.services[name]["environment"].items()},
        }

    def command(self, name: str) -> list[str]:
        service = self.services[name]
        if name == "sandbox":
            own = {"0.0.0.0": "127.0.0.1", "8099": str(self.ports[name])}
            return [*service["entrypoint"], *(own.get(word, word) for word in service["command"])]
        if name == "redis":
            return [*service["command"], "--bind", "127.0.0.1", "--port", str(self.ports[name])]
        own = []
        if name in ("scheduler", "triggerer") or name.startswith("worker"):
            own += ["--skip-serve-logs"]  # they are read from the directory that all share, not from fixed ports
        if name.startswith("worker"):
            own += ["--celery-hostname", f"celery@{name}", "--pid", str(self.home / f"{name}.pid")]
        return ["airflow", *service["command"], *own]

    def start(self, name: str) -> None:
        for config in self.services[name].get("configs", ()):
            target = Path(self.here(config["target"]))
            target.write_text(self.configs[config["source"]]["content"])
            target.chmod(config["mode"])
        with (self.home / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                self.command(name),
                env=self.environment(name),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.home,
                start_new_session=True,
            )

    def up(self) -> None:
        """Start every service as soon as what it depends on is ready."""
        waiting = [name for name in self.services if name not in DATABASES]
        ready = {"service_healthy": set(DATABASES), "service_completed_successfully": set()}
        needed = {dependency for service in self.services.values() for dependency in service.get("depends_on", {})}

        def startable(name: str) -> bool:
            wanted = self.services[name].get("depends_on", {})
            return all(on in ready[wait["condition"]] for on, wait in wanted.items())

        def progress() -> bool:
            for name in filter(startable, tuple(waiting)):
                waiting.remove(name)
                self.start(name)
            for name in needed & self.processes.keys():
                if self.services[name]["restart"] == "no":
                    if self.processes[name].poll() == 0:
                        ready["service_completed_successfully"].add(name)
                elif name not in ready["service_healthy"] and self.healthy(name):
                    ready["service_healthy"].add(name)
            return not waiting

        self.until(progress, "start")

    def healthy(self, name: str) -> bool:
        """Run a service's own health check."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        if name == "redis":
            test = [word.replace("redis-cli", f"redis-cli -p {self.ports[name]}") for word in test]
        elif name in self.ports:
            test = [re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{self.ports[name]}", word) for word in test]
        if kind == "CMD-SHELL":
            test = ["/bin/sh", "-c", *test]
        done = subprocess.run(test, env=self.environment(name), capture_output=True, timeout=60, check=False)
        return done.returncode == 0

    def until(self, condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        """Wait for something, as long as every service runs."""
        deadline = time.monotonic() + seconds
        while not condition():
            ended = [
                name
                for name, process in self.processes.items()
                if process.poll() is not None and (self.services[name]["restart"] != "no" or process.returncode)
            ]
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"{what}: {f'{ended} ended' if ended else 'not in time'}\n{self.logs()}")
            time.sleep(0.5)

    def log(self, name: str) -> str:
        """What a service has said so far."""
        return (self.home / f"{name}.log").read_text(errors="replace")

    def logs(self) -> str:
        """The end of every service's output and of every task's log."""
        files = sorted(self.home.glob("*.log")) + sorted(self.home.glob("logs/dag_id=*/**/*.log"))
        return "\n".join(
            f"--- {path.relative_to(self.home)}\n{path.read_text(errors='replace')[-1500:]}" for path in files
        )

    def kill(self, name: str) -> None:
        """End a service at once with all it runs, as the end of its container does."""
        process = self.processes.pop(name)
        for child in (*psutil.Process(process.pid).children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait()

    def down(self) -> None:
        """Ask every service to end, with whatever it started, and then make it."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for name, process in list(self.processes.items()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            if process.poll() is None:
                self.kill(name)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def rehearsal(
    files: tuple[str, ...],
    home: Path,
    dags: Path,
    *,
    environment: dict[str, str],
    sandbox: list[str],
    workers: int = 0,
) -> Iterator[Rehearsal]:
    """
    Run the services of these compose files.

    :param home: an empty directory.
    :param dags: what is mounted as the DAGs.
    :param environment: more variables for Airflow, as one adds them to ``compose.yaml``.
    :param sandbox: more options of the sandbox.
    :param workers: ``--scale worker=``.
    """
    project = load(files, filled_environment())
    services = project["services"]
    for service in services.values():
        if "AIRFLOW__CORE__EXECUTOR" in service.get("environment", {}):
            service["environment"] = {**service["environment"], **environment}
    services["sandbox"]["command"] += sandbox
    if worker := services.pop("worker", None):
        services |= {f"worker-{number}": worker for number in range(1, workers + 1)}
    (home / "logs").mkdir()
    (home / "dags").symlink_to(dags)
    with postgres_server() as port:
        with psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", autocommit=True) as server:
            for name in DATABASES:
                settings = services[name]["environment"]
                role, password = settings["POSTGRES_USER"], settings["POSTGRES_PASSWORD"]
                server.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")  # type: ignore[call-overload]
                server.execute(f"CREATE DATABASE {settings['POSTGRES_DB']} OWNER {role}")  # type: ignore[call-overload]
        running = Rehearsal(project, home, port)
        try:
            running.up()
            yield running
        finally:
            running.down()
