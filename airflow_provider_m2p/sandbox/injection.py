"""ASGI middleware that lets the faults in force take effect."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_m2p.sandbox import fault_effects
from airflow_provider_m2p.sandbox.fault_effects import Answer, Exchange
from airflow_provider_m2p.sandbox.faults import Asked, Phase
from airflow_provider_m2p.sandbox.simulator import Platform

PUBLIC = ("/api-docs", "/.well-known/")


class Injection:
    """
    Stands between the gateway and the routes; without faults it is not there.

    :param app: the routes.
    """

    def __init__(self, app: ASGIApp, platform: Platform) -> None:
        self._app = app
        self._platform = platform

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        faults = self._platform.faults
        if not faults.active or scope["path"].startswith(PUBLIC):
            await self._app(scope, receive, send)
            return
        asked = Asked.of(scope)
        exchange = Exchange(self._platform, asked, scope, receive, send)
        answer = None
        for fault in faults.hit(Phase.REQUEST, asked):
            answer = await fault_effects.REQUEST.get(fault.name, fault_effects.status)(exchange, fault)
            if answer is not None:
                break
        if answer is None:
            answer = await self._handle(scope, receive)
            if answer.is_list:
                for fault in faults.hit(Phase.PAGE, asked):
                    answer = fault_effects.PAGE[fault.name](answer, fault)
                    break
            for fault in faults.hit(Phase.ANSWER, asked):
                answer = fault_effects.ANSWER[fault.name](answer, fault)
                break
        for fault in faults.hit(Phase.WIRE, asked):
            await fault_effects.WIRE[fault.name](exchange, fault, answer)
            return
        await exchange.respond(answer)

    async def _handle(self, scope: Scope, receive: Receive) -> Answer:
        """The answer of the routes, whole."""
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, collect)
        start, parts = messages[0], [message.get("body", b"") for message in messages[1:]]
        headers = {name.lower(): value for name, value in start["headers"]}
        content_type = headers.pop(b"content-type", b"")
        headers.pop(b"content-length", None)
        return Answer(start["status"], b"".join(parts), list(headers.items()), content_type)
