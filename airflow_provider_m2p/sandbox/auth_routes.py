"""Tokens: asking for one, and the key to verify it with."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from airflow_provider_m2p.sandbox.authorization import PlatformDep
from airflow_provider_m2p.sandbox.schemas import TokenRequest, TokenResponse
from airflow_provider_m2p.sandbox.simulator import RequestRecord

router = APIRouter(tags=["Authentication"])


@router.post("/auth/token")
async def issue_token(request: Request, platform: PlatformDep, asked: TokenRequest) -> TokenResponse:
    """Exchange a client id and secret for an access token. Cache it for `expires_in` seconds."""
    record: RequestRecord = request.scope["state"]["record"]
    platform.limiter.spend(f"token {(request.client.host if request.client else '')}")
    record.client_id = asked.clientId
    client = platform.clients.authenticate(asked.clientId, asked.clientSecret)
    record.tenant = client.tenant
    token = platform.tokens.issue(client.client_id, client.tenant, (client.role,))
    platform.audit.record(
        tenant=client.tenant,
        actor=client.client_id,
        action="TOKEN_ISSUED",
        target=client.client_id,
        outcome="OK",
        request_id=record.request_id,
    )
    return TokenResponse(access_token=token, token_type="Bearer", expires_in=platform.tokens.ttl)


@router.get("/.well-known/jwks.json")
async def jwks(platform: PlatformDep) -> dict[str, Any]:
    """The public key that access tokens are signed with."""
    return platform.tokens.jwks()
