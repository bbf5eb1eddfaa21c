from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import distribution, entry_points
from pathlib import Path

import airflow
import jsonschema
import pytest

from airflow_provider_m2p.client.settings import KNOWN_EXTRAS, ClientSettings
from airflow_provider_m2p.get_provider_info import CONN_FIELDS, get_provider_info
from airflow_provider_m2p.hooks.m2p import M2PHook

INFO = get_provider_info()
(CONNECTION_TYPE,) = INFO["connection-types"]
KINDS = ("hooks", "operators", "triggers")


def test_follows_airflows_schema() -> None:
    schema = json.loads((Path(airflow.__path__[0]) / "provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


def test_is_the_entry_point_of_the_distribution_it_names() -> None:
    (entry,) = (
        entry
        for entry in entry_points(group="apache_airflow_provider")
        if entry.value.startswith("airflow_provider_m2p.")
    )
    assert entry.load() is get_provider_info
    assert entry.dist is not None
    assert entry.dist.name == INFO["package-name"]
    assert INFO["versions"] == [distribution(INFO["package-name"]).version]


@pytest.mark.parametrize(
    "module",
    [
        *(module for kind in KINDS for item in INFO[kind] for module in item["python-modules"]),
        *(item["python-module"] for item in INFO["transfers"]),
    ],
)
def test_listed_modules_import(module: str) -> None:
    import_module(module)


def test_every_module_with_airflow_classes_is_listed() -> None:
    package = Path(import_module("airflow_provider_m2p").__path__[0])
    for kind in KINDS:
        listed = {module for item in INFO[kind] for module in item["python-modules"]}
        assert listed == {f"airflow_provider_m2p.{kind}.{path.stem}" for path in (package / kind).glob("[a-z]*.py")}
    assert {item["python-module"] for item in INFO["transfers"]} == {
        f"airflow_provider_m2p.transfers.{path.stem}" for path in (package / "transfers").glob("[a-z]*.py")
    }


def test_connection_type_agrees_with_the_hook() -> None:
    assert CONNECTION_TYPE["hook-class-name"] == f"{M2PHook.__module__}.{M2PHook.__qualname__}"
    assert CONNECTION_TYPE["connection-type"] == M2PHook.conn_type
    assert CONNECTION_TYPE["hook-name"] == M2PHook.hook_name
    assert M2PHook.conn_name_attr == "m2p_conn_id"
    assert M2PHook.default_conn_name == "m2p_default"


def test_the_form_has_a_field_for_every_extra_the_client_knows() -> None:
    assert sorted(CONN_FIELDS) == sorted(KNOWN_EXTRAS)


def test_every_field_says_what_it_is_and_may_be_left_empty_if_it_has_a_default() -> None:
    for name, field in CONN_FIELDS.items():
        assert field["label"], name
        assert field["description"].endswith((".", "ACME_CORP.")), name
        assert ("null" in field["schema"]["type"]) == (name != "tenant_id"), name


def test_the_forms_choices_and_defaults_are_the_clients() -> None:
    def settings(**extra: object) -> ClientSettings:
        return ClientSettings.from_connection(
            conn_id="c", host="h", login="l", password="p", extra={"tenant_id": "T", **extra}
        )

    defaults = settings()
    for name, field in CONN_FIELDS.items():
        for choice in field["schema"].get("enum", []):
            assert getattr(settings(**{name: choice}), name) == choice
        if "efault" in field["description"]:
            default = getattr(defaults, name)
            text = f"{default:g}" if isinstance(default, float) else str(default).lower()
            assert text in field["description"].lower(), name
