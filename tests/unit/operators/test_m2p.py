from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from airflow.sdk import BaseHook, BaseOperator, ObjectStoragePath

from airflow_provider_m2p.exceptions import M2PAuthError, M2PConfigError
from airflow_provider_m2p.operators.m2p import M2PExtractProductsOperator
from tests.connections import connect, m2p_connection

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_m2p.sandbox.server import SandboxServer


@pytest.fixture(autouse=True)
def connection(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url))


def extract(**arguments: Any) -> Any:
    return M2PExtractProductsOperator(task_id="extract", **arguments).execute({})


def test_constructing_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> None:
        raise AssertionError("touched in __init__")

    monkeypatch.setattr(BaseHook, "get_connection", no)
    monkeypatch.setattr(socket.socket, "connect", no)
    operator = M2PExtractProductsOperator(
        task_id="extract", m2p_conn_id="{{ var.x }}", output_path="{{ p }}", endpoint="{{ e }}"
    )
    assert isinstance(operator, BaseOperator)
    assert operator.template_fields == ("m2p_conn_id", "output_path", "endpoint")
    assert [getattr(operator, name) for name in operator.template_fields] == ["{{ var.x }}", "{{ p }}", "{{ e }}"]


def test_returns_a_dataframe_of_all_products(sandbox: SandboxServer) -> None:
    frame = extract()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame["product_id"]) == [product["productId"] for product in sandbox.catalogue()]


def test_another_endpoint(sandbox: SandboxServer) -> None:
    assert len(extract(endpoint="/configs/v1/products/")) == 250
    assert sandbox.count("/configs/v1/products/") == 3


def test_max_pages() -> None:
    assert len(extract(max_pages=1)) == 100
    assert len(extract(max_pages=2, max_rows=200)) == 200


def test_too_many_rows_for_xcom_are_refused_at_the_first_page(sandbox: SandboxServer) -> None:
    with pytest.raises(M2PConfigError) as caught:
        extract(max_rows=249)
    for word in ("250", "249", "max_rows", "output_path", "M2PToSqlOperator"):
        assert word in str(caught.value)
    assert len(extract(max_rows=250)) == 250


def test_too_many_rows_are_refused_even_if_no_total_was_announced(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url, paging="none"))
    with pytest.raises(M2PConfigError, match="output_path"):
        extract(max_rows=249)


def test_writes_parquet_and_returns_its_path(sandbox: SandboxServer, tmp_path: Path) -> None:
    path = f"file://{tmp_path}/products.parquet"
    assert extract(output_path=path, max_rows=1) == path
    with ObjectStoragePath(path).open("rb") as file:
        frame = pd.read_parquet(file)
    assert list(frame["product_id"]) == [product["productId"] for product in sandbox.catalogue()]


def test_errors_outside_a_task_are_the_providers_own(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url, password="wrong-one"))
    with pytest.raises(M2PAuthError) as caught:
        extract()
    assert type(caught.value) is M2PAuthError
