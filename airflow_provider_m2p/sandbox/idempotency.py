"""``X-Request-ID`` makes a write repeatable: the same request again gets the answer of the first time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from fastapi import Request
from starlette.responses import Response

from airflow_provider_m2p.sandbox.authorization import Caller
from airflow_provider_m2p.sandbox.catalogue import encode
from airflow_provider_m2p.sandbox.problems import MEDIA_TYPE, Code, Problem
from airflow_provider_m2p.sandbox.simulator import Platform


async def once(
    request: Request, platform: Platform, caller: Caller, action: str, act: Callable[[], tuple[int, str, Any]]
) -> Response:
    """
    Carry out a write, unless this client has sent it before under the same request id.

    What it did, the answer to repeat and the line in the audit log are one transaction.

    :param action: name for the audit log.
    :param act: does it; returns the status, what it was done to, and the ``result`` to answer with.
    """
    state, key = platform.state, (caller.client_id, caller.request_id)
    asked = f"{request.method} {request.url.path}\n".encode() + await request.body()
    fingerprint = hashlib.sha256(asked).digest()
    with state.transaction():
        sql = "SELECT fingerprint, status, body FROM answers WHERE client_id = ? AND request_id = ?"
        if answered := state.run(sql, key):
            if answered[0][0] != fingerprint:
                detail = "This X-Request-ID was used for another request. Give every request an id of its own."
                raise Problem(Code.REQUEST_ID_REUSED, detail)
            status, body = answered[0][1:]
        else:
            try:
                status, target, result = act()
                body, outcome = encode({"result": result}), "OK"
            except Problem as refusal:
                status, target, outcome = refusal.status, request.url.path, refusal.code.value[1]
                body = encode(refusal.body(request.url.path))
            state.run("INSERT INTO answers VALUES (?, ?, ?, ?, ?)", (*key, fingerprint, status, body))
            platform.audit.record(
                tenant=caller.tenant,
                actor=caller.client_id,
                action=action,
                target=target,
                outcome=outcome,
                request_id=caller.request_id,
            )
    return Response(body, status, media_type=MEDIA_TYPE if status >= 400 else "application/json")
