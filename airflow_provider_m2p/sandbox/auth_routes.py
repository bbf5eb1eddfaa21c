"""Tokens and secrets: asked for, rotated, revoked; the key to verify tokens with; the audit log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from airflow_provider_m2p.sandbox.authorization import Manager, PlatformDep, Reader
from airflow_provider_m2p.sandbox.clients import Client
from airflow_provider_m2p.sandbox.docs import SECURED, problems
from airflow_provider_m2p.sandbox.idempotency import once
from airflow_provider_m2p.sandbox.paging import PagingDep
from airflow_provider_m2p.sandbox.problems import Code, Problem
from airflow_provider_m2p.sandbox.products import instant
from airflow_provider_m2p.sandbox.schemas import (
    AuditList,
    KeySet,
    RevocationRequest,
    RevokedAnswer,
    RotatedAnswer,
    Rotation,
    TokenRequest,
    TokenResponse,
)
from airflow_provider_m2p.sandbox.simulator import Platform, RequestRecord

router = APIRouter(tags=["Authentication"])

ClientId = Annotated[str, Path(min_length=1, description="A client of your tenant.")]


@router.post("/auth/token", response_model=TokenResponse, responses=SECURED)
async def issue_token(request: Request, platform: PlatformDep, asked: TokenRequest) -> dict[str, Any]:
    """Exchange a client id and secret for an access token. Cache it for `expires_in` seconds."""
    record: RequestRecord = request.scope["state"]["record"]
    platform.limiter.spend(f"token {record.address}")
    known = platform.clients.get(asked.clientId)
    record.client_id, record.tenant = asked.clientId, known.tenant if known else None
    client = platform.clients.authenticate(asked.clientId, asked.clientSecret)
    state = request.scope["state"]  # where faults say what is wrong with this token
    ttl, skew = state.get("token_ttl", platform.tokens.ttl), state.get("token_skew", 0)
    token = platform.tokens.issue(client.client_id, client.tenant, (client.role,), ttl=ttl, skew=skew)
    platform.audit.record(
        tenant=client.tenant,
        actor=client.client_id,
        action="TOKEN_ISSUED",
        target=client.client_id,
        outcome="OK",
        request_id=record.request_id,
    )
    return {"access_token": token, "token_type": "Bearer", "expires_in": int(ttl)}


@router.get("/.well-known/jwks.json", response_model=KeySet, responses=problems(403))
async def jwks(platform: PlatformDep) -> dict[str, Any]:
    """The public key that access tokens are signed with."""
    return platform.tokens.jwks()


@router.post("/auth/revoke", status_code=204, responses=SECURED)
async def revoke_token(platform: PlatformDep, caller: Reader, revocation: RevocationRequest) -> Response:
    """Revoke an access token of your own client. A token that is not good any more is no error."""
    try:
        claims = platform.tokens.verify(revocation.token)
    except Problem:
        return Response(status_code=204)
    if claims.client_id != caller.client_id:
        raise Problem(Code.ROLE, "The access token is another client's. An Admin can revoke all of a client's.")
    platform.tokens.revoke(claims)
    platform.audit.record(
        tenant=caller.tenant,
        actor=caller.client_id,
        action="TOKEN_REVOKED",
        target=claims.client_id,
        outcome="OK",
        request_id=caller.request_id,
    )
    return Response(status_code=204)


@router.post(
    "/auth/clients/{clientId}/rotate", response_model=RotatedAnswer, responses={**SECURED, **problems(404, 409)}
)
async def rotate_secret(
    request: Request, platform: PlatformDep, caller: Manager, clientId: ClientId, rotation: Rotation
) -> Response:
    """Give a client of your tenant a new secret. The old one stays good until the rotation window ends."""

    def act() -> tuple[int, str, object]:
        client = client_of(platform, caller.tenant, clientId)
        window = rotation.windowSeconds
        secret, ends = platform.clients.rotate(
            client.client_id, window=platform.settings.rotation_window if window is None else window
        )
        until = instant(datetime.fromtimestamp(ends, UTC), millis=True)
        return 200, clientId, {"clientId": clientId, "clientSecret": secret, "previousSecretValidUntil": until}

    return await once(request, platform, caller, "SECRET_ROTATED", act)


@router.post(
    "/auth/clients/{clientId}/revoke", response_model=RevokedAnswer, responses={**SECURED, **problems(404, 409)}
)
async def revoke_client(request: Request, platform: PlatformDep, caller: Manager, clientId: ClientId) -> Response:
    """Revoke every access token of a client of your tenant."""

    def act() -> tuple[int, str, object]:
        client = client_of(platform, caller.tenant, clientId)
        platform.tokens.revoke_client(client.client_id)
        return 200, clientId, {"clientId": clientId}

    return await once(request, platform, caller, "TOKENS_REVOKED", act)


@router.get("/v1/audit-events/", response_model=AuditList, responses=SECURED, tags=["Audit"])
async def list_audit_events(platform: PlatformDep, caller: Manager, paging: PagingDep) -> Response:
    """Who did what at your tenant, oldest first: tokens, secrets, changes and refusals."""
    return paging.answer([msgspec.json.encode(event.as_json()) for event in platform.audit.events(caller.tenant)])


def client_of(platform: Platform, tenant: str, client_id: str) -> Client:
    client = platform.clients.get(client_id)
    if client is None or client.tenant != tenant:
        raise Problem(Code.NOT_FOUND, "Your tenant has no such client.")
    return client
