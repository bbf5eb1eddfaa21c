"""The compose files are well formed, consistent, and open nothing to the network."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from compose_spec import PyCompose
from cryptography.fernet import Fernet
from dotenv import dotenv_values

from airflow_provider_m2p.sandbox.__main__ import parser
from airflow_provider_m2p.sandbox.settings import DEFAULT_CLIENTS
from tests.system.docker.compose import (
    DOCKER,
    FILES,
    ROOT,
    VARIABLE,
    example_environment,
    filled_environment,
    load,
    raw,
    texts,
)

if TYPE_CHECKING:
    from airflow_provider_m2p.sandbox.server import SandboxServer

LOCAL, CELERY = FILES[:1], FILES
AIRFLOW = ["api-server", "dag-processor", "init", "scheduler", "triggerer"]
SECRET_NAME = re.compile(r"(PASSWORD|SECRET|KEY|AUTH)$")


@pytest.fixture(params=[LOCAL, CELERY], ids=["local", "celery"])
def project(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param, filled_environment())


def test_schema(project: dict[str, Any]) -> None:
    spec = PyCompose.from_json(json.dumps(project))
    spec.validate()
    assert sorted(spec.service_names()) == sorted(project["services"])


def test_a_wrong_key_is_seen_by_that_check(project: dict[str, Any]) -> None:
    project["services"]["sandbox"]["helthcheck"] = {}
    with pytest.raises(ValueError, match="helthcheck"):
        PyCompose.from_json(json.dumps(project))


def test_services() -> None:
    services = load(LOCAL, filled_environment())["services"]
    assert sorted(services) == sorted([*AIRFLOW, "metadata", "warehouse", "sandbox"])
    with_celery = load(CELERY, filled_environment())["services"]
    assert sorted(with_celery) == sorted([*services, "worker", "redis"])
    executors = {with_celery[name]["environment"]["AIRFLOW__CORE__EXECUTOR"] for name in (*AIRFLOW[:2], *AIRFLOW[3:])}
    assert executors == {"CeleryExecutor"}


def test_any_number_of_workers() -> None:
    worker = load(CELERY, filled_environment())["services"]["worker"]
    assert not {"ports", "container_name", "hostname"} & set(worker)
    scheduler = load(CELERY, filled_environment())["services"]["scheduler"]
    assert worker["environment"] == {**scheduler["environment"], "DUMB_INIT_SETSID": "0"}
    assert worker["volumes"] == scheduler["volumes"]


def test_variables_are_those_of_the_example() -> None:
    found = [variable for name in FILES for text in texts(raw(name)) for variable in VARIABLE.finditer(text)]
    example = example_environment()
    assert {variable["name"] for variable in found if not variable["dollar"]} == set(example)
    for variable in found:
        if variable["kind"] == "-":
            assert variable["text"] == example[variable["name"]]
        elif not variable["dollar"]:
            assert (variable["kind"], variable["text"]) == ("?", "see docker/.env.example")


@pytest.mark.parametrize("missing", [name for name, value in example_environment().items() if not value])
def test_nothing_starts_with_a_secret_missing(missing: str) -> None:
    with pytest.raises(LookupError, match=rf"^'?{missing}: see docker/\.env\.example"):
        load(CELERY, {**filled_environment(), missing: ""})


@pytest.mark.parametrize("name", FILES)
def test_no_secret_stands_in_a_file(name: str) -> None:
    document = raw(name)
    for service in document["services"].values():
        for key, value in service.get("environment", {}).items():
            if SECRET_NAME.search(key):
                assert VARIABLE.fullmatch(value), key
    for text in texts(document):
        assert not re.search(r'://[^/@\s]*:(?!\$\{)[^/@\s]+@|"password": *"(?!\$\{)', text)
    assert "passwords" not in document.get("configs", {}) or VARIABLE.search(
        document["configs"]["passwords"]["content"]
    )


def test_secrets_of_the_example_are_empty_or_the_sandboxs_own() -> None:
    secrets = {f"{client}-secret": tenant for client, tenant, _ in DEFAULT_CLIENTS}
    for name, value in example_environment().items():
        if name.startswith("AIRFLOW_CONN_"):
            connection = json.loads(value)
            assert secrets[connection["password"]] == connection["extra"]["tenant_id"]
        else:
            assert not value or name.endswith("_PORT")
    ignored = subprocess.run(["git", "check-ignore", "-q", "docker/.env"], cwd=ROOT, check=False).returncode
    assert ignored in (0, 128)  # 128: not a checkout
    assert "/.env" in (DOCKER / ".gitignore").read_text("utf-8").splitlines()


def test_the_documented_command_makes_a_good_env_file(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deployment.md").read_text("utf-8")
    (script,) = (
        block for block in re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE) if "> .env" in block
    )
    generate = textwrap.dedent(script).partition("docker compose")[0].replace("cd docker\n", "")
    (tmp_path / ".env.example").write_text((DOCKER / ".env.example").read_text("utf-8"))
    subprocess.run(["bash", "-euc", generate], cwd=tmp_path, check=True)
    made = dotenv_values(tmp_path / ".env", interpolate=False)
    secrets = [value for name, value in made.items() if not example_environment()[name]]
    assert all(secrets)
    assert len(set(secrets)) == len(secrets)
    Fernet(made["AIRFLOW_FERNET_KEY"] or "")
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    services = load(CELERY, {name: value or "" for name, value in made.items()})["services"]
    url = urlsplit(services["scheduler"]["environment"]["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    assert (url.username, url.password, url.hostname) == ("airflow", made["METADATA_PASSWORD"], "metadata")
    assert (
        json.loads(services["scheduler"]["environment"]["AIRFLOW_CONN_WAREHOUSE"])["password"]
        == made["WAREHOUSE_PASSWORD"]
    )
    assert json.loads(load(LOCAL, filled_environment() | made)["configs"]["passwords"]["content"])["admin"]


def test_ports_are_bound_to_loopback(project: dict[str, Any]) -> None:
    published = {name: port for name, service in project["services"].items() for port in service.get("ports", ())}
    assert published == {
        "api-server": "127.0.0.1:8080:8080",
        "warehouse": "127.0.0.1:5433:5432",
        "sandbox": "127.0.0.1:8099:8099",
    }
    assert not any("network_mode" in service for service in project["services"].values())


def test_our_image_runs_without_privileges(project: dict[str, Any]) -> None:
    ours = [service for service in project["services"].values() if service["image"] == "airflow-provider-m2p"]
    assert len(ours) == len(project["services"]) - (3 if "redis" in project["services"] else 2)
    for service in ours:
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["pull_policy"] == "build"
        assert not {"user", "privileged", "cap_add"} & set(service)
        build = service["build"]
        assert (DOCKER / build["context"] / build["dockerfile"]).samefile(DOCKER / "Dockerfile")


def test_every_other_image_has_a_tag(project: dict[str, Any]) -> None:
    others = {service["image"] for service in project["services"].values() if "build" not in service}
    assert all(re.fullmatch(r"[a-z]+:\d+", image) for image in others)


def test_paths_and_volumes_exist(project: dict[str, Any]) -> None:
    volumes = [volume.split(":") for service in project["services"].values() for volume in service.get("volumes", ())]
    for source, *_ in volumes:
        assert source in project["volumes"] or (source.startswith("..") and (DOCKER / source).is_dir())
    assert set(project["volumes"]) <= {source for source, *_ in volumes}
    configs = [config["source"] for service in project["services"].values() for config in service.get("configs", ())]
    assert configs == list(project["configs"])


def test_what_is_waited_for_can_be_had(project: dict[str, Any]) -> None:
    services = project["services"]
    for service in services.values():
        for name, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert services[name]["healthcheck"]["test"]
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert services[name]["restart"] == "no"
    assert [name for name, service in services.items() if "healthcheck" not in service] == ["init"]


def test_hosts_are_services_at_the_ports_they_listen_on(project: dict[str, Any]) -> None:
    listening = {"metadata": 5432, "warehouse": 5432, "redis": 6379, "api-server": 8080, "sandbox": 8099}
    environment = project["services"]["scheduler"]["environment"]
    connections = [json.loads(value) for name, value in environment.items() if name.startswith("AIRFLOW_CONN_")]
    urls = [urlsplit(value) for value in (*environment.values(), *(c["host"] for c in connections)) if "://" in value]
    addresses = {(url.hostname, url.port) for url in urls if url.hostname and not url.path.startswith('"')}
    addresses |= {(c["host"], c["port"]) for c in connections if "port" in c}
    assert addresses == {(name, port) for name, port in listening.items() if name in project["services"]}


def test_sandbox_command_and_health_check(project: dict[str, Any], sandbox: SandboxServer) -> None:
    import requests

    service = project["services"]["sandbox"]
    assert service["entrypoint"] == ["m2p-sandbox"]
    assert service["environment"] == {}
    options = parser().parse_args(service["command"])
    assert (options.host, options.port) == ("0.0.0.0", 8099)
    check = urlsplit(service["healthcheck"]["test"][-1])
    assert check.port == options.port
    with requests.get(sandbox.url + check.path, timeout=10) as answer:
        assert answer.status_code == 200
