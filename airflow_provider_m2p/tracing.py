"""OpenTelemetry spans of what a task asks the platform. They cost next to nothing while Airflow's tracing is off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import context, trace
from opentelemetry.trace import SpanKind

from airflow_provider_m2p import __version__
from airflow_provider_m2p.client.client import M2PClient
from airflow_provider_m2p.exceptions import M2PApiError

if TYPE_CHECKING:
    import requests

    from airflow_provider_m2p.client.retry import Cancellation
    from airflow_provider_m2p.client.transport import Call


def tracer() -> trace.Tracer:
    """Return the provider's tracer."""
    return trace.get_tracer("airflow_provider_m2p", __version__)


class TracedClient(M2PClient):
    """
    A client with one span per logical request, its retries included.

    Pages are read by threads, which know nothing of the span that the task is in: what was current when the client
    was made is the parent of all its spans.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parent = context.get_current()

    def _send(self, call: Call, stop: Cancellation, **request: Any) -> requests.Response:
        path = call.path.partition("?")[0]
        attributes = {
            "http.request.method": call.method,
            "url.path": path,
            "server.address": self.settings.base_url,
            "m2p.conn_id": call.conn_id,
            "m2p.tenant_id": self.settings.tenant_id,
            "m2p.request_id": call.request_id,
        }
        with tracer().start_as_current_span(f"{call.method} {path}", self._parent, SpanKind.CLIENT, attributes) as span:
            try:
                response = super()._send(call, stop, **request)
            except M2PApiError as error:
                if error.status_code:
                    span.set_attribute("http.response.status_code", error.status_code)
                raise
            span.set_attribute("http.response.status_code", response.status_code)
            return response
