"""Tokens: asked for once, kept until shortly before they expire, dropped when refused."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import requests

from airflow_provider_m2p.client.claims import Claims
from airflow_provider_m2p.client.problem import error_of, one_line
from airflow_provider_m2p.client.retry import Cancellation, Retrier
from airflow_provider_m2p.client.settings import ClientSettings
from airflow_provider_m2p.client.transport import Call, Transport
from airflow_provider_m2p.exceptions import M2PApiError, M2PAuthError, M2PResponseError

#: Assumed where neither ``expires_in`` nor the token itself says how long it lives.
DEFAULT_LIFETIME = 600.0
#: Seconds before expiry at which a token is replaced; a tenth of the lifetime where that is less.
REFRESH_MARGIN = 300.0

_LONGEST_LIFETIME = 86_400.0
_LONGEST_TOKEN = 32 * 1024
_TOKEN = re.compile(r"[\x21-\x7e]+")
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Clock:
    """
    The time, twice: neither clock alone shows a token's age when the other is set or starts anew.

    :param wall: seconds since 1970; somebody may set it.
    :param steady: seconds that only go forward, alike in all processes until the machine restarts.
    """

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic


SYSTEM_CLOCK = Clock()


@dataclass(frozen=True, slots=True)
class Token:
    """
    A token and its age.

    :param value: what goes into the ``Authorization`` header.
    :param lifetime: seconds from the request for it to its expiry.
    :param wall: when it was asked for, by the wall clock.
    :param steady: the same by the steady clock.
    """

    value: str = field(repr=False)
    lifetime: float
    wall: float
    steady: float

    def fresh(self, clock: Clock) -> bool:
        """
        Tell whether the token may still be used. One from the future is not: a clock was set.

        :param clock: the time.
        """
        ages = (clock.wall() - self.wall, clock.steady() - self.steady)
        margin = min(REFRESH_MARGIN, self.lifetime / 10)
        return min(ages) > -5 and max(ages) < self.lifetime - margin


class TokenEndpoint:
    """
    Asks the platform for tokens.

    :param settings: the credential.
    :param transport: sends the request.
    :param retrier: repeats it when the platform is out of reach; refused credentials are never sent again.
    :param clock: the time.
    :param next_request_id: names each request.
    :param on_secret: told the token before anything else happens with it.
    """

    def __init__(
        self,
        settings: ClientSettings,
        transport: Transport,
        retrier: Retrier,
        clock: Clock,
        next_request_id: Callable[[], str],
        on_secret: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._retrier = retrier
        self._clock = clock
        self._next_request_id = next_request_id
        self._on_secret = on_secret

    def fetch(self, stop: Cancellation) -> Token:
        """
        Return a new token.

        :param stop: the reader it is for.
        """
        settings = self._settings
        call = Call(settings.conn_id, "POST", settings.token_path, self._next_request_id())
        body = {
            "clientId": settings.client_id,
            "clientSecret": settings.client_secret,
            "grantType": "client_credentials",
        }

        def attempt() -> Token:
            wall, steady = self._clock.wall(), self._clock.steady()
            response = self._transport.send(call, stop, headers={}, body=body)
            if response.status_code >= 400:
                raise self._refusal(response, call)
            value, lifetime = self._parse(response, call, wall)
            return Token(value, lifetime, wall, steady)

        return self._retrier.run(attempt, stop)

    def _refusal(self, response: requests.Response, call: Call) -> Exception:
        credentials = f"Check client id and client secret (login and password) of connection {self._settings.conn_id}"
        hints = {
            400: f"{credentials}.",
            401: f"{credentials}.",
            404: "Check the host, and the extra 'token_path'.",
        }
        if response.status_code == 403:
            address = self._transport.caller_address()
            hints[403] = f"{credentials}, and the platform's IP whitelist ({address})."
        error = error_of(response, call, now=self._clock.wall(), secrets=(self._settings.client_secret,), hints=hints)
        if isinstance(error, M2PApiError) and error.status_code in (400, 401, 403):
            return M2PAuthError(
                str(error),
                status_code=error.status_code,
                business_code=error.business_code,
                request_id=error.request_id,
            )
        return error

    def _parse(self, response: requests.Response, call: Call, now: float) -> tuple[str, float]:
        value: Any = None

        def says(problem: str) -> str:
            secrets = (self._settings.client_secret, value if isinstance(value, str) else "")
            kind = one_line(response.headers.get("Content-Type"), secrets, 60) or "no content type"
            what = f"no token in the answer: {problem} ({kind}, {len(response.content)} bytes)."
            return call.says(f"{what} Check the host, and the extra 'token_path'.")

        def refuse(problem: str) -> M2PAuthError:
            return M2PAuthError(says(problem), status_code=response.status_code, request_id=call.request_id)

        try:
            answer = msgspec.json.decode(response.content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise M2PResponseError(says("it is not JSON")) from None
        if not isinstance(answer, dict):
            raise M2PResponseError(says("it is not a JSON object"))
        value = answer.get("access_token")
        if isinstance(value, str) and value:
            self._on_secret(value)
        if "access_token" not in answer:
            raise refuse("field 'access_token' is missing")
        if not isinstance(value, str) or not value:
            raise refuse("field 'access_token' is empty or not text")
        if len(value) > _LONGEST_TOKEN or not _TOKEN.fullmatch(value):
            raise refuse("field 'access_token' is too long or has characters that no header may have")
        lifetime = _seconds(answer.get("expires_in")) or Claims.of(value).lifetime(now) or DEFAULT_LIFETIME
        return value, min(lifetime, _LONGEST_LIFETIME)


def _seconds(value: Any) -> float | None:
    """Return a positive number of seconds, sent as a number or as text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    with suppress(ValueError, OverflowError):
        seconds = float(value)
        if 0 < seconds < float("inf"):
            return seconds
    return None
