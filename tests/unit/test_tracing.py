from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from airflow_provider_m2p.exceptions import M2PAuthError
from airflow_provider_m2p.hooks.m2p import M2PHook
from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator
from tests.connections import connect, m2p_connection, sql_connection

if TYPE_CHECKING:
    from sqlalchemy import URL

    from airflow_provider_m2p.sandbox.server import SandboxServer


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What is exported while tracing is on."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


def test_a_load_is_a_span_with_a_span_for_every_page(
    spans: InMemorySpanExporter, sandbox: SandboxServer, sqlite_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url), warehouse=sql_connection(sqlite_url))
    M2PToSqlOperator(task_id="load", sql_conn_id="warehouse", table="products").execute({})
    *pages, load = spans.get_finished_spans()
    assert load.name == "m2p load"
    assert load.attributes is not None
    assert load.context is not None
    assert (load.attributes["m2p.rows_read"], load.attributes["m2p.inserted"]) == (250, 250)
    assert [page.name for page in pages] == ["GET /v1/products/"] * 3
    asked = {record.request_id for record in sandbox.requests if record.path == "/v1/products/"}
    assert {page.attributes and page.attributes["m2p.request_id"] for page in pages} == asked
    for page in pages:
        assert page.kind is SpanKind.CLIENT
        assert page.parent is not None
        assert page.parent.span_id == load.context.span_id
        assert page.attributes is not None
        assert page.attributes["http.response.status_code"] == 200
        assert page.attributes["m2p.tenant_id"] == "ACME_CORP"


def test_a_refusal_is_told_without_secrets(
    spans: InMemorySpanExporter, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url, password="not-the-secret"))
    with pytest.raises(M2PAuthError):
        M2PHook().request("GET", "/v1/products/?x=1")
    (span,) = spans.get_finished_spans()
    assert span.name == "GET /v1/products/"
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 401
    assert "not-the-secret" not in span.to_json()
