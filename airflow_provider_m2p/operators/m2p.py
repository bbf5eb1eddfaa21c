"""Take the product catalogue out of the M2P Prepaid Platform."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import BaseOperator

from airflow_provider_m2p.exceptions import M2PConfigError
from airflow_provider_m2p.hooks.m2p import M2PHook
from airflow_provider_m2p.links.m2p import M2PApiDocsLink
from airflow_provider_m2p.retries import no_hopeless_retries

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import pandas as pd
    from airflow.sdk import Context

    from airflow_provider_m2p.client.page import Page, PageStream


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
    """

    template_fields: Sequence[str] = ("m2p_conn_id", "output_path", "endpoint")
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.m2p_conn_id = m2p_conn_id
        self.output_path = output_path
        self.endpoint = endpoint
        self.max_rows = max_rows
        self.max_pages = max_pages
        self.api_docs_url = ""

    def execute(self, context: Context) -> pd.DataFrame | str:
        """Read the list and return the DataFrame, or the path of the Parquet file."""
        hook = M2PHook(self.m2p_conn_id)
        with no_hopeless_retries(context):
            self.api_docs_url = hook.api_docs_url
            with (
                hook.get_conn() as client,
                closing(client.pages(self.endpoint, max_pages=self.max_pages)) as pages,
            ):
                if self.output_path:
                    return self._write_parquet(pages, self.output_path)
                return self._to_dataframe(pages)

    def _write_parquet(self, pages: PageStream, output_path: str) -> str:
        from airflow.sdk import ObjectStoragePath

        from airflow_provider_m2p.frames import write_parquet

        rows = write_parquet(pages, ObjectStoragePath(output_path))
        self.log.info("Wrote %s rows from %s pages to %s", rows, pages.pages, output_path)
        return output_path

    def _to_dataframe(self, pages: PageStream) -> pd.DataFrame:
        from airflow_provider_m2p.frames import to_dataframe

        frame = to_dataframe(cast("PageStream", self._within_limit(pages)))
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
