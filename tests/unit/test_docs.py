"""What README and docs show works as shown."""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_m2p import exceptions
from airflow_provider_m2p.client.settings import KNOWN_EXTRAS, ClientSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            yield page.name, block


CONNECTIONS = [
    value
    for _, block in blocks("sh")
    for word in shlex.split(block, comments=True)
    for name, equals, value in [word.partition("=")]
    if name == "AIRFLOW_CONN_M2P_DEFAULT"
]


@pytest.mark.parametrize("value", CONNECTIONS)
def test_connections_shown_are_good_ones(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_m2p.hooks.m2p import M2PHook

    monkeypatch.setenv("AIRFLOW_CONN_M2P_DEFAULT", value)
    settings = M2PHook().settings
    assert settings.base_url in (
        "https://sandbox-api.m2pprepaid.com",
        "https://api.m2pprepaid.com",
        "http://127.0.0.1:8099",
    )
    assert settings.tenant_id == "ACME_CORP"
    assert settings.client_id in ("your_client_id", "acme-operator")
    assert settings.client_secret in ("your_client_secret", "acme-operator-secret")
    assert settings.page_size in (100, 200)


def test_there_are_connections_to_look_at() -> None:
    assert len(CONNECTIONS) == 5


def test_the_dag_to_copy_is_one() -> None:
    (source,) = (block for name, block in blocks("python") if name == "README.md" and "with DAG(" in block)
    scope: dict[str, object] = {}
    exec(
        compile(source.replace("with DAG(", "with (dag := DAG(", 1).replace("\n):\n", "\n)):\n", 1), "README", "exec"),
        scope,
    )
    assert scope["dag"].task_ids == ["load_products"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("page", "source"), list(blocks("python")))
def test_python_shown_is_python(page: str, source: str) -> None:
    ast.parse(source, page)


def test_every_extra_is_explained_with_its_default() -> None:
    page = (ROOT / "docs" / "connection.md").read_text("utf-8").partition("## Tokens")[0]
    explained = dict(re.findall(r"^\| `(\w+)` \|\s*([^|]*?)\s*\|", page, re.MULTILINE))
    defaults = {field.name: field.default for field in fields(ClientSettings)}
    shown = {name: explained[name].strip("`") for name in KNOWN_EXTRAS if name != "tenant_id"}
    for name, text in shown.items():
        default = defaults[name]
        said = {"": None, "no limit": None, "true": True}.get(text, text)
        assert said == default or float(text) == default, name


def test_every_error_is_explained() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    page = (ROOT / "docs" / "errors.md").read_text("utf-8")
    names = [name for name in vars(exceptions) if name.startswith("M2P") and name != "M2PError"]
    assert [name for name in names if f"| `{name}` |" not in readme] == []
    assert [name for name in names if not re.search(rf"^(## |\*\*){name}", page, re.MULTILINE)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []
