"""The M2P Prepaid Platform as an Airflow hook."""

from __future__ import annotations

import re
import uuid
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from airflow_provider_m2p import __version__
from airflow_provider_m2p.lineage import Source, report_read
from airflow_provider_m2p.task_run import TaskRun

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd
    import requests
    from airflow.sdk import Connection

    from airflow_provider_m2p.client import M2PClient
    from airflow_provider_m2p.client.settings import ClientSettings

_TEST_CONNECT_TIMEOUT = 5.0
_TEST_READ_TIMEOUT = 15.0


class M2PHook(BaseHook):
    """
    Talks to the M2P Prepaid Platform with a connection's client id, client secret and tenant.

    Usable in operators and in ``@task`` functions. Nothing is read or sent before the first call::

        hook = M2PHook("m2p_default")
        for products in hook.iter_pages():
            ...

    :param m2p_conn_id: id of a connection of type ``m2p``.
    """

    conn_name_attr = "m2p_conn_id"
    default_conn_name = "m2p_default"
    conn_type = "m2p"
    hook_name = "M2P"

    def __init__(self, m2p_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.m2p_conn_id = m2p_conn_id

    @cached_property
    def connection(self) -> Connection:
        """Return the Airflow connection, read once."""
        return self.get_connection(self.m2p_conn_id)

    @cached_property
    def settings(self) -> ClientSettings:
        """Return what the connection says, checked."""
        from airflow_provider_m2p.client.settings import ClientSettings

        connection = self.connection
        return ClientSettings.from_connection(
            conn_id=self.m2p_conn_id,
            host=connection.host,
            port=connection.port,
            schema=connection.schema,
            login=connection.login,
            password=connection.password,
            extra=connection.extra,
        )

    @property
    def api_docs_url(self) -> str:
        """Return where the platform documents the API this connection talks to."""
        return f"{self.settings.base_url}/api-docs"

    @cached_property
    def _client(self) -> M2PClient:
        return self._new_client(self.settings)

    def _new_client(self, settings: ClientSettings, **options: Any) -> M2PClient:
        from airflow import __version__ as airflow_version
        from airflow.sdk.log import mask_secret

        from airflow_provider_m2p.tracing import TracedClient

        mask_secret(settings.client_secret)
        if reminder := self.rotation_reminder():
            self.log.warning("%s", reminder)
        run = TaskRun.current()
        if run:
            # A task may have several clients, and no two requests the same id.
            options["request_id_prefix"] = prefix = f"{run.request_id_prefix}-{uuid.uuid4().hex[:6]}"
            self.log.info("Request ids at the platform begin with %s", prefix)
        return TracedClient(
            settings,
            on_secret=mask_secret,
            user_agent=f"airflow-provider-m2p/{__version__} airflow/{airflow_version}",
            **options,
        )

    def get_conn(self) -> M2PClient:
        """Return the client: one session and one token for all calls of this hook."""
        return self._client

    def get_token(self) -> str:
        """Return a valid access token, from the cache where there is one. It is masked in logs."""
        return self._client.get_token()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        request_id: str | None = None,
    ) -> requests.Response:
        """
        Send one authenticated request, with the retries that are safe for it.

        :param method: the HTTP method.
        :param path: path below the connection's base URL.
        :param params: query parameters.
        :param json: body, sent as JSON.
        :param request_id: the ``X-Request-ID``; made up if not given.
        """
        return self._client.request(method, path, params=params, json=json, request_id=request_id)

    def iter_pages(
        self, path: str | None = None, params: Mapping[str, Any] | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """
        Yield the rows of a list page by page, numbers with a fraction as ``Decimal``.

        :param path: path of the list; the connection's products by default.
        :param params: more query parameters, sent with every page.
        """
        report_read(self, Source.of(self.settings, path))
        with closing(self._client.pages(path, params)) as pages:
            for page in pages:
                yield page.records()

    def get_products(self) -> list[dict[str, Any]]:
        """Return all products of the tenant. For large catalogues prefer :meth:`iter_pages`."""
        return [product for page in self.iter_pages() for product in page]

    def get_products_df(self) -> pd.DataFrame:
        """Return all products of the tenant as a DataFrame; ``limits.daily`` becomes ``limits__daily``."""
        from airflow_provider_m2p.frames import to_dataframe

        report_read(self, Source.of(self.settings, None))
        with closing(self._client.pages()) as pages:
            return to_dataframe(pages)

    def rotation_reminder(self) -> str | None:
        """Say that the client secret is due for rotation, from day 80 on; ``None`` before. Asks nobody."""
        return self.settings.rotation_reminder(datetime.now(UTC).date())

    def test_connection(self) -> tuple[bool, str]:
        """Try the connection and say which step failed: connection, token, tenant or products. Never raises."""
        step = "Connection"
        try:
            settings = replace(
                self.settings,
                connect_timeout=min(self.settings.connect_timeout, _TEST_CONNECT_TIMEOUT),
                read_timeout=min(self.settings.read_timeout, _TEST_READ_TIMEOUT),
                token_cache="off",  # the credentials are on trial, not a token they once gave
            )
            with self._new_client(settings, retry_seconds=0, request_id_prefix=uuid.uuid4().hex[:8]) as client:
                step = "Token"
                client.get_token()
                step = "Tenant"
                client.check_claims()
                step = "Products"
                page = client.peek()
        except Exception as error:
            return False, f"{step}: {self._without_id(str(error))}"
        count = "a list of" if page.total_rows is None else f"{page.total_rows:,}"
        found = f"Token received, tenant {settings.tenant_id} accepted, {count} products found."
        reminder = self._without_id(self.rotation_reminder() or "")
        return True, f"{found} {reminder[:1].upper()}{reminder[1:]}".rstrip()

    def _without_id(self, message: str) -> str:
        """Return a message about this connection without its id: the form's Test makes one up."""
        conn_id = re.escape(self.m2p_conn_id)
        message = re.sub(rf"^Connection {conn_id}: ", "", message)
        return re.sub(rf"\bconnection {conn_id}(?=\W|$)", "this connection", message)
