"""The platform itself, without HTTP: what the routes ask and what tests reach into."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from airflow_provider_m2p.sandbox.approvals import Approvals
from airflow_provider_m2p.sandbox.audit import Audit
from airflow_provider_m2p.sandbox.catalogue import Catalogue
from airflow_provider_m2p.sandbox.clients import Clients
from airflow_provider_m2p.sandbox.clock import Clock
from airflow_provider_m2p.sandbox.faults import Faults
from airflow_provider_m2p.sandbox.limiter import Limiter
from airflow_provider_m2p.sandbox.settings import Settings
from airflow_provider_m2p.sandbox.state import State
from airflow_provider_m2p.sandbox.tokens import Tokens

REQUESTS_KEPT = 100_000


@dataclass
class RequestRecord:
    """
    One request the sandbox got. Secrets and tokens are left out: ``token`` is the token's id (``jti``).

    :param address: where it came from, as the allow-list sees it.
    :param status: status answered; ``None`` while it is under way, or when the connection was cut.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str] = field(repr=False)
    request_id: str
    address: str
    client_id: str | None = None
    tenant: str | None = None
    token: str | None = None
    status: int | None = None


class Platform:
    """One M2P Prepaid Platform with its tenants."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.faults = Faults(settings.faults, settings.seed)
        self.clock = Clock()
        self.state = State(settings.state)
        for name in ("seed", "products"):
            now = str(getattr(settings, name))
            then = self.state.remembered(name, now)
            if then != now:
                self.state.close()
                raise ValueError(f"{settings.state} was made with {name}={then}, so it cannot go on with {now}")
        self.clients = Clients(self.state, self.clock)
        for client_id, tenant, role in settings.clients:
            self.clients.add(client_id, tenant, role)
        self.tokens = Tokens(self.state, self.clock, ttl=settings.token_ttl)
        self.limiter = Limiter(settings.rate_limit, self.clock)
        self.audit = Audit(self.state, self.clock)
        self.approvals = Approvals(self.state, self.clock, self.catalogue)
        self.requests: deque[RequestRecord] = deque(maxlen=REQUESTS_KEPT)
        self._catalogues: dict[str, Catalogue] = {}

    def catalogue(self, tenant: str) -> Catalogue:
        """The tenant's products, made when first asked for."""
        with self.state.lock:
            if tenant not in self._catalogues:
                size = self.settings.products
                self._catalogues[tenant] = Catalogue(self.state, tenant, seed=self.settings.seed, size=size)
            return self._catalogues[tenant]
