"""RS256 access tokens: issued, verified, revoked, and the public key to verify them with."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import dataclass
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from airflow_provider_m2p.sandbox.clock import Clock
from airflow_provider_m2p.sandbox.problems import Code, Problem
from airflow_provider_m2p.sandbox.state import State

ISSUER = "https://sandbox-api.m2pprepaid.com"
LEEWAY = 60  # seconds by which the clock of the token service may be ahead
CLAIMS = ["iss", "sub", "tenant", "roles", "iat", "exp", "jti"]


@dataclass(frozen=True)
class Claims:
    """Who a verified token speaks for."""

    client_id: str
    tenant: str
    roles: tuple[str, ...]
    jti: str


class Tokens:
    """
    The platform's token service.

    :param ttl: lifetime of a token in seconds.
    """

    def __init__(self, state: State, clock: Clock, *, ttl: int) -> None:
        self._state = state
        self._clock = clock
        self.ttl = ttl
        pem = state.remembered("signing key", _new_key())
        self._key = serialization.load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=True)
        assert isinstance(self._key, rsa.RSAPrivateKey)
        self._public = self._key.public_key()
        self.kid = state.remembered("signing key id", uuid.uuid4().hex[:16])

    def issue(
        self, client_id: str, tenant: str, roles: tuple[str, ...], *, ttl: float | None = None, skew: float = 0
    ) -> str:
        """
        A new token.

        :param ttl: overrides the usual lifetime.
        :param skew: seconds that the clock which dates the token is ahead of the clock which checks it.
        """
        now = self._clock() + skew
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "sub": client_id,
            "tenant": tenant,
            "roles": list(roles),
            "iat": int(now),
            "exp": math.ceil(now + (self.ttl if ttl is None else ttl)),
            "jti": uuid.uuid4().hex,
        }
        self._state.run("DELETE FROM tokens WHERE expires < ?", (self._clock(),))
        self._state.run("INSERT INTO tokens VALUES (?, ?, ?)", (claims["jti"], client_id, claims["exp"]))
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self.kid})  # type: ignore[arg-type]

    def verify(self, token: str) -> Claims:
        """Who the token speaks for; :class:`Problem` if it is not ours, has expired or was revoked."""
        try:
            # The lifetime is checked below, by the sandbox's own clock.
            options: Any = {"require": CLAIMS, "verify_exp": False, "verify_iat": False, "verify_nbf": False}
            if jwt.get_unverified_header(token).get("kid") != self.kid:
                raise jwt.InvalidTokenError("signed with another key")
            claims = jwt.decode(token, self._public, algorithms=["RS256"], issuer=ISSUER, options=options)
        except jwt.InvalidTokenError as error:
            raise Problem(Code.TOKEN_INVALID, "The access token is not one of this platform's.") from error
        if claims["iat"] > self._clock() + LEEWAY:
            raise Problem(Code.TOKEN_INVALID, "The access token is dated in the future.")
        if claims["exp"] <= self._clock():
            raise Problem(Code.TOKEN_EXPIRED, "The access token has expired. Ask for a new one.")
        if self._state.run("SELECT 1 FROM revoked WHERE jti = ?", (claims["jti"],)):
            raise Problem(Code.TOKEN_REVOKED, "The access token was revoked. Ask for a new one.")
        return Claims(claims["sub"], claims["tenant"], tuple(claims["roles"]), claims["jti"])

    def revoke(self, token: Claims) -> None:
        self._state.run("INSERT OR IGNORE INTO revoked VALUES (?)", (token.jti,))

    def revoke_client(self, client_id: str) -> None:
        """Revoke every token of a client."""
        self._state.run("INSERT OR IGNORE INTO revoked SELECT jti FROM tokens WHERE client_id = ?", (client_id,))

    def jwks(self) -> dict[str, Any]:
        """The public key as a JSON Web Key Set."""
        key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._public))
        return {"keys": [{**key, "kid": self.kid, "use": "sig", "alg": "RS256", "key_ops": ["verify"]}]}


@cache
def _new_key() -> str:
    """A key for this process: making one takes long. The sandboxes of a process differ in their key ids."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
