"""
Where the rows of a load come from and where they go, for lineage tools.

Two ways, both Airflow's own. Hooks tell the hook lineage collector what they read and write, whoever listens. The
load operators tell OpenLineage what a finished task did: both ends by the names of their kind (``m2p://host`` and
tenant with path; what the warehouse's hook calls its tables), columns, counts, and which field each column holds.
Nothing of this can fail a task, and nothing is missing where OpenLineage is not installed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from airflow.providers.common.sql.hooks.sql import DbApiHook
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Asset
    from openlineage.client.event_v2 import Dataset
    from sqlalchemy import URL, Engine

    from airflow_provider_m2p.client.settings import ClientSettings
    from airflow_provider_m2p.warehouse.books import StoredColumn
    from airflow_provider_m2p.warehouse.spec import LoadResult

log = logging.getLogger(__name__)

#: The dataset that stands for rows that wait for consent, between the task that stages and the one that publishes.
STAGED = "_m2p_staged"


@dataclass(frozen=True, slots=True)
class Source:
    """
    A list of the platform.

    :param authority: the platform's host and port.
    :param tenant_id: whose list it is.
    :param path: below the base URL. A query is no part of a name, and may hold what must not be repeated.
    """

    authority: str
    tenant_id: str
    path: str

    @classmethod
    def of(cls, settings: ClientSettings, path: str | None) -> Source:
        """Return the list that a connection reads; its products by default."""
        return cls(
            urlsplit(settings.base_url).netloc, settings.tenant_id, (path or settings.products_path).partition("?")[0]
        )

    @property
    def namespace(self) -> str:
        """OpenLineage's namespace."""
        return f"m2p://{self.authority}"

    @property
    def name(self) -> str:
        """OpenLineage's name. Without a slash at its end, as Airflow writes URIs of assets."""
        return f"{quote(self.tenant_id)}{self.path.rstrip('/')}"

    @property
    def uri(self) -> str:
        """The list as an asset's URI."""
        return f"{self.namespace}/{self.name}"


def to_dataset(asset: Asset, lineage_context: Any) -> Dataset:
    """Return OpenLineage's dataset for an asset whose URI is a :attr:`Source.uri`. Airflow calls it by its name."""
    from openlineage.client.event_v2 import Dataset

    url = urlsplit(asset.uri)
    return Dataset(namespace=f"m2p://{url.netloc}", name=url.path.removeprefix("/"))


def report_read(hook: Any, source: Source) -> None:
    """
    Tell the hook lineage collector that a list is read.

    :param hook: the hook that reads it.
    :param source: the list.
    """
    try:
        from airflow.sdk.lineage import get_hook_lineage_collector

        get_hook_lineage_collector().add_input_asset(hook, uri=source.uri)
    except Exception as error:
        log.warning("Hook lineage of %r is missing: %s", source.uri, type(error).__name__)


def report_write(hook: DbApiHook, url: URL, schema: str | None, table: str) -> None:
    """
    Tell the hook lineage collector that a table is written, where the database's provider knows assets.

    :param hook: the database's hook.
    :param url: where it connects to.
    :param schema: the table's schema; the hook's default if not given.
    :param table: the table.
    """
    try:
        from airflow.sdk.lineage import get_hook_lineage_collector

        where = {"host": url.host, "port": url.port, "database": url.database, "table": table}
        where["schema"] = schema or hook.get_openlineage_default_schema()
        scheme = {"postgresql": "postgres"}.get(url.get_backend_name(), url.get_backend_name())
        known = {name: value for name, value in where.items() if value is not None}
        get_hook_lineage_collector().add_output_asset(hook, scheme=scheme, asset_kwargs=known)
    except Exception as error:
        log.warning("Hook lineage of table %r is missing: %s", table, type(error).__name__)


def load_lineage(
    source: Source | None,
    hook: DbApiHook,
    engine: Engine,
    schema: str | None,
    table: str,
    result: LoadResult,
    *,
    columns: Mapping[str, Collection[StoredColumn]] | None = None,
    hashed: Collection[str] = (),
) -> OperatorLineage[Any, Any] | None:
    """
    Return what a finished load did, for OpenLineage; ``None`` where it is not installed.

    :param source: the list that was read; ``None`` for rows that were staged before.
    :param hook: the warehouse's hook, which names the table.
    :param engine: the warehouse.
    :param schema: the table's schema; the hook's default if not given.
    :param table: the table that was written.
    :param result: the counts.
    :param columns: the columns of the table and of its child tables, by table, with the fields that they hold.
    :param hashed: the API's names of fields of which the table has a hash.
    """
    try:
        from airflow.providers.openlineage.extractors import OperatorLineage
        from openlineage.client import event_v2, facet_v2
    except ImportError:
        return None
    schemas = facet_v2.schema_dataset
    rows_in, rows_out = facet_v2.input_statistics_input_dataset, facet_v2.output_statistics_output_dataset

    columns = columns or {table: ()}
    if source is None:
        read = event_v2.InputDataset(*_table_name(hook, engine, schema, STAGED))
    else:
        read = event_v2.InputDataset(source.namespace, source.name)
        kinds = {".".join(column.path): column.kind.value for stored in columns.values() for column in stored}
        if kinds:
            described = [schemas.SchemaDatasetFacetFields(name=field, type=kind) for field, kind in kinds.items()]
            read.facets = {"schema": schemas.SchemaDatasetFacet(fields=described)}
    read.inputFacets = {"inputStatistics": rows_in.InputStatisticsInputDatasetFacet(rowCount=result.rows_read)}

    outputs = []
    for name, stored in columns.items():
        written = event_v2.OutputDataset(*_table_name(hook, engine, schema, name))
        written.facets = {"schema": schemas.SchemaDatasetFacet(fields=_columns_of(engine, schema, name))}
        if source is not None and stored:
            written.facets["columnLineage"] = _column_lineage(read, stored, hashed)
        if name == table:
            changed = result.inserted + result.updated + result.deleted
            statistics = rows_out.OutputStatisticsOutputDatasetFacet(rowCount=changed)
            written.outputFacets = {"outputStatistics": statistics}
        outputs.append(written)
    return OperatorLineage(inputs=[read], outputs=outputs)


def _column_lineage(read: Any, columns: Iterable[StoredColumn], hashed: Collection[str]) -> Any:
    """Return which field of a list each column holds, and whether only its hash."""
    from openlineage.client.facet_v2 import column_lineage_dataset as facets

    fields = {}
    for column in columns:
        field = ".".join(column.path)
        masked = any(field == name or field.startswith(f"{name}.") for name in hashed)
        how = facets.Transformation(type="DIRECT", subtype="TRANSFORMATION" if masked else "IDENTITY", masking=masked)
        one = facets.InputField(read.namespace, read.name, field, transformations=[how])
        fields[column.name] = facets.Fields(inputFields=[one])
    return facets.ColumnLineageDatasetFacet(fields=fields)


def _table_name(hook: DbApiHook, engine: Engine, schema: str | None, table: str) -> tuple[str, str]:
    """Return namespace and name of a table, as operators of common.sql would call it."""
    from airflow.providers.openlineage.sqlparser import SQLParser
    from airflow.sdk import BaseHook

    connection = BaseHook.get_connection(hook.get_conn_id())
    info = hook.get_openlineage_database_info(connection)
    if info is None:  # a hook without a naming of its own, such as SQLite's
        url = engine.url
        port = f":{url.port}" if url.port else ""
        namespace = f"{url.get_backend_name()}://{url.host}{port}" if url.host else url.get_backend_name()
        parts = (url.database, schema, table)
    else:
        namespace = SQLParser.create_namespace(info)
        parts = (info.database, schema or hook.get_openlineage_default_schema(), table)
    name = ".".join(part for part in parts if part)
    return namespace, name.upper() if info is not None and info.is_uppercase_names else name


def _columns_of(engine: Engine, schema: str | None, table: str) -> list[Any]:
    import sqlalchemy as sa
    from openlineage.client.facet_v2 import schema_dataset

    inspector = sa.inspect(engine)
    if not inspector.has_table(table, schema=schema):
        return []
    columns = inspector.get_columns(table, schema=schema)
    return [
        schema_dataset.SchemaDatasetFacetFields(name=column["name"], type=str(column["type"])) for column in columns
    ]
