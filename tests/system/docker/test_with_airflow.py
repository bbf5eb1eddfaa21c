"""What the compose files tell Airflow, it understands."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import warnings
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.system.docker.compose import FILES, filled_environment, load

if TYPE_CHECKING:
    import argparse

SERVICES: dict[str, dict[str, Any]] = load(FILES, filled_environment())["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service and "entrypoint" not in service}
OPTION = re.compile(r"AIRFLOW__(?P<section>[A-Z_]+?)__(?P<option>[A-Z_]+)")
# What is no option of Airflow's: connections, and the image's own.
OTHER = re.compile(r"AIRFLOW_CONN_\w+|DUMB_INIT_SETSID")


@pytest.fixture(scope="module")
def cli() -> argparse.ArgumentParser:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Airflow's parts say of each other
        from airflow.cli.cli_parser import get_parser

        return get_parser()


@pytest.fixture(scope="module")
def options() -> dict[str, dict[str, Any]]:
    from airflow.configuration import retrieve_configuration_description

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        description = retrieve_configuration_description(include_airflow=True, include_providers=True)
    return {section: content["options"] for section, content in description.items()}


@pytest.mark.parametrize("name", OURS)
def test_command(name: str, cli: argparse.ArgumentParser) -> None:
    command = OURS[name]["command"]
    assert " ".join(command).removeprefix("celery ") == {"init": "db migrate"}.get(name, name)
    assert cli.parse_args(command).func


def test_a_wrong_command_is_seen_by_that_check(cli: argparse.ArgumentParser) -> None:
    with pytest.raises(SystemExit):
        cli.parse_args(["webserver"])


@pytest.mark.parametrize("name", OURS)
def test_environment(name: str, options: dict[str, dict[str, Any]]) -> None:
    for variable, value in OURS[name]["environment"].items():
        assert isinstance(value, str)  # YAML's own true is no text
        if OTHER.fullmatch(variable):
            continue
        found = OPTION.fullmatch(variable)
        assert found, variable
        option = options[found["section"].lower()][found["option"].lower()]
        if option["type"] == "boolean":
            assert value in ("true", "false")
        elif option["type"] == "integer":
            assert value.isdecimal()


def test_executors_are_known() -> None:
    from airflow.executors.executor_loader import ExecutorLoader

    for files in (FILES[:1], FILES):
        environment = load(files, filled_environment())["services"]["scheduler"]["environment"]
        assert environment["AIRFLOW__CORE__EXECUTOR"] in ExecutorLoader.executors


def test_the_password_file_is_the_one_that_is_mounted() -> None:
    service = OURS["api-server"]
    (mounted,) = service["configs"]
    assert service["environment"]["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"] == mounted["target"]
    assert (mounted["uid"], mounted["mode"]) == ("50000", 0o600)  # Airflow opens it for writing
    passwords = json.loads(load(FILES, filled_environment())["configs"][mounted["source"]]["content"])
    users = service["environment"]["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"].split(",")
    assert [user.partition(":")[0] for user in users] == list(passwords)


@pytest.mark.parametrize("name", ["dag-processor", "triggerer"])
def test_job_health_check(name: str, cli: argparse.ArgumentParser) -> None:
    kind, program, *arguments = OURS[name]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "airflow")
    checked = cli.parse_args(arguments)
    assert checked.local
    runner = {
        "dag-processor": "airflow.jobs.dag_processor_job_runner.DagProcessorJobRunner",
        "triggerer": "airflow.jobs.triggerer_job_runner.TriggererJobRunner",
    }[name]
    module, _, cls = runner.rpartition(".")
    assert checked.job_type == getattr(importlib.import_module(module), cls).job_type


def test_api_server_health_check(cli: argparse.ArgumentParser) -> None:
    from airflow.api_fastapi.core_api.routes.public import public_router
    from airflow.api_fastapi.core_api.routes.public.version import version_router

    url = urlsplit(OURS["api-server"]["healthcheck"]["test"][-1])
    assert url.path in {public_router.prefix + getattr(route, "path", "") for route in version_router.routes}
    assert url.port == int(cli.parse_args(["api-server"]).port)


def test_scheduler_health_check() -> None:
    from airflow.configuration import conf

    url = urlsplit(OURS["scheduler"]["healthcheck"]["test"][-1])
    assert url.path == "/health"
    assert url.port == conf.getint("scheduler", "scheduler_health_check_server_port")
    assert OURS["scheduler"]["environment"]["AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK"] == "true"


def test_worker_health_check() -> None:
    kind, command = OURS["worker"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    program, app, *arguments = shlex.split(command)[0], shlex.split(command)[2], *shlex.split(command)[3:]
    assert program == "celery"
    module, _, attribute = app.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import celery

        assert isinstance(getattr(importlib.import_module(module), attribute), celery.Celery)
    assert arguments == ["inspect", "ping", "--destination", "celery@$HOSTNAME"]


def test_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk import Connection

    from airflow_provider_m2p.hooks.m2p import M2PHook

    for variable, value in OURS["scheduler"]["environment"].items():
        if variable.startswith("AIRFLOW_CONN_"):
            monkeypatch.setenv(variable, value)
    for conn_id, tenant in {"m2p_default": "ACME_CORP", "m2p_globex": "GLOBEX"}.items():
        settings = M2PHook(conn_id).settings
        assert (settings.base_url, settings.tenant_id) == ("http://sandbox:8099", tenant)
    warehouse = Connection.get("warehouse")
    database = SERVICES["warehouse"]["environment"]
    assert (warehouse.login, warehouse.schema, warehouse.password) == (
        database["POSTGRES_USER"],
        database["POSTGRES_DB"],
        database["POSTGRES_PASSWORD"],
    )
    assert warehouse.host in SERVICES
