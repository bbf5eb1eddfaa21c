"""The gateway every request passes: request id, log, address check, latency."""

from __future__ import annotations

import asyncio
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_m2p.sandbox.authorization import address_of, within
from airflow_provider_m2p.sandbox.problems import Code, Problem
from airflow_provider_m2p.sandbox.simulator import Platform, RequestRecord

SECRET_HEADERS = {"authorization", "cookie"}
CONTROL = "/_sandbox/"


class Gateway:
    """
    ASGI middleware in front of the routes.

    :param app: the routes.
    :param platform: whose settings and log it uses.
    """

    def __init__(self, app: ASGIApp, platform: Platform) -> None:
        self._app = app
        self._platform = platform

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        record = RequestRecord(
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            headers={name: value for name, value in headers.items() if name not in SECRET_HEADERS},
            request_id=headers.get("x-request-id") or str(uuid.uuid4()),
            address=address_of(scope, self._platform.settings.proxies),
        )
        scope["state"] |= {"record": record, "platform": self._platform}

        async def traced(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = record.request_id
            await send(message)

        if scope["path"].startswith(CONTROL):
            await self._app(scope, receive, traced)
            return
        self._platform.requests.append(record)
        settings = self._platform.settings
        if settings.latency_ms:
            await asyncio.sleep(settings.latency_ms / 1000)
        if settings.allowed and not within(record.address, settings.allowed):
            problem = Problem(Code.ADDRESS, "Your address is not on the allow-list. Ask for it to be added.")
            await problem.response(scope["path"])(scope, receive, traced)
            return
        await self._app(scope, receive, traced)
