from __future__ import annotations

import json
import re
import socket
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from airflow.sdk import Asset, BaseHook, BaseOperator, ObjectStoragePath
from airflow.sdk.execution_time.context import OutletEventAccessors
from sqlalchemy import inspect, text

from airflow_provider_m2p.exceptions import M2PAuthError, M2PConfigError, M2PLoadError
from airflow_provider_m2p.operators.m2p import M2PExtractProductsOperator, M2PPublishLoadOperator
from airflow_provider_m2p.task_run import TaskRun
from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator
from tests.connections import connect, m2p_connection, sql_connection

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

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
    templates = {
        "m2p_conn_id": "{{ var.x }}",
        "output_path": "{{ p }}",
        "endpoint": "{{ e }}",
        "exclude_columns": ["{{ x }}"],
        "hash_columns": ["{{ h }}"],
    }
    operator = M2PExtractProductsOperator(task_id="extract", **templates)  # type: ignore[arg-type]
    assert isinstance(operator, BaseOperator)
    assert operator.template_fields == tuple(templates)
    assert {name: getattr(operator, name) for name in templates} == templates
    names = ("sql_conn_id", "load_id", "plan_id", "schema", "action")
    templates = {name: f"{{{{ {name} }}}}" for name in names}
    publish = M2PPublishLoadOperator(task_id="publish", **templates)  # type: ignore[arg-type]
    assert publish.template_fields == tuple(templates)
    assert {name: getattr(publish, name) for name in templates} == templates


def test_returns_a_dataframe_of_all_products(sandbox: SandboxServer) -> None:
    frame = extract()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame["product_id"]) == [product["productId"] for product in sandbox.catalogue()]


def test_numbers_that_xcom_cannot_hold_are_refused_for_it_alone(sandbox: SandboxServer) -> None:
    sandbox.set_faults("huge-number=400@page0")
    assert extract()["issuance_fee"][0] == Decimal("1e400")
    context: Any = {"ti": None}
    operator = M2PExtractProductsOperator(task_id="extract")
    with pytest.raises(M2PConfigError, match="numbers of more than 76 digits.*output_path"):
        operator.execute(context)
    sandbox.set_faults()
    assert len(operator.execute(context)) == 250


def test_another_endpoint(sandbox: SandboxServer) -> None:
    assert len(extract(endpoint="/configs/v1/products/")) == 250
    assert sandbox.count("/configs/v1/products/") == 3


def test_max_pages() -> None:
    assert len(extract(max_pages=1)) == 100
    assert len(extract(max_pages=2, max_rows=200)) == 200


@pytest.mark.parametrize("wrong", [{"max_pages": "2"}, {"max_rows": "249"}])
def test_an_argument_of_a_wrong_type_is_named_and_costs_no_request(
    sandbox: SandboxServer, wrong: dict[str, Any]
) -> None:
    with pytest.raises(M2PConfigError, match=next(iter(wrong))):
        extract(**wrong)
    assert not sandbox.requests


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


@pytest.mark.parametrize("to", ["frame", "parquet"])
def test_private_fields_stay_out(to: str, sandbox: SandboxServer, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"exclude_columns": "limits.daily", "hash_columns": ["productType"]}
    if to == "parquet":
        frame = pd.read_parquet(extract(output_path=f"file://{tmp_path}/p.parquet", **arguments))
    else:
        frame = extract(**arguments)
    assert len(frame) == 250
    assert "limits__daily" not in frame
    assert "limits__monthly" in frame
    types = {product["productType"] for product in sandbox.catalogue()}
    assert frame["product_type"].nunique() == len(types)
    assert set(frame["product_type"].str.len()) == {64}


class TestPublishLoad:
    """Loads that wait for consent."""

    @pytest.fixture
    def staged(self, engine: Engine, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """The plan of a load that adds 2, changes 5 and removes 1 of 250 products."""
        connect(monkeypatch, warehouse=sql_connection(engine.url))
        self.load(publish=True)
        sandbox.evolve(add=2, change=5, remove=1)
        return self.load(publish=False)

    @staticmethod
    def load(**arguments: Any) -> dict[str, Any]:
        load = M2PToSqlOperator(task_id="load", sql_conn_id="warehouse", table="products", **arguments)
        return load.execute({})

    @staticmethod
    def act(context: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
        arguments = {"sql_conn_id": "warehouse", **arguments}
        return M2PPublishLoadOperator(task_id="act", **arguments).execute(context or {})  # type: ignore[arg-type]

    @staticmethod
    def rows(engine: Engine) -> list[Any]:
        with engine.connect() as connection:
            return sorted(connection.execute(text("SELECT product_id, _m2p_row_hash FROM products")).all())

    def test_a_plan_is_plain_json_and_has_no_values(self, staged: dict[str, Any], sandbox: SandboxServer) -> None:
        assert json.loads(json.dumps(staged)) == staged
        assert [staged[name] for name in ("inserted", "updated", "unchanged", "deleted")] == [2, 5, 244, 1]
        assert sum(staged["changed_columns"].values()) >= 5
        assert staged["seconds"] > 0
        names = [str(product["productName"]) for product in sandbox.catalogue() if product.get("productName")]
        assert not any(name in json.dumps(staged, ensure_ascii=False) for name in names)

    def test_nothing_changes_until_it_is_published(self, staged: dict[str, Any], engine: Engine) -> None:
        before = self.rows(engine)
        assert len(before) == 250
        result = self.act(load_id=staged["load_id"])
        same = ("load_id", "tenant_id", "table", "write_mode", "inserted", "updated", "unchanged", "deleted")
        assert {name: result[name] for name in same} == {name: staged[name] for name in same}
        assert "changed_columns" not in result
        assert len(self.rows(engine)) == 252

    def test_outlets_get_their_events_when_it_is_published(self, staged: dict[str, Any]) -> None:
        asset = Asset("m2p_products")
        events = OutletEventAccessors()
        result = self.act({"outlet_events": events}, load_id=staged["load_id"], outlets=[asset])
        assert {name: events[asset].extra[name] for name in result} == result
        with pytest.raises(M2PConfigError, match="M2PPublishLoadOperator"):
            self.load(publish=False, outlets=[asset])

    def test_a_try_after_the_one_that_published(self, staged: dict[str, Any], engine: Engine) -> None:
        """The try before may have died before it could say so."""
        first = self.act(load_id=staged["load_id"], plan_id=staged["plan_id"])
        before = self.rows(engine)
        assert self.act(load_id=staged["load_id"], action="discard")["discarded"] is False  # the example's teardown
        asset, events = Asset("m2p_products"), OutletEventAccessors()
        again = self.act(
            {"outlet_events": events}, load_id=staged["load_id"], plan_id=staged["plan_id"], outlets=[asset]
        )
        assert {**again, "seconds": 0} == {**first, "seconds": 0}
        assert events[asset].extra["inserted"] == 2
        assert self.rows(engine) == before
        with pytest.raises(M2PLoadError, match="was staged again after plan other was made"):
            self.act(load_id=staged["load_id"], plan_id="other")

    def test_discard(self, staged: dict[str, Any], engine: Engine) -> None:
        before = self.rows(engine)
        load_id = staged["load_id"]
        assert self.act(load_id=load_id, action="discard") == {"load_id": load_id, "discarded": True}
        assert self.act(load_id=load_id, action="discard") == {"load_id": load_id, "discarded": False}
        assert self.rows(engine) == before
        assert not [name for name in inspect(engine).get_table_names() if re.fullmatch(r"_m2p_stage(?!d$).*", name)]
        with pytest.raises(M2PLoadError, match=r"waits.*Stage it again"):
            self.act(load_id=load_id)

    def test_a_table_that_moved_on_is_left_alone(self, staged: dict[str, Any], engine: Engine) -> None:
        self.load(publish=True)
        before = self.rows(engine)
        with pytest.raises(M2PLoadError, match=r"since load .* was staged\. Nothing was written"):
            self.act(load_id=staged["load_id"])
        assert self.rows(engine) == before

    def test_staged_again_after_it_was_agreed_to(self, staged: dict[str, Any], engine: Engine) -> None:
        before = self.rows(engine)
        run = TaskRun(dag_id="d", run_id="r", task_id="stage")
        load = M2PToSqlOperator(task_id="stage", sql_conn_id="warehouse", table="products", publish=False)
        agreed = load._load(run).as_dict()
        waiting = load._load(run).as_dict()
        assert waiting["load_id"] == agreed["load_id"]
        with pytest.raises(M2PLoadError, match=rf"staged again after plan {agreed['plan_id']} .* Nothing was written"):
            self.act(load_id=agreed["load_id"], plan_id=agreed["plan_id"])
        assert self.rows(engine) == before
        assert self.act(load_id=waiting["load_id"], plan_id=waiting["plan_id"])["inserted"] == 2

    @pytest.mark.parametrize("plan_id", ["", "None"])
    def test_nobody_agreed(self, staged: dict[str, Any], plan_id: str) -> None:
        with pytest.raises(M2PConfigError, match="plan_id is empty"):
            self.act(load_id=staged["load_id"], plan_id=plan_id)

    @pytest.mark.parametrize("load_id", ["", "None", None])
    def test_no_load_id(self, load_id: Any) -> None:
        with pytest.raises(M2PConfigError, match="load_id is empty"):
            self.act(load_id=load_id)

    def test_an_action_that_is_none(self) -> None:
        with pytest.raises(M2PConfigError, match="neither publish nor discard"):
            self.act(load_id="x", action="apply")

    def test_where_nothing_was_ever_staged(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        connect(monkeypatch, warehouse=sql_connection(engine.url))
        with pytest.raises(M2PLoadError, match="No staged load 'x' waits"):
            self.act(load_id="x")
        assert self.act(load_id="x", action="discard") == {"load_id": "x", "discarded": False}
