"""Reads the compose files as ``docker compose`` does, as far as they go: anchors, variables, ``extends``, several files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from dotenv import dotenv_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"
FILES = ("compose.yaml", "compose.celery.yaml")
VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<text>[^}]*))?\})")


def raw(name: str) -> dict[str, Any]:
    """One file, with its variables as they stand."""
    document: dict[str, Any] = yaml.safe_load((DOCKER / name).read_text("utf-8"))
    return document


def example_environment() -> dict[str, str]:
    """``.env.example``: every variable, those to be generated empty."""
    return {name: value or "" for name, value in dotenv_values(DOCKER / ".env.example", interpolate=False).items()}


def filled_environment() -> dict[str, str]:
    """``.env.example`` with a made-up value in every empty place."""
    return {name: value or f"made-up_{name.lower()}=" for name, value in example_environment().items()}


def load(names: tuple[str, ...], environment: Mapping[str, str]) -> dict[str, Any]:
    """The project that these files make together."""
    project: dict[str, Any] = {}
    for name in names:
        document = interpolate(raw(name), environment)
        for service in document["services"].values():
            if base := service.pop("extends", None):
                inherited = interpolate(raw(base["file"]), environment)["services"][base["service"]]
                service.update(merge(inherited, service))
        project = merge(project, document)
    return {key: value for key, value in project.items() if not key.startswith("x-")}


def interpolate(node: Any, environment: Mapping[str, str]) -> Any:
    def value(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        if given := environment.get(found["name"]):
            return given
        if found["kind"] == "-":
            return found["text"]
        raise LookupError(f"{found['name']}: {found['text']}")

    if isinstance(node, dict):
        return {key: interpolate(child, environment) for key, child in node.items()}
    if isinstance(node, list):
        return [interpolate(child, environment) for child in node]
    return VARIABLE.sub(value, node) if isinstance(node, str) else node


def merge(below: Any, above: Any) -> Any:
    """Mappings are merged by key, commands and the like replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: merge(below[key], child) if key in below else child for key, child in above.items()}
    return above


def texts(node: Any) -> Iterator[str]:
    """Every text in a document, keys excepted."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from texts(child)
