"""Load the product catalogue of the M2P Prepaid Platform into a SQL table."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseHook, BaseOperator

from airflow_provider_m2p.exceptions import M2PConfigError
from airflow_provider_m2p.hooks.m2p import M2PHook
from airflow_provider_m2p.retries import no_hopeless_retries
from airflow_provider_m2p.task_run import TaskRun, random_load_id
from airflow_provider_m2p.warehouse.spec import LoadSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from sqlalchemy import Engine

    from airflow_provider_m2p.warehouse.spec import LoadResult, SchemaPolicy, WriteMode


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
    :param max_pages: stop after so many pages; such a load deletes nothing.
    """

    template_fields: Sequence[str] = (
        "m2p_conn_id",
        "sql_conn_id",
        "table",
        "schema",
        "endpoint",
        "key_columns",
    )
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
        max_pages: int | None = None,
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
        self.max_pages = max_pages

    def execute(self, context: Context) -> dict[str, Any]:
        """Load the list and return the load's counts."""
        with no_hopeless_retries(context):
            result = self._load(TaskRun.of(context))
        summary = result.as_dict()
        self._report_to_outlets(context, summary)
        return summary

    def _load(self, run: TaskRun | None) -> LoadResult:
        from airflow_provider_m2p.warehouse import Loader

        hook = M2PHook(self.m2p_conn_id)
        spec = self._spec(hook.settings.tenant_id, run)
        engine = self._engine()
        self.log.info(
            "Loading %s%s, tenant %s, into %s (%s), load %s",
            hook.settings.base_url,
            self.endpoint or hook.settings.products_path,
            spec.tenant_id,
            spec.table if spec.schema is None else f"{spec.schema}.{spec.table}",
            spec.write_mode,
            spec.load_id,
        )
        try:
            loader = Loader(engine, spec)
            loader.check()
            with (
                hook.get_conn() as client,
                closing(client.pages(self.endpoint, max_pages=self.max_pages)) as pages,
            ):
                result: LoadResult = loader.run(pages)
        finally:
            engine.dispose()
        self.log.info(
            "Loaded %s rows from %s pages into %s in %.1f s: %s inserted, %s updated, %s unchanged, "
            "%s deleted, %s duplicates",
            result.rows_read,
            result.pages,
            result.table,
            result.seconds,
            result.inserted,
            result.updated,
            result.unchanged,
            result.deleted,
            result.duplicates,
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
            key_columns=(self.key_columns,) if isinstance(self.key_columns, str) else tuple(self.key_columns),
            write_mode=self.write_mode,
            schema_policy=self.schema_policy,
            max_delete_ratio=self.max_delete_ratio,
            max_depth=self.max_depth,
            child_tables=self.child_tables,
            **origin,
        )

    def _engine(self) -> Engine:
        from airflow.providers.common.sql.hooks.sql import DbApiHook
        from airflow.sdk.exceptions import AirflowException

        connection = BaseHook.get_connection(self.sql_conn_id)
        try:
            hook = connection.get_hook()  # type: ignore[no-untyped-call]
        except AirflowException:  # Airflow's answer for a type that no installed provider knows
            hook = None
        if not isinstance(hook, DbApiHook):
            raise M2PConfigError(
                f"Connection {self.sql_conn_id!r} (sql_conn_id) is of type {connection.conn_type!r}, not a "
                "SQL database. Check the type, and that the provider package of the database is installed."
            )
        return hook.get_sqlalchemy_engine()

    def _report_to_outlets(self, context: Context, summary: dict[str, Any]) -> None:
        from airflow.sdk.definitions.asset import AssetRef

        events = context.get("outlet_events")
        if events is None:
            return
        for outlet in self.outlets:
            if isinstance(outlet, (Asset, AssetRef)):
                events[outlet].extra.update(summary)
