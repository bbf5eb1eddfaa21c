from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.openlineage.extractors import OperatorLineage
from airflow.sdk import Asset
from airflow.sdk.lineage import HookLineageCollector

from airflow_provider_m2p.hooks.m2p import M2PHook
from airflow_provider_m2p.lineage import Source, report_read, report_write, to_dataset
from airflow_provider_m2p.load_task import warehouse_hook
from airflow_provider_m2p.operators.m2p import M2PPublishLoadOperator
from airflow_provider_m2p.transfers.m2p_to_sql import M2PToSqlOperator
from tests.connections import connect, m2p_connection, sql_connection

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from airflow_provider_m2p.sandbox.server import SandboxServer


@pytest.fixture
def warehouse(engine: Engine, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Engine:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url), warehouse=sql_connection(engine.url))
    return engine


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> HookLineageCollector:
    """The collector that Airflow has if somebody reads it."""
    found = HookLineageCollector()
    monkeypatch.setattr("airflow.sdk.lineage.get_hook_lineage_collector", lambda: found)
    return found


def load(**arguments: Any) -> M2PToSqlOperator:
    return M2PToSqlOperator(task_id="load", sql_conn_id="warehouse", table="products", **arguments)


def names(engine: Engine, table: str) -> tuple[str, str]:
    url = engine.url
    if engine.dialect.name == "sqlite":
        return "sqlite", f"{url.database}.{table}"
    return f"postgres://{url.host}:{url.port}", f"{url.database}.public.{table}"


def test_a_load_knows_both_ends(warehouse: Engine, sandbox: SandboxServer) -> None:
    operator = load(hash_columns=["productType"])
    operator.execute({})
    lineage = operator.get_openlineage_facets_on_complete(None)
    assert isinstance(lineage, OperatorLineage)
    ((read,), (written,)) = lineage.inputs, lineage.outputs
    assert (read.namespace, read.name) == (f"m2p://{sandbox.url.removeprefix('http://')}", "ACME_CORP/v1/products")
    assert (written.namespace, written.name) == names(warehouse, "products")
    assert {"productId", "limits.daily"} <= {field.name for field in read.facets["schema"].fields}
    assert {"product_id", "limits__daily", "_m2p_load_id"} <= {f.name for f in written.facets["schema"].fields}
    assert read.inputFacets["inputStatistics"].rowCount == 250
    assert written.outputFacets["outputStatistics"].rowCount == 250
    columns = written.facets["columnLineage"].fields
    (source,) = columns["limits__daily"].inputFields
    assert (source.namespace, source.name, source.field) == (read.namespace, read.name, "limits.daily")
    assert source.transformations[0].masking is False
    assert columns["product_type"].inputFields[0].transformations[0].masking is True


def test_child_tables_are_outputs_too(warehouse: Engine, sandbox: SandboxServer) -> None:
    first = sandbox.catalogue()[0]
    sandbox.put({**first, "fees": [{"amount": 1, "paidBy": {"name": "x"}}], "tags": ["a"]})
    operator = load(child_tables=True, hash_columns=["fees.paidBy"])
    operator.execute({})
    lineage = operator.get_openlineage_facets_on_complete(None)
    assert lineage is not None
    outputs = {written.name: written for written in lineage.outputs}
    assert {names(warehouse, f"products{child}")[1] for child in ("", "__fees", "__tags")} <= outputs.keys()
    (read,) = lineage.inputs
    assert {"fees.amount", "fees.paidBy", "tags.value", "productId"} <= {f.name for f in read.facets["schema"].fields}
    assert "fees" not in outputs[names(warehouse, "products")[1]].facets["columnLineage"].fields
    for written in outputs.values():
        of = written.facets["columnLineage"].fields
        assert of.keys() <= {field.name for field in written.facets["schema"].fields}
        assert of["product_id"].inputFields[0].field == "productId"
    of = outputs[names(warehouse, "products__fees")[1]].facets["columnLineage"].fields
    assert of["amount"].inputFields[0].field == "fees.amount"
    assert [column for column in of if of[column].inputFields[0].transformations[0].masking] == ["paid_by"]


def test_a_reviewed_load_is_one_way_in_two_tasks(warehouse: Engine) -> None:
    stage = load(publish=False, child_tables=True)
    plan = stage.execute({})
    publish = M2PPublishLoadOperator(task_id="publish", sql_conn_id="warehouse", load_id=plan["load_id"])
    publish.execute({})
    first, second = (op.get_openlineage_facets_on_complete(None) for op in (stage, publish))
    assert first is not None
    assert second is not None
    assert first.inputs[0].name == "ACME_CORP/v1/products"
    assert first.outputs[0].name == second.inputs[0].name == names(warehouse, "_m2p_staged")[1]
    written = [output.name for output in second.outputs]
    assert written[0] == names(warehouse, "products")[1]
    assert names(warehouse, "products__bin_ranges")[1] in written


def test_a_reviewed_load_into_a_schema_writes_the_same_table(warehouse: Engine, collector: HookLineageCollector) -> None:
    schema = "main" if warehouse.dialect.name == "sqlite" else "public"
    direct = load(schema=schema)
    direct.execute({})
    plan = load(schema=schema, publish=False).execute({})
    publish = M2PPublishLoadOperator(task_id="publish", sql_conn_id="warehouse", load_id=plan["load_id"], schema=schema)
    publish.execute({})
    first, second = (op.get_openlineage_facets_on_complete(None) for op in (direct, publish))
    assert first is not None
    assert second is not None
    assert [output.name for output in second.outputs] == [output.name for output in first.outputs]
    assert len({output.asset.uri for output in collector.collected_assets.outputs if "_m2p_" not in output.asset.uri}) <= 1


def test_a_task_that_did_nothing_has_no_lineage() -> None:
    assert load().get_openlineage_facets_on_complete(None) is None
    discard = M2PPublishLoadOperator(task_id="discard", sql_conn_id="warehouse", load_id="x", action="discard")
    assert discard.get_openlineage_facets_on_complete(None) is None


def test_works_silently_without_openlineage(
    warehouse: Engine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for module in [name for name in sys.modules if "openlineage" in name]:
        monkeypatch.setitem(sys.modules, module, None)
    operator = load()
    assert operator.execute({})["inserted"] == 250
    assert operator.get_openlineage_facets_on_complete(None) is None
    assert "ineage" not in "".join(capfd.readouterr())


def test_hooks_tell_the_collector(warehouse: Engine, collector: HookLineageCollector, sandbox: SandboxServer) -> None:
    load().execute({})
    collected = collector.collected_assets
    uri = f"m2p://{sandbox.url.removeprefix('http://')}/ACME_CORP/v1/products"
    assert [found.asset.uri for found in collected.inputs] == [uri]
    written = [found.asset.uri for found in collected.outputs]
    if warehouse.dialect.name == "postgresql":
        url = warehouse.url
        assert written == [f"postgres://{url.host}:{url.port}/{url.database}/public/products"]
    else:
        assert written == []  # SQLite's provider has no assets


def test_the_hook_alone_tells_what_it_reads(warehouse: Engine, collector: HookLineageCollector) -> None:
    hook = M2PHook()
    next(hook.iter_pages("/configs/v1/products/", {"secret": "x"}))
    hook.get_products_df()
    uris = [found.asset.uri for found in collector.collected_assets.inputs]
    assert [uri.rpartition("ACME_CORP")[2] for uri in uris] == ["/configs/v1/products", "/v1/products"]


def test_a_collector_that_fails_costs_nothing(warehouse: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError

    monkeypatch.setattr("airflow.sdk.lineage.get_hook_lineage_collector", fail)
    source = Source.of(M2PHook().settings, "/x?mobile=1")
    assert source.path == "/x"
    report_read(M2PHook(), source)
    report_write(warehouse_hook("warehouse"), warehouse.url, None, "products")


def test_assets_of_the_platform_are_datasets() -> None:
    dataset = to_dataset(Asset(uri="m2p://api.m2pprepaid.com/ACME_CORP/v1/products/"), None)
    assert (dataset.namespace, dataset.name) == ("m2p://api.m2pprepaid.com", "ACME_CORP/v1/products")
