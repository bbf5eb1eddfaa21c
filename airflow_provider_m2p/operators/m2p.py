"""Take the product catalogue out of the M2P Prepaid Platform; publish loads that wait for consent."""

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
from airflow_provider_m2p.warehouse.spec import LoadSpec

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import pandas as pd
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context
    from sqlalchemy import Engine

    from airflow_provider_m2p.client.page import Page, PageStream
    from airflow_provider_m2p.columns.privacy import Privacy
    from airflow_provider_m2p.warehouse.loader import Loader
    from airflow_provider_m2p.warehouse.spec import LoadResult


class M2PExtractProductsOperator(BaseOperator):
    """
    Reads the product list into a DataFrame, or into a Parquet file of any size.

    Without ``output_path`` the DataFrame travels through XCom, that is Airflow's metadata database, and is
    limited to ``max_rows``. To load a SQL table, use
    :class:`~airflow_provider_m2p.transfers.m2p_to_sql.M2PToSqlOperator` instead.

    :param m2p_conn_id: id of a connection of type ``m2p``. (templated)
    :param output_path: an ``ObjectStoragePath`` URL such as ``s3://aws_default@bucket/products.parquet``:
        write Parquet there, page by page, and return the path. (templated)
    :param endpoint: path of another list; the connection's products by default. (templated)
    :param max_rows: the most rows a DataFrame may have; a longer list is an error. Parquet has no limit.
    :param max_pages: stop after so many pages.
    :param exclude_columns: the API's names of fields to leave out, with dots for nested ones. (templated)
    :param hash_columns: the API's names of fields of which only a hash is kept. (templated)
    """

    template_fields: Sequence[str] = (
        "m2p_conn_id",
        "output_path",
        "endpoint",
        "exclude_columns",
        "hash_columns",
    )
    operator_extra_links = (M2PApiDocsLink(),)
    ui_color = "#e8f1fb"

    def __init__(
        self,
        *,
        m2p_conn_id: str = M2PHook.default_conn_name,
        output_path: str | None = None,
        endpoint: str | None = None,
        max_rows: int = 10_000,
        max_pages: int | None = None,
        exclude_columns: Sequence[str] = (),
        hash_columns: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.m2p_conn_id = m2p_conn_id
        self.output_path = output_path
        self.endpoint = endpoint
        self.max_rows = max_rows
        self.max_pages = max_pages
        self.exclude_columns = exclude_columns
        self.hash_columns = hash_columns
        self.api_docs_url = ""

    def execute(self, context: Context) -> pd.DataFrame | str:
        """Read the list and return the DataFrame, or the path of the Parquet file."""
        from airflow_provider_m2p.columns.privacy import Privacy

        hook = M2PHook(self.m2p_conn_id)
        with no_hopeless_retries(context):
            if not isinstance(self.max_rows, int):
                raise M2PConfigError(f"max_rows={self.max_rows!r} is no whole number.")
            self.api_docs_url = hook.api_docs_url
            with (
                hook.get_conn() as client,
                closing(client.pages(self.endpoint, max_pages=self.max_pages)) as pages,
            ):
                report_read(hook, Source.of(hook.settings, self.endpoint))
                privacy = Privacy(names_of(self.exclude_columns), names_of(self.hash_columns), hook.settings.tenant_id)
                if self.output_path:
                    return self._write_parquet(pages, privacy, self.output_path)
                frame = self._to_dataframe(pages, privacy)
                if "ti" in context and self.do_xcom_push:
                    _refuse_for_xcom(frame)
                return frame

    def _write_parquet(self, pages: PageStream, privacy: Privacy, output_path: str) -> str:
        from airflow.sdk import ObjectStoragePath

        from airflow_provider_m2p.frames import write_parquet

        rows = write_parquet(privacy.pages(pages), ObjectStoragePath(output_path))
        self.log.info("Wrote %s rows from %s pages to %s", rows, pages.pages, show((output_path,)))
        return output_path

    def _to_dataframe(self, pages: PageStream, privacy: Privacy) -> pd.DataFrame:
        from airflow_provider_m2p.frames import to_dataframe

        frame = to_dataframe(privacy.pages(self._within_limit(pages)))
        self.log.info("Read %s rows from %s pages into %s columns", len(frame), pages.pages, len(frame.columns))
        return frame

    def _within_limit(self, pages: PageStream) -> Generator[Page]:
        rows = 0
        for page in pages:
            rows += len(page.rows)
            # A list announced as too long is refused at its first page, unless a part of it was asked for.
            expected = rows if self.max_pages else max(rows, page.total_rows or 0)
            if expected > self.max_rows:
                raise M2PConfigError(
                    f"The list has {expected:,} rows or more; a DataFrame in XCom may have {self.max_rows:,} "
                    "(max_rows). Set output_path to write Parquet page by page, or load the rows into a "
                    "table with M2PToSqlOperator."
                )
            yield page


def _refuse_for_xcom(frame: pd.DataFrame) -> None:
    """Refuse what Airflow cannot write to XCom, which holds a DataFrame as Parquet does."""
    import pyarrow as pa

    for name, column in frame.items():
        try:
            pa.Array.from_pandas(column)
        except pa.ArrowInvalid as error:
            raise M2PConfigError(
                f"Column {name!r} has numbers of more than 76 digits, which a DataFrame in XCom cannot have. Set "
                "output_path (Parquet keeps them as texts), leave the field out (exclude_columns), or load the rows "
                "into a table with M2PToSqlOperator."
            ) from error


class M2PPublishLoadOperator(BaseOperator):
    """
    Publishes a load that ``M2PToSqlOperator(publish=False)`` staged, or discards it.

    What is published is exactly what the plan says, in one transaction. If the table was loaded or changed
    since, nothing is written and the task fails: stage again, and review the new plan. Returns the counts of the
    load and adds them to the asset events of its outlets; for ``discard``, the load id and whether there was one.
    A retry, or the task cleared within a week, returns the same counts again, as long as the load was not staged again.

    :param sql_conn_id: id of the connection that the load was staged with. (templated)
    :param load_id: the plan's ``load_id``, such as ``{{ ti.xcom_pull('stage')['load_id'] }}``. (templated)
    :param plan_id: the ``plan_id`` of the plan that was agreed to: if the load was staged again since, it is not
        published. Take it from the task that decided, which knows the plan it decided on; the staging task only
        knows its last. Whatever waits under the load id by default. (templated)
    :param schema: the schema that the load was staged for. (templated)
    :param action: ``publish``, or ``discard``. (templated)
    """

    template_fields: Sequence[str] = ("sql_conn_id", "load_id", "plan_id", "schema", "action")
    ui_color = "#e8f1fb"

    def __init__(
        self,
        *,
        sql_conn_id: str,
        load_id: str,
        plan_id: str | None = None,
        schema: str | None = None,
        action: Literal["publish", "discard"] = "publish",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sql_conn_id = sql_conn_id
        self.load_id = load_id
        self.plan_id = plan_id
        self.schema = schema
        self.action = action
        self._published: LoadResult | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Publish the load and return its counts, or discard it and say whether there was one."""
        with no_hopeless_retries(context):
            if not self.load_id or self.load_id == "None":
                raise M2PConfigError(
                    "load_id is empty. Take it from the plan that the staging task returned, such as "
                    "\"{{ ti.xcom_pull('stage')['load_id'] }}\"; did that task run?"
                )
            if self.action == "discard":
                return self._discard()
            if self.action != "publish":
                raise M2PConfigError(f"action={self.action!r} is neither publish nor discard.")
            if self.plan_id in ("", "None"):
                raise M2PConfigError("plan_id is empty: the task that it is taken from decided on no plan.")
            self._published = result = self._publish()
        summary = result.as_dict()
        report_to_outlets(context, self.outlets, {**summary, "watermark": datetime.now(UTC).isoformat()})
        return summary

    def _publish(self) -> LoadResult:
        warehouse = warehouse_hook(self.sql_conn_id)
        with warehouse_engine(warehouse) as engine:
            result = self._loader(engine).publish(self.plan_id)
            report_write(warehouse, engine.url, self.schema, self._table(result))
        log_counts(self.log, f"Published load {show((self.load_id,))} into {show((result.table,))}:", result)
        return result

    def _table(self, result: LoadResult) -> str:
        """Return the table's name alone."""
        return result.table.removeprefix(f"{self.schema}.") if self.schema else result.table

    def _discard(self) -> dict[str, Any]:
        with warehouse_engine(warehouse_hook(self.sql_conn_id)) as engine:
            discarded = self._loader(engine).discard()
        outcome = "discarded" if discarded else "does not wait: nothing to discard"
        self.log.info("Load %s %s", show((self.load_id,)), outcome)
        return {"load_id": self.load_id, "discarded": discarded}

    def _loader(self, engine: Engine, table: str = STAGED) -> Loader:
        from airflow_provider_m2p.warehouse.loader import Loader

        # Table and tenant stand in the books, with all else that was staged.
        spec = LoadSpec(table=table, schema=self.schema, tenant_id="-", load_id=self.load_id)
        return Loader(engine, spec)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Return what was written, where OpenLineage is installed. Airflow calls it by its name."""
        if (result := self._published) is None:
            return None
        warehouse = warehouse_hook(self.sql_conn_id)
        with warehouse_engine(warehouse) as engine:
            table = self._table(result)
            columns = self._loader(engine, table).columns()
            return load_lineage(None, warehouse, engine, self.schema, table, result, columns=columns)
