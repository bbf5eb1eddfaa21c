"""What a person sees of the provider in a real browser, the sandbox behind a real Airflow; and the same without the UI."""

from __future__ import annotations

import json
import re
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from airflow_client.client.models import ConnectionBody
from playwright.sync_api import ViewportSize, expect

from airflow_provider_m2p import __version__
from airflow_provider_m2p.get_provider_info import CONN_FIELDS, get_provider_info
from tests.system.conftest import AIRFLOW_3_3
from tests.system.ui.conftest import GUEST, USUAL_SIZE, Airflow, Screenshot
from tests.system.ui.connections_page import ConnectionForm, ConnectionsPage
from tests.system.ui.rest import Rest
from tools.verify import compare, read_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from airflow_provider_m2p.sandbox.server import SandboxServer

# One Airflow for all of them; starting it counts as part of the first.
pytestmark = [pytest.mark.xdist_group("ui"), pytest.mark.timeout(600)]

CLIENT = "acme-operator"
SECRET = "acme-operator-secret"
FOUND = "Token received, tenant ACME_CORP accepted, 250 products found."
TODAY = datetime.now(UTC).date().isoformat()
INFO = get_provider_info()
BEHAVIOUR = INFO["connection-types"][0]["ui-field-behaviour"]
TALL: ViewportSize = {"width": 1280, "height": 1960}


def fill_in(
    form: ConnectionForm,
    url: str,
    *,
    client_id: str = CLIENT,
    secret: str | None = None,
    tenant: str = "ACME_CORP",
) -> None:
    """Fill in what a connection needs. The port, too: Airflow 3.3.1 and 3.3.2 do not test without."""
    form.fill(Base_URL=url, Client_ID=client_id, Client_secret=secret or f"{client_id}-secret", Port=url.split(":")[-1])
    form.open_section("Extra Fields")
    form.fill(Tenant_ID=tenant)


@pytest.fixture(scope="module")
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, nor can."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


def test_the_form_explains_itself(connections: ConnectionsPage, page: Page, screenshot: Screenshot) -> None:
    connections.open()
    form = connections.add("m2p_default")
    for name, label in BEHAVIOUR["relabeling"].items():
        expect(form.input(label)).to_be_visible()
        expect(form.input(label)).to_have_attribute("name", name)
    for name, placeholder in BEHAVIOUR["placeholders"].items():
        expect(form.dialog.locator(f"input[name={name}]")).to_have_attribute("placeholder", placeholder)
    expect(form.dialog.get_by_text("Schema", exact=True)).to_have_count(0)
    expect(form.input("Client secret")).to_have_attribute("type", "password")
    form.fill(Base_URL="https://sandbox-api.m2pprepaid.com", Client_ID="your_client_id", Client_secret=SECRET)
    screenshot("connection-form")

    page.set_viewport_size(TALL)
    form.open_section("Extra Fields")
    for field in CONN_FIELDS.values():
        expect(form.field(field["label"])).to_be_visible()
        expect(form.field(field["label"])).to_contain_text(field["description"])
        for option in field["schema"].get("enum", []):
            form.input(field["label"]).click()
            expect(page.get_by_role("option", name=option, exact=True)).to_be_visible()
    form.input("Tenant ID").click()
    screenshot("connection-extra-fields")
    expect(form.save_button).to_be_disabled()  # no tenant yet
    expect(form.dialog).to_contain_text("This field is required")
    page.set_viewport_size(USUAL_SIZE)
    form.close()


def test_made_tested_edited_and_used(
    connections: ConnectionsPage,
    page: Page,
    rest: Rest,
    sandbox: SandboxServer,
    running_airflow: Airflow,
    screenshot: Screenshot,
) -> None:
    connections.open()
    form = connections.add("m2p_default")
    fill_in(form, sandbox.url)
    form.fill(Page_size="50", Credentials_issued_on=TODAY)
    form.choose("Paging", "page")
    form.save()
    saved = json.loads(rest.connection("m2p_default").extra)
    assert {name: value for name, value in saved.items() if value is not None} == {
        "tenant_id": "ACME_CORP",
        "page_size": 50,
        "credentials_issued_on": TODAY,
        "paging": "page",
    }

    outcome = connections.test("m2p_default")
    screenshot("connection-test")
    assert (outcome.title, outcome.message) == ("Test Connection Successful", FOUND)

    form = connections.edit("m2p_default")
    form.field("Client secret").get_by_role("button").click()  # shows what is in there
    expect(form.input("Client secret")).to_have_value("***")
    assert SECRET not in page.content()
    form.open_section("Extra Fields")
    form.fill(Page_size="100")
    form.save()
    assert json.loads(rest.connection("m2p_default").extra) == {**saved, "page_size": 100}
    assert rest.connection("m2p_default").password == "***"
    assert connections.test("m2p_default").title == "Test Connection Successful"

    run_id = run_in_the_ui(page, rest, "m2p_products_sync")
    assert_loaded(running_airflow, sandbox, "m2p_products")
    assert any("pageSize=100" in record.query for record in sandbox.requests)

    page.goto(f"/dags/m2p_products_sync/runs/{quote(run_id)}/tasks/load_products/details")
    link = page.get_by_role("link", name="M2P API docs")
    expect(link).to_have_attribute("href", f"{sandbox.url}/api-docs")


def test_dag_docs_are_rendered(page: Page, rest: Rest) -> None:
    rest.wait_for_dag("m2p_products_reviewed")
    page.goto("/dags/m2p_products_reviewed")
    page.get_by_role("button", name="Dag Docs").click()
    docs = page.get_by_role("dialog")
    expect(docs.get_by_role("listitem")).to_have_count(5)
    expect(docs.get_by_role("code").filter(has_text="stage_products")).to_be_visible()
    expect(docs.get_by_role("emphasis").filter(has_text="Approve")).to_be_visible()
    expect(docs).not_to_contain_text("`")


def test_the_list_of_providers_is_complete(page: Page) -> None:
    page.goto("/providers")
    provider = page.get_by_role("row").filter(has_text=INFO["package-name"])
    expect(provider.get_by_role("cell")).to_have_text(
        [INFO["package-name"], __version__, INFO["description"].rstrip(".")]
    )
    # Airflow 3.2 keeps the space before an address in a package's metadata.
    address = re.compile(rf"\s?{re.escape(INFO['integrations'][0]['external-doc-url'])}")
    expect(provider.get_by_role("link")).to_have_attribute("href", address)


def run_in_the_ui(page: Page, rest: Rest, dag_id: str) -> str:
    """Trigger a DAG as a person does, wait for the run, and return its id."""
    rest.unpause(dag_id)
    page.goto(f"/dags/{dag_id}")
    page.get_by_role("button", name="Trigger").first.click()
    with page.expect_response(re.compile(rf"/dags/{dag_id}/dagRuns$")) as answer:
        page.get_by_role("dialog").get_by_role("button", name="Trigger").click()
    run_id: str = answer.value.json()["dag_run_id"]
    rest.wait_for_success(dag_id, run_id)
    return run_id


def assert_loaded(airflow: Airflow, sandbox: SandboxServer, table: str) -> None:
    verdict = compare(sandbox.catalogue(), read_table(f"sqlite:///{airflow.warehouse}", table), "ACME_CORP")
    assert verdict.differences == []
    assert verdict.rows == 250


@pytest.mark.parametrize(
    ("what", "wrong", "expected"),
    [
        (
            "wrong_secret",
            {"secret": "not-the-secret"},
            ["Token: ", "HTTP 401", "Check client id and client secret (login and password)"],
        ),
        (
            "wrong_tenant",
            {"tenant": "GLOBEX"},
            ["Tenant: ", "the token is for tenant ACME_CORP, the connection names GLOBEX", "'tenant_id'"],
        ),
        ("host_down", {}, ["Token: ", "POST /auth/token", "Check host, network and proxy"]),
        ("no_role", {"client_id": GUEST}, ["Products: ", "HTTP 403", "Check role (Guest), tenant (ACME_CORP), IP whitelist"]),
    ],
)
def test_failures_name_their_step(
    connections: ConnectionsPage,
    page: Page,
    sandbox: SandboxServer,
    closed_port: int,
    screenshot: Screenshot,
    what: str,
    wrong: dict[str, str],
    expected: list[str],
) -> None:
    connections.open()
    form = connections.add(f"m2p_{what}")
    fill_in(form, f"http://127.0.0.1:{closed_port}" if what == "host_down" else sandbox.url, **wrong)
    form.save()
    outcome = connections.test(f"m2p_{what}")
    if what == "wrong_secret":
        screenshot("connection-test-failed")
    assert outcome.title == "Test Connection Failed"
    for text in expected:
        assert text in outcome.message
    for secret in (SECRET, f"{GUEST}-secret", "not-the-secret"):
        assert secret not in outcome.message
        assert secret not in page.content()


def test_the_same_by_rest_json_and_uri(rest: Rest, sandbox: SandboxServer, running_airflow: Airflow) -> None:
    connection = ConnectionBody(
        connection_id="m2p_rest",
        conn_type="m2p",
        host=sandbox.url,
        login=CLIENT,
        password=SECRET,
        extra=json.dumps({"tenant_id": "ACME_CORP", "page_size": 50}),
    )
    if AIRFLOW_3_3:  # from there on, workers can test, too
        assert rest.test_on_worker(connection) == ("success", FOUND)
    assert rest.create(connection).password == "***"
    ways = ("m2p_rest", "m2p_json", "m2p_uri")
    for way in ways:
        assert rest.test(way) == (True, FOUND)
    rest.run("m2p_each_way")
    for way in ways:
        assert_loaded(running_airflow, sandbox, way)


def test_an_event_of_the_watched_asset_starts_a_load(
    rest: Rest, sandbox: SandboxServer, running_airflow: Airflow
) -> None:
    rest.run_by_asset("m2p_products_watch", "m2p_catalogue")
    assert_loaded(running_airflow, sandbox, "m2p_products_watched")
