"""Load the product catalogue of the M2P Prepaid Platform into a SQL table."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import BaseOperator

from airflow_provider_m2p.columns.names import show
from airflow_provider_m2p.exceptions import M2PConfigError
from airflow_provider_m2p.hooks.m2p import M2PHook
from airflow_provider_m2p.lineage import STAGED, Source, load_lineage, report_read, report_write
from airflow_provider_m2p.links.m2p import M2PApiDocsLink
from airflow_provider_m2p.load_task import log_counts, names_of, report_to_outlets, warehouse_engine, warehouse_hook
from airflow_provider_m2p.retries import no_hopeless_retries
from airflow_provider_m2p.task_run import TaskRun, random_load_id
from airflow_provider_m2p.warehouse.spec import LoadSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_m2p.warehouse.review import LoadPlan
    from airflow_provider_m2p.warehouse.spec import LoadResult, SchemaPolicy, WriteMode

IfUnchanged = Literal["emit", "quiet", "skip"]


class M2PToSqlOperator(BaseOperator):
    """
    Loads a list of the M2P Prepaid Platform into a SQL table, in one transaction.

    The table is created if it does not exist. A retry, or the same run cleared and run again, leaves the same
    table. Returns the counts of the load, and adds them to the asset events of its outlets.

    :param m2p_conn_id: id of a connection of type ``m2p``. (templated)
    :param sql_conn_id: id of a connection to any SQL database that Airflow has a hook for. (templated)
    :param table: the table to load. (templated)
    :param schema: its schema; the connection's default if not given. (templated)
    :param endpoint: path of another list; the connection's products by default. (templated)
    :param write_mode: ``upsert`` (rows that disappeared are marked), ``append``, ``replace``, or ``history``
        (SCD type 2).
    :param key_columns: the API's names of the fields that identify a row within the tenant. (templated)
    :param schema_policy: ``evolve`` the table with new fields, ``freeze`` it (a change is an error), or
        ``ignore`` new fields.
    :param max_delete_ratio: refuse a load that would delete more than this share of the tenant's rows.
    :param max_depth: levels of nested objects to flatten; deeper ones become JSON columns.
    :param child_tables: put arrays into child tables ``<table>__<field>`` instead of JSON columns.
    :param exclude_columns: the API's names of fields to leave out, with dots for nested ones, such as
        ``customer.mobile``. Personal data belong here or in ``hash_columns``. (templated)
    :param hash_columns: the API's names of fields of which only a hash is kept. (templated)
    :param max_pages: stop after so many pages; such a load deletes nothing.
    :param if_unchanged: what to do if a load changed no row and no column: ``emit`` the asset events of the
        outlets all the same, be ``quiet`` (succeed without them), or ``skip`` (end as skipped, so that
        downstream tasks are skipped, too).
    :param publish: if false, leave the table as it is: stage the rows, and return the plan of what publishing them
        will do, the counts with ``changed_columns``.
        :class:`~airflow_provider_m2p.operators.m2p.M2PPublishLoadOperator` publishes or discards it.
    """

    template_fields: Sequence[str] = (
        "m2p_conn_id",
        "sql_conn_id",
        "table",
        "schema",
        "endpoint",
        "key_columns",
        "exclude_columns",
        "hash_columns",
    )
    operator_extra_links = (M2PApiDocsLink(),)
    ui_color = "#e8f1fb"

    def __init__(
        self,
        *,
        m2p_conn_id: str = M2PHook.default_conn_name,
        sql_conn_id: str,
        table: str,
        schema: str | None = None,
        endpoint: str | None = None,
        write_mode: WriteMode = "upsert",
        key_columns: Sequence[str] = ("productId",),
        schema_policy: SchemaPolicy = "evolve",
        max_delete_ratio: float = 0.5,
        max_depth: int = 8,
        child_tables: bool = False,
        exclude_columns: Sequence[str] = (),
        hash_columns: Sequence[str] = (),
        max_pages: int | None = None,
        if_unchanged: IfUnchanged = "emit",
        publish: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.m2p_conn_id = m2p_conn_id
        self.sql_conn_id = sql_conn_id
        self.table = table
        self.schema = schema
        self.endpoint = endpoint
        self.write_mode = write_mode
        self.key_columns = key_columns
        self.schema_policy = schema_policy
        self.max_delete_ratio = max_delete_ratio
        self.max_depth = max_depth
        self.child_tables = child_tables
        self.exclude_columns = exclude_columns
        self.hash_columns = hash_columns
        self.max_pages = max_pages
        self.if_unchanged = if_unchanged
        self.publish = publish
        self.api_docs_url = ""
        self._loaded: tuple[LoadSpec, LoadResult] | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Load the list and return the load's counts."""
        started = datetime.now(UTC)
        run = TaskRun.of(context)
        with no_hopeless_retries(context):
            if self.if_unchanged not in ("emit", "quiet", "skip"):
                raise M2PConfigError(f"if_unchanged={self.if_unchanged!r} is none of emit, quiet, skip.")
            if not isinstance(self.publish, bool):  # a text, even "false", would count as true
                raise M2PConfigError(f"publish={self.publish!r} is neither True nor False.")
            if self.outlets and not self.publish:
                raise M2PConfigError(
                    "With publish=False no table changes yet. Give the outlets to the M2PPublishLoadOperator."
                )
            outcome = self._load(run)
        summary = outcome.as_dict()
        if not self.publish:
            return summary
        changed = any(summary[count] for count in ("inserted", "updated", "deleted", "schema_changes"))
        # A retry finds nothing to do where the try before it died after its commit: somebody has to be told.
        retried = run is not None and run.try_number > 1
        if changed or retried or self.if_unchanged == "emit":
            report_to_outlets(context, self.outlets, {**summary, "watermark": started.isoformat()})
        else:
            self._keep_quiet(context, summary)
        return summary

    def _load(self, run: TaskRun | None) -> LoadResult | LoadPlan:
        from airflow_provider_m2p.tracing import tracer
        from airflow_provider_m2p.warehouse import Loader

        hook = M2PHook(self.m2p_conn_id)
        self.api_docs_url = hook.api_docs_url
        spec = self._spec(hook.settings.tenant_id, run)
        warehouse = warehouse_hook(self.sql_conn_id)
        self.log.info(
            "Loading %s%s, tenant %s, into %s (%s), load %s",
            hook.settings.base_url,
            show(((self.endpoint or hook.settings.products_path).partition("?")[0],)),
            spec.tenant_id,
            show((spec.full_name,)),
            spec.write_mode,
            spec.load_id,
        )
        with (
            tracer().start_as_current_span("m2p load") as span,
            warehouse_engine(warehouse) as engine,
            hook.get_conn() as client,
            closing(client.pages(self.endpoint, max_pages=self.max_pages)) as pages,
        ):
            loader = Loader(engine, spec)
            plan: LoadPlan | None = None if self.publish else loader.stage(pages)
            result: LoadResult = plan.result if plan else loader.run(pages)
            report_read(hook, Source.of(hook.settings, self.endpoint))
            report_write(warehouse, engine.url, spec.schema, STAGED if plan else spec.table)
            span.set_attributes(
                {f"m2p.{key}": value for key, value in result.as_dict().items() if not isinstance(value, list)}
            )
        self._loaded = spec, result
        log_counts(self.log, "Staged, to be published:" if plan else "Loaded", result)
        return plan or result

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Return what was read and written, where OpenLineage is installed. Airflow calls it by its name."""
        from airflow_provider_m2p.warehouse import Loader

        if self._loaded is None:
            return None
        spec, result = self._loaded
        warehouse = warehouse_hook(self.sql_conn_id)
        with warehouse_engine(warehouse) as engine:
            return load_lineage(
                Source.of(M2PHook(self.m2p_conn_id).settings, self.endpoint),
                warehouse,
                engine,
                spec.schema,
                spec.table if self.publish else STAGED,
                result,
                columns=Loader(engine, spec).columns() if self.publish else None,
                hashed=spec.hash_columns,
            )

    def _spec(self, tenant_id: str, run: TaskRun | None) -> LoadSpec:
        origin: dict[str, Any] = {}
        if run:
            origin = {
                "attempt": run.try_number,
                "dag_id": run.dag_id,
                "run_id": run.run_id,
                "task_id": run.task_id,
                "map_index": run.map_index,
            }
        return LoadSpec(
            table=self.table,
            schema=self.schema or None,
            tenant_id=tenant_id,
            load_id=run.load_id if run else random_load_id(),
            key_columns=names_of(self.key_columns),
            write_mode=self.write_mode,
            schema_policy=self.schema_policy,
            max_delete_ratio=self.max_delete_ratio,
            max_depth=self.max_depth,
            child_tables=self.child_tables,
            exclude_columns=names_of(self.exclude_columns),
            hash_columns=names_of(self.hash_columns),
            **origin,
        )

    def _keep_quiet(self, context: Context, summary: dict[str, Any]) -> None:
        from airflow.sdk.exceptions import AirflowSkipException

        if self.if_unchanged == "skip":
            if self.do_xcom_push and "ti" in context:
                context["ti"].xcom_push(key="return_value", value=summary)
            raise AirflowSkipException("Nothing changed since the last load.")
        self.log.info("Nothing changed since the last load: no asset events.")
        self.outlets = []  # Airflow executes a copy of the task, made for this run
