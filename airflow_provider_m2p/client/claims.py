"""What a token says about itself. Read without verification: good for messages, never for decisions of security."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_TENANT_CLAIMS = ("tenantId", "tenant_id", "tenant", "tenants")
_ROLE_CLAIMS = ("roles", "role", "authorities")
#: The levels the platform documents. All of them may read.
_READERS = ("admin", "operator", "viewer")


@dataclass(frozen=True, slots=True)
class Claims:
    """
    The claims of a token; empty for tokens that are not JWTs.

    :param claims: claim by name.
    """

    claims: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, token: str) -> Claims:
        """
        Read a token.

        :param token: any token, opaque ones included.
        """
        # Nothing is verified here, and to import PyJWT takes as long as to load a thousand rows.
        payload = token.split(".")[1] if token.count(".") == 2 else ""
        try:
            claims = json.loads(base64.b64decode(payload + "=" * (-len(payload) % 4), "-_", validate=True))
        except (ValueError, RecursionError):
            return cls()
        return cls(claims) if isinstance(claims, dict) else cls()

    @property
    def tenants(self) -> tuple[str, ...]:
        """The tenants the token names; none if it names none, or in a way we do not know."""
        return tuple(_texts(self.claims, _TENANT_CLAIMS))

    @property
    def roles(self) -> tuple[str, ...] | None:
        """The roles the token names; ``None`` if it has no claim about roles."""
        if not any(name in self.claims for name in _ROLE_CLAIMS):
            return None
        return tuple(_texts(self.claims, _ROLE_CLAIMS))

    @property
    def may_read(self) -> bool:
        """False if the token names roles, and none of the documented ones is among them."""
        return self.roles is None or any(level in role.lower() for role in self.roles for level in _READERS)

    def lifetime(self, now: float) -> float | None:
        """
        Return the seconds from issue to expiry, by the platform's clock where the token says when it was issued.

        :param now: the time, should it not.
        """
        issued, expires = _number(self.claims.get("iat")), _number(self.claims.get("exp"))
        if expires is None:
            return None
        seconds = expires - (now if issued is None else issued)
        return seconds if seconds > 0 else None


def _texts(claims: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        value = claims.get(name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and item:
                yield re.sub(r"[^\x20-\x7e]", "?", item)[:128]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
