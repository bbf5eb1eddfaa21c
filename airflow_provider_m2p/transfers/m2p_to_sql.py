"""Load the product catalogue of the M2P Prepaid Platform into a SQL table."""

from __future__ import annotations

from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import Asset, BaseHook, BaseOperator

from airflow_provider_m2p.exceptions import M2PConfigError
from airflow_provider_m2p.hooks.m2p import M2PHook
from airflow_provider_m2p.links.m2p import M2PApiDocsLink
from airflow_provider_m2p.retries import no_hopeless_retries
from airflow_provider_m2p.task_run import TaskRun, random_load_id
from airflow_provider_m2p.warehouse.spec import LoadSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.sdk import Context
    from sqlalchemy import Engine

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
        ``customer.mobile``. Personal data belong here or in ``hash_columns``.
    :param hash_columns: the API's names of fields of which only a hash is kept.
    :param max_pages: stop after so many pages; such a load deletes nothing.
    :param if_unchanged: what to do if a load changed no row and no column: ``emit`` the asset events of the
        outlets all the same, be ``quiet`` (succeed without them), or ``skip`` (end as skipped, so that
        downstream tasks are skipped, too).
    """

    template_fields: Sequence[str] = (
        "m2p_conn_id",
        "sql_conn_id",
        "table",
        "schema",
        "endpoint",
        "key_columns",
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
        self.api_docs_url = ""

    def execute(self, context: Context) -> dict[str, Any]:
        """Load the list and return the load's counts."""
        started = datetime.now(UTC)
        run = TaskRun.of(context)
        with no_hopeless_retries(context):
            result = self._load(run)
        summary = result.as_dict()
        changed = result.inserted or result.updated or result.deleted or result.schema_changes
        # A retry finds nothing to do where the try before it died after its commit: somebody has to be told.
        retried = run is not None and run.try_number > 1
        if changed or retried or self.if_unchanged == "emit":
            self._report_to_outlets(context, {**summary, "watermark": started.isoformat()})
        else:
            self._keep_quiet(context, summary)
        return summary

    def _load(self, run: TaskRun | None) -> LoadResult:
        from airflow_provider_m2p.warehouse import Loader

        hook = M2PHook(self.m2p_conn_id)
        self.api_docs_url = hook.api_docs_url
        spec = self._spec(hook.settings.tenant_id, run)
        self.log.info(
            "Loading %s%s, tenant %s, into %s (%s), load %s",
            hook.settings.base_url,
            self.endpoint or hook.settings.products_path,
            spec.tenant_id,
            spec.full_name,
            spec.write_mode,
            spec.load_id,
        )
        with (
            warehouse_engine(self.sql_conn_id) as engine,
            hook.get_conn() as client,
            closing(client.pages(self.endpoint, max_pages=self.max_pages)) as pages,
        ):
            result: LoadResult = Loader(engine, spec).run(pages)
        self.log.info(
            "Loaded %s rows from %s pages in %.1f s: %s inserted, %s updated, %s unchanged, %s deleted, "
            "%s duplicates, %s schema changes",
            result.rows_read,
            result.pages,
            result.seconds,
            result.inserted,
            result.updated,
            result.unchanged,
            result.deleted,
            result.duplicates,
            len(result.schema_changes),
        )
        return result

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
            schema=self.schema,
            tenant_id=tenant_id,
            load_id=run.load_id if run else random_load_id(),
            key_columns=_names(self.key_columns),
            write_mode=self.write_mode,
            schema_policy=self.schema_policy,
            max_delete_ratio=self.max_delete_ratio,
            max_depth=self.max_depth,
            child_tables=self.child_tables,
            exclude_columns=_names(self.exclude_columns),
            hash_columns=_names(self.hash_columns),
            **origin,
        )

    def _report_to_outlets(self, context: Context, extra: dict[str, Any]) -> None:
        from airflow.sdk.definitions.asset import AssetRef

        events = context.get("outlet_events")
        if events is None:
            return
        for outlet in self.outlets:
            if isinstance(outlet, (Asset, AssetRef)):
                events[outlet].extra.update(extra)

    def _keep_quiet(self, context: Context, summary: dict[str, Any]) -> None:
        from airflow.sdk.exceptions import AirflowSkipException

        if self.if_unchanged == "skip":
            if self.do_xcom_push and "ti" in context:
                context["ti"].xcom_push(key="return_value", value=summary)
            raise AirflowSkipException("Nothing changed since the last load.")
        self.log.info("Nothing changed since the last load: no asset events.")
        self.outlets = []  # Airflow executes a copy of the task, made for this run


@contextmanager
def warehouse_engine(sql_conn_id: str) -> Iterator[Engine]:
    """
    Yield the engine of a connection to a SQL database, and close its connections afterwards.

    :param sql_conn_id: id of a connection whose hook is a ``DbApiHook``.
    """
    from airflow.providers.common.sql.hooks.sql import DbApiHook
    from airflow.sdk.exceptions import AirflowException

    connection = BaseHook.get_connection(sql_conn_id)
    try:
        hook = connection.get_hook()  # type: ignore[no-untyped-call]
    except AirflowException:  # Airflow's answer for a type that no installed provider knows
        hook = None
    if not isinstance(hook, DbApiHook):
        raise M2PConfigError(
            f"Connection {sql_conn_id!r} (sql_conn_id) is of type {connection.conn_type!r}, not a SQL database. "
            "Check the type, and that the provider package of the database is installed."
        )
    engine = hook.get_sqlalchemy_engine()
    try:
        yield engine
    finally:
        engine.dispose()


def _names(names: Sequence[str]) -> tuple[str, ...]:
    """One name is often written as plain text."""
    return (names,) if isinstance(names, str) else tuple(names)
