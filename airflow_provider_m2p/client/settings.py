"""What a connection says, checked once. Everything the client does later may rely on it."""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Literal, NoReturn, cast
from urllib.parse import unquote, urlsplit

from airflow_provider_m2p.exceptions import M2PConfigError

Paging = Literal["auto", "page", "none"]
TokenCache = Literal["disk", "process", "off"]

#: The extras a connection may have. Whatever else it holds is ignored, with one warning that names it.
KNOWN_EXTRAS = (
    "tenant_id",
    "token_path",
    "products_path",
    "paging",
    "page_size",
    "max_concurrency",
    "max_requests_per_minute",
    "connect_timeout",
    "read_timeout",
    "verify",
    "credentials_issued_on",
    "token_cache",
)

#: Days after which the platform asks for new credentials, and from which on we remind of it.
ROTATION_DAYS = 90
REMINDER_DAYS = 80

_LARGEST = {
    "page_size": 100_000,
    "max_concurrency": 64,
    "max_requests_per_minute": 1_000_000,
    "connect_timeout": 3600,
    "read_timeout": 3600,
}
_MASKED = "***"
_HOST_NAME = re.compile(r"([a-z0-9_][a-z0-9_-]{0,62}\.)*[a-z0-9_][a-z0-9_-]{0,62}\.?")
_PRINTABLE_ASCII = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientSettings:
    """
    One connection of type ``m2p``.

    :param conn_id: the connection's id; every message names it.
    :param base_url: scheme, host and port, without a path.
    :param client_id: the connection's login.
    :param client_secret: the connection's password.
    :param tenant_id: sent as ``X-TENANT-ID``.
    :param token_path: where tokens are asked for.
    :param products_path: the list that is read when no other is named.
    :param paging: ``auto``, ``page`` or ``none``.
    :param page_size: rows asked for per page.
    :param max_concurrency: the most pages in flight at once.
    :param max_requests_per_minute: the client's own limit; ``None`` for no limit.
    :param connect_timeout: seconds to wait for a connection.
    :param read_timeout: seconds to wait for the next bytes of an answer.
    :param verify: check TLS certificates, or the CA file to check them with.
    :param credentials_issued_on: the day the client secret was issued, for the rotation reminder.
    :param token_cache: who shares a token: the tasks of this host (``disk``), of this ``process``, or nobody (``off``).
    """

    conn_id: str
    base_url: str
    client_id: str
    client_secret: str = field(repr=False)
    tenant_id: str
    token_path: str = "/auth/token"
    products_path: str = "/v1/products/"
    paging: Paging = "auto"
    page_size: int = 100
    max_concurrency: int = 4
    max_requests_per_minute: int | None = None
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    verify: bool | str = True
    credentials_issued_on: date | None = None
    token_cache: TokenCache = "disk"

    @classmethod
    def from_connection(
        cls,
        *,
        conn_id: str,
        host: str | None,
        port: int | None = None,
        schema: str | None = None,
        login: str | None,
        password: str | None,
        extra: Mapping[str, Any] | str | None = None,
    ) -> ClientSettings:
        """
        Check a connection's fields; whatever is wrong with them is an ``M2PConfigError`` that names the field.

        :param conn_id: the connection's id.
        :param host: base URL, or host name.
        :param port: port, where the host does not name it.
        :param schema: not used by this connection type, and refused when it would change the meaning of the others.
        :param login: client id.
        :param password: client secret.
        :param extra: the extras, as a mapping or as JSON. Values may be strings, as URI connections have them.
        """
        read = _Reader(conn_id, extra)
        return cls(
            conn_id=conn_id,
            base_url=read.base_url(host, port, schema),
            client_id=read.credential("login", "client id", login),
            client_secret=read.credential("password", "client secret", password),
            tenant_id=read.tenant_id(),
            token_path=read.path("token_path", "/auth/token"),
            products_path=read.path("products_path", "/v1/products/"),
            paging=cast("Paging", read.choice("paging", ("auto", "page", "none"))),
            page_size=read.number("page_size", 100, whole=True),
            max_concurrency=read.number("max_concurrency", 4, whole=True),
            max_requests_per_minute=read.number("max_requests_per_minute", None, whole=True),
            connect_timeout=read.number("connect_timeout", 10.0),
            read_timeout=read.number("read_timeout", 60.0),
            verify=read.verify(),
            credentials_issued_on=read.day("credentials_issued_on"),
            token_cache=cast("TokenCache", read.choice("token_cache", ("disk", "process", "off"))),
        )

    def rotation_reminder(self, today: date) -> str | None:
        """
        Say that the client secret is due for rotation, from ten days before on; ``None`` if it is not, or not known.

        :param today: the day, in UTC.
        """
        if self.credentials_issued_on is None or (today - self.credentials_issued_on).days < REMINDER_DAYS:
            return None
        due = self.credentials_issued_on + timedelta(days=ROTATION_DAYS)
        left = (due - today).days
        when = "today" if left == 0 else f"in {left} days" if left > 0 else f"{-left} days ago"
        return (
            f"Connection {self.conn_id}: the client secret was issued on {self.credentials_issued_on} and is due for "
            f"rotation after {ROTATION_DAYS} days, on {due} ({when}). Get a new one, then change login, password and "
            "the extra 'credentials_issued_on'."
        )


def check_path(path: str) -> str | None:
    """
    Say what is wrong with a path that requests shall go to, or ``None``: it must stay on the connection's own host.

    :param path: what follows the base URL, perhaps with a query.
    """
    decoded = unquote(path)
    if not path.startswith("/"):
        return "must begin with '/' and name no host: scheme and host are the connection's"
    if decoded.startswith("//") or "\\" in decoded:
        return "must not name another host"
    if not decoded.isprintable():
        return "has control characters in it"
    if "#" in path:
        return "must not have a '#' in it"
    # Decoded once more, as a proxy on the way might.
    if any(part in (".", "..") for part in unquote(decoded).partition("?")[0].split("/")):
        return "must not have '.' or '..' as a part"
    return None


class _Reader:
    """Reads the fields of one connection, so that every complaint names connection and field in the same words."""

    def __init__(self, conn_id: str, extra: Mapping[str, Any] | str | None) -> None:
        self._conn_id = conn_id
        if isinstance(extra, str):
            try:
                extra = json.loads(extra) if extra.strip() else {}
            except (ValueError, RecursionError):
                self._refuse("extra", "is not valid JSON")
        if not isinstance(extra, Mapping | None):
            self._refuse("extra", 'must be a JSON object such as {"tenant_id": "ACME_CORP"}')
        self._extra = dict(extra or {})
        unknown = sorted(_one_line(str(name)) for name in self._extra if name not in KNOWN_EXTRAS)
        if unknown:
            log.warning(
                "Connection %s: extras that are not known are ignored: %s. Known are: %s",
                conn_id,
                ", ".join(unknown[:20]),
                ", ".join(KNOWN_EXTRAS),
            )

    def _refuse(self, name: str, problem: str) -> NoReturn:
        where = f"extra '{name}'" if name in KNOWN_EXTRAS else f"field '{name}'"
        raise M2PConfigError(f"Connection {self._conn_id}: {where} {problem}.")

    def _get(self, name: str) -> Any:
        """Return the extra's value; empty text, as forms leave it, is as good as none."""
        value = self._extra.get(name)
        return None if isinstance(value, str) and not value.strip() else value

    def base_url(self, host: str | None, port: int | None, schema: str | None) -> str:
        host = (host or "").strip()
        if not host:
            self._refuse("host", "is empty: put the base URL there, such as https://sandbox-api.m2pprepaid.com")
        if (schema or "").strip().lower() not in ("", "https"):
            self._refuse(
                "schema",
                "is not used: write http:// into the host if you mean it, paths into the extras 'token_path' and "
                "'products_path', and leave the schema empty",
            )
        url = self._split(host)
        if url.scheme not in ("http", "https"):
            self._refuse("host", "must begin with https:// or http://")
        if url.username is not None or url.password is not None:
            self._refuse("host", "must not hold credentials: client id and secret are login and password")
        if url.path.strip("/") or url.query or url.fragment or "?" in host or "#" in host:
            self._refuse(
                "host",
                "must be scheme, host and port only: paths go into the extras 'token_path' and 'products_path'",
            )
        name = url.hostname or ""
        if ":" in name:
            name = f"[{name}]"
        elif not _HOST_NAME.fullmatch(name):
            self._refuse("host", "is not a host name or URL: it should look like https://sandbox-api.m2pprepaid.com")
        try:
            url_port = url.port
        except ValueError:
            self._refuse("host", "names a port that is not a number from 1 to 65535")
        port = port or None  # forms save an empty one as 0
        if url_port is not None and port is not None and url_port != port:
            self._refuse("port", f"says {port}, but the host says {url_port}: leave one of them out")
        port = port if url_port is None else url_port
        if port is not None and not 1 <= port <= 65535:
            self._refuse("port", "must be a number from 1 to 65535")
        return f"{url.scheme}://{name}" + (f":{port}" if port is not None else "")

    def _split(self, host: str) -> Any:
        """Split the host as a URL; without a scheme it is https."""
        if "://" not in host:
            with suppress(ValueError):
                host = f"[{ipaddress.IPv6Address(host)}]"
            host = f"https://{host}"
        if not host.isascii() or not host.isprintable() or "\\" in host or " " in host:
            self._refuse("host", "has characters in it that no host name has")
        try:
            return urlsplit(host)
        except ValueError:
            self._refuse("host", "is not a URL: it should look like https://sandbox-api.m2pprepaid.com")

    def credential(self, name: str, meaning: str, value: str | None) -> str:
        if not value or not value.strip():
            self._refuse(name, f"is empty: it holds the {meaning}")
        if value == _MASKED:
            self._refuse(
                name,
                f"is {_MASKED}: a form saved the masked value instead of the {meaning}. Enter the {meaning} again",
            )
        if not value.isprintable():
            self._refuse(name, f"has a line break or another control character in it: paste the {meaning} again")
        return value

    def tenant_id(self) -> str:
        value = self._get("tenant_id")
        if value is None:
            self._refuse("tenant_id", "is missing: it is the tenant the platform assigned to you, sent as X-TENANT-ID")
        if isinstance(value, bool) or not isinstance(value, str | int):
            self._refuse("tenant_id", "must be text")
        text = "" if isinstance(value, int) and value.bit_length() > 512 else str(value)  # str() has a limit
        if not _PRINTABLE_ASCII.fullmatch(text) or len(text) > 128:
            self._refuse("tenant_id", "must be up to 128 printable ASCII characters without space around them")
        return text

    def path(self, name: str, default: str) -> str:
        value = self._get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            self._refuse(name, f"must be a path such as {default}")
        problem = check_path(value)
        if problem:
            self._refuse(name, f"{problem}. It should look like {default}")
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """Return one of the choices; the first is the default."""
        value = self._get(name)
        if value is None:
            return choices[0]
        text = value.strip().lower() if isinstance(value, str) else ""
        if text not in choices:
            self._refuse(name, f"must be one of {', '.join(choices)}")
        return text

    def number(self, name: str, default: Any, *, whole: bool = False) -> Any:
        value = self._get(name)
        if value is None:
            return default
        largest = _LARGEST[name]
        kind = "whole number" if whole else "number"
        complaint = f"must be a positive {kind} up to {largest}"
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self._refuse(name, complaint)
        try:
            number = float(value)
        except (ValueError, OverflowError):
            self._refuse(name, complaint)
        if not math.isfinite(number) or not 0 < number <= largest or (whole and number != int(number)):
            self._refuse(name, complaint)
        return int(number) if whole else number

    def verify(self) -> bool | str:
        value = self._get("verify")
        if value is None:
            return True
        text = value.strip() if isinstance(value, str) else str(value) if value in (0, 1) else ""
        if text.lower() in ("true", "1", "yes", "on"):
            return True
        if text.lower() in ("false", "0", "no", "off"):
            return False
        # One answer to all that is no such file: whoever may write this learns nothing of the machine's others.
        if not text.isprintable() or not os.path.isfile(text) or not _holds_certificates(text):
            self._refuse("verify", "is neither true nor false nor a CA file that exists on this machine")
        return text

    def day(self, name: str) -> date | None:
        value = self._get(name)
        if value is None:
            return None
        text = value.strip() if isinstance(value, str) else ""
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            self._refuse(name, "must be a date such as 2026-01-31")
        try:
            return date.fromisoformat(text)
        except ValueError:
            self._refuse(name, "must be a date such as 2026-01-31")


def _holds_certificates(path: str) -> bool:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:
        return False
    return True


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:60]
