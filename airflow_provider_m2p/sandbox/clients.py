"""The clients that may ask for a token, and their secrets."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from airflow_provider_m2p.sandbox.clock import Clock
from airflow_provider_m2p.sandbox.problems import Code, Problem
from airflow_provider_m2p.sandbox.state import State


@dataclass(frozen=True)
class Client:
    client_id: str
    tenant: str
    role: str


class Clients:
    """Client registry. A secret is kept as a digest; during a rotation window two of them are good."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._state = state
        self._clock = clock

    def add(self, client_id: str, tenant: str, role: str, secret: str | None = None) -> None:
        """Add a client; its first secret is ``<client id>-secret`` unless given. A known client stays as it is."""
        if self.get(client_id) is None:
            self._state.run("INSERT INTO clients VALUES (?, ?, ?)", (client_id, tenant, role))
            first = digest(secret or f"{client_id}-secret")
            self._state.run("INSERT INTO secrets VALUES (?, ?, NULL)", (client_id, first))

    def get(self, client_id: str) -> Client | None:
        found = self._state.run("SELECT client_id, tenant, role FROM clients WHERE client_id = ?", (client_id,))
        return Client(*found[0]) if found else None

    def authenticate(self, client_id: str, secret: str) -> Client:
        """The client, if the secret is good now; the refusal does not tell which of the two was wrong."""
        client = self.get(client_id)
        given = digest(secret)
        sql = "SELECT digest FROM secrets WHERE client_id = ? AND (valid_until IS NULL OR valid_until > ?)"
        good = [hmac.compare_digest(given, row[0]) for row in self._state.run(sql, (client_id, self._clock()))]
        if client is None or not any(good):
            raise Problem(Code.CREDENTIALS, "The client id or the client secret is wrong.")
        return client

    def rotate(self, client_id: str, *, window: float, secret: str | None = None) -> tuple[str, float]:
        """
        Give a client a new secret. The one before it stays good for the window, any older one ends now.

        :return: the new secret, and when the old one ends.
        """
        new = secret or secrets.token_urlsafe(24)
        ends = self._clock() + window
        self._state.run("DELETE FROM secrets WHERE client_id = ? AND valid_until IS NOT NULL", (client_id,))
        self._state.run("UPDATE secrets SET valid_until = ? WHERE client_id = ?", (ends, client_id))
        self._state.run("INSERT OR REPLACE INTO secrets VALUES (?, ?, NULL)", (client_id, digest(new)))
        return new, ends


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
