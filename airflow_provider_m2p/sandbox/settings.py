"""What a sandbox is started with."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_CLIENTS = (
    ("acme-admin", "ACME_CORP", "Admin"),
    ("acme-operator", "ACME_CORP", "Operator"),
    ("acme-viewer", "ACME_CORP", "Viewer"),
    ("globex-viewer", "GLOBEX", "Viewer"),
)
ROLES = ("Admin", "Operator", "Viewer")


@dataclass(frozen=True)
class Settings:
    """
    Options of one sandbox; the command line has the same names.

    :param products: products of each tenant.
    :param page_size_max: larger ``pageSize`` values are capped to this.
    :param token_ttl: lifetime of a token in seconds.
    :param rate_limit: requests a caller may make, such as ``600/min`` or ``5/s``; ``None``: no limit.
    :param latency_ms: added to every answer.
    :param allow_ip: CIDR blocks that may call; empty: everybody.
    :param trust_proxy: CIDR blocks of proxies whose ``X-Forwarded-For`` is believed; empty: nobody's.
    :param faults: faults active from the start, see :mod:`airflow_provider_m2p.sandbox.faults`.
    :param seed: the same seed gives the same products and the same random faults.
    :param tenants: tenants besides ACME_CORP and GLOBEX; tenant ``TENANT_007`` has the clients
        ``tenant-007-admin``, ``tenant-007-operator`` and ``tenant-007-viewer``.
    :param rotation_window: seconds for which a rotated client secret is still accepted.
    :param state: SQLite file that keeps everything across restarts; ``None``: memory.
    :param tls: ``private-ca`` or ``expired`` for a certificate made at start, ``None`` for plain HTTP.
    :param tls_ca: where to write the certificate of the CA that ``tls`` makes; ``None``: a temporary file.
    :param tls_cert: PEM file of the certificate to serve under, with its chain.
    :param tls_key: PEM file of its key.
    """

    host: str = "127.0.0.1"
    port: int = 0
    products: int = 250
    page_size_max: int = 500
    token_ttl: int = 3600
    rate_limit: str | None = None
    latency_ms: int = 0
    allow_ip: tuple[str, ...] = ()
    trust_proxy: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    seed: int = 1
    tenants: tuple[str, ...] = ()
    rotation_window: int = 86_400
    state: str | None = None
    tls: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None
    allowed: tuple[Network, ...] = field(init=False, repr=False)
    proxies: tuple[Network, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, lowest in (("products", 0), ("page_size_max", 1), ("token_ttl", 1), ("latency_ms", 0)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be at least {lowest}, not {getattr(self, name)}")
        if self.tls not in (None, "private-ca", "expired"):
            raise ValueError(f"tls must be private-ca or expired, not {self.tls!r}")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key go together")
        if self.tls and self.tls_cert:
            raise ValueError("tls makes a certificate of its own: leave out tls_cert and tls_key")
        requests_per_second(self.rate_limit)
        object.__setattr__(self, "allowed", tuple(map(ipaddress.ip_network, self.allow_ip)))
        object.__setattr__(self, "proxies", tuple(map(ipaddress.ip_network, self.trust_proxy)))

    @property
    def all_tenants(self) -> tuple[str, ...]:
        return ("ACME_CORP", "GLOBEX", *self.tenants)

    @property
    def clients(self) -> tuple[tuple[str, str, str], ...]:
        """Client id, tenant and role of everybody who may ask for a token."""
        return DEFAULT_CLIENTS + tuple(
            (f"{tenant.lower().replace('_', '-')}-{role.lower()}", tenant, role)
            for tenant in self.tenants
            for role in ROLES
        )


def requests_per_second(limit: str | None) -> tuple[int, float] | None:
    """
    Read a rate limit.

    :param limit: such as ``600/min``, ``5/s`` or ``600`` (per minute).
    :return: the burst and the requests a second that refill it.
    """
    if limit is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)(?:/(s|min))?", limit)
    if not found:
        raise ValueError(f"a rate limit looks like 600/min or 5/s, not {limit!r}")
    burst = int(found[1])
    return burst, burst / (1 if found[2] == "s" else 60)
