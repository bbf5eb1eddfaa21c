"""Who may do what: bearer token, tenant, role, rate limit, and the addresses that may call at all."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import Scope

from airflow_provider_m2p.sandbox.problems import Code, Problem
from airflow_provider_m2p.sandbox.settings import Network
from airflow_provider_m2p.sandbox.simulator import Platform, RequestRecord

READ, MAKE, CHECK, MANAGE = "read", "make", "check", "manage"
MAY = {
    "Viewer": frozenset({READ}),
    "Operator": frozenset({READ, MAKE}),
    "Admin": frozenset({READ, MAKE, CHECK, MANAGE}),
}


@dataclass(frozen=True)
class Caller:
    """A client with a good token, asking for its own tenant."""

    client_id: str
    tenant: str
    roles: tuple[str, ...]
    request_id: str


def platform_of(request: Request) -> Platform:
    platform: Platform = request.scope["state"]["platform"]
    return platform


PlatformDep = Annotated[Platform, Depends(platform_of)]
bearer = HTTPBearer(
    auto_error=False,
    bearerFormat="JWT",
    scheme_name="AccessToken",
    description="Token from `POST /auth/token`.",
)


async def caller(
    request: Request,
    platform: PlatformDep,
    tenant_id: Annotated[str, Header(alias="X-TENANT-ID", min_length=1, description="Your tenant.")],
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Caller:
    """Authenticate a request; the first of token, tenant and rate limit that is not right refuses it."""
    record: RequestRecord = request.scope["state"]["record"]
    if credentials is None:
        raise Problem(Code.TOKEN_MISSING, "Send an access token: Authorization: Bearer <token>.")
    claims = platform.tokens.verify(credentials.credentials)
    record.client_id, record.tenant, record.token = claims.client_id, claims.tenant, claims.jti
    if tenant_id != claims.tenant:
        raise Problem(Code.OTHER_TENANT, "The access token is of another tenant than X-TENANT-ID.")
    platform.limiter.spend(claims.client_id)
    return Caller(claims.client_id, claims.tenant, claims.roles, record.request_id)


def allowed(action: str) -> Callable[..., object]:
    """A dependency: the caller, if one of its roles may do this."""

    async def check(caller: Annotated[Caller, Depends(caller)]) -> Caller:
        if not any(action in MAY.get(role, ()) for role in caller.roles):
            able = ", ".join(role for role in sorted(MAY) if action in MAY[role])
            raise Problem(Code.ROLE, f"Your role {'/'.join(caller.roles)} may not {action}; allowed: {able}.")
        return caller

    return check


Reader = Annotated[Caller, Depends(allowed(READ))]
Maker = Annotated[Caller, Depends(allowed(MAKE))]
Checker = Annotated[Caller, Depends(allowed(CHECK))]
Manager = Annotated[Caller, Depends(allowed(MANAGE))]


def address_of(scope: Scope, proxies: Iterable[Network]) -> str:
    """
    The address a request comes from.

    ``X-Forwarded-For`` counts only when a trusted proxy sent it, and then only its last address that is not itself a
    trusted proxy: anybody can write the ones before it.
    """
    client = scope.get("client")
    address = str(client[0]) if client else ""
    forwarded = ",".join(Headers(scope=scope).getlist("x-forwarded-for"))
    hops = [hop.strip() for hop in forwarded.split(",") if hop.strip()]
    while hops and within(address, proxies):
        address = hops.pop()
    return address


def within(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address lies in one of the networks; what is no address lies in none."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return any(found in network for network in networks)


def is_loopback(scope: Scope) -> bool:
    """Whether the peer itself, whatever headers it sent, is on this machine."""
    client = scope.get("client")
    return client is not None and within(str(client[0]), LOOPBACK)


LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
