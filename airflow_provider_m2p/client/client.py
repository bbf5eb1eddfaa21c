"""The API client: settings in, pages out."""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
import uuid
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import requests

from airflow_provider_m2p import __version__
from airflow_provider_m2p.client.claims import Claims
from airflow_provider_m2p.client.envelope import read_answer
from airflow_provider_m2p.client.page import Page
from airflow_provider_m2p.client.pages import Fetched, Pages
from airflow_provider_m2p.client.problem import error_of, one_line, read_problem, typed_error
from airflow_provider_m2p.client.retry import Cancellation, Retrier
from airflow_provider_m2p.client.settings import ClientSettings, check_path
from airflow_provider_m2p.client.token import SYSTEM_CLOCK, Clock, Token, TokenEndpoint
from airflow_provider_m2p.client.token_cache import TokenSource
from airflow_provider_m2p.client.transport import MAX_BODY_BYTES, Call, Transport
from airflow_provider_m2p.exceptions import M2PConfigError, M2PPermissionError

#: Seconds over which one request is repeated before its failure is final.
RETRY_SECONDS = 300.0
#: Attempts to get a token.
_TOKEN_ATTEMPTS = 3
_TOKEN_RETRY_SECONDS = 60.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:+/=@~-]{1,128}")
_LONGEST_PREFIX = 108

log = logging.getLogger(__name__)


class M2PClient:
    """
    Talks to the platform as one connection says. Threads may share it; close it, or use it as a context manager.

    :param settings: the connection.
    :param on_secret: told every token before anything else happens with it, so that logs can mask it.
    :param user_agent: the ``User-Agent`` of every request.
    :param request_id_prefix: begins every ``X-Request-ID``, such as dag, run and task; random by default.
    :param retry_seconds: how long one request is repeated before its failure is final; 0 for no repetition.
    :param clock: the time.
    :param sleep: pauses; takes the seconds and the reader's ``Cancellation``.
    :param max_body_bytes: the largest answer that is read, decompressed.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        on_secret: Callable[[str], None] | None = None,
        user_agent: str = f"airflow-provider-m2p/{__version__}",
        request_id_prefix: str | None = None,
        retry_seconds: float = RETRY_SECONDS,
        clock: Clock = SYSTEM_CLOCK,
        sleep: Callable[[float, Cancellation], None] = lambda seconds, stop: stop.sleep(seconds),
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._prefix = _safe_prefix(request_id_prefix) if request_id_prefix else uuid.uuid4().hex
        self._counts = {kind: itertools.count(1) for kind in ("token", "request", "list")}
        self._transport = Transport(
            settings, user_agent, sleep=sleep, clock=clock.steady, max_body_bytes=max_body_bytes
        )
        self._retrier = Retrier(total_seconds=retry_seconds, clock=clock.steady, sleep=sleep)
        self._stop = Cancellation()
        self._streams: weakref.WeakSet[Pages] = weakref.WeakSet()
        on_secret = on_secret or (lambda _: None)
        endpoint = TokenEndpoint(
            settings,
            self._transport,
            Retrier(
                total_seconds=min(retry_seconds, _TOKEN_RETRY_SECONDS),
                attempts=_TOKEN_ATTEMPTS,
                clock=clock.steady,
                sleep=sleep,
            ),
            clock,
            lambda: f"{self._prefix}-t{next(self._counts['token'])}",
            on_secret,
        )
        self._tokens = TokenSource(settings, endpoint.fetch, clock, on_secret)

    def get_token(self) -> str:
        """Return a token that may be used, from the cache if there is one."""
        return self._tokens.get(self._stop).value

    def claims(self) -> Claims:
        """Return what the token says about itself."""
        return Claims.of(self.get_token())

    def check_claims(self) -> None:
        """Raise ``M2PPermissionError`` if the token is clearly for another tenant; warn if no role of it can read."""
        claims = self.claims()
        settings = self.settings
        if claims.tenants and settings.tenant_id not in claims.tenants:
            raise M2PPermissionError(
                f"Connection {settings.conn_id}: the token is for tenant {self._shown(claims.tenants[:5])}, the "
                f"connection names {settings.tenant_id}. Check the extra 'tenant_id', and whose client id it is."
            )
        if not claims.may_read:
            log.warning(
                "Connection %s: the token names no role that is known to read lists (Admin, Operator, Viewer), but: %s",
                settings.conn_id,
                self._shown((claims.roles or ())[:10]) or "none",
            )

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        request_id: str | None = None,
    ) -> requests.Response:
        """
        Send one request and return its answer, read whole. An error status is raised as the error it means.

        :param method: the HTTP method. ``POST`` and ``PUT`` are repeated, too: always under one ``X-Request-ID``.
        :param path: path below the base URL.
        :param params: query parameters.
        :param json: the body, sent as JSON.
        :param request_id: the ``X-Request-ID``, to repeat a request of an earlier run.
        """
        method = method.upper()
        if not re.fullmatch(r"[A-Z]{3,10}", method):
            raise M2PConfigError(f"Connection {self.settings.conn_id}: the method is not an HTTP method.")
        self._check_path(path)
        if request_id is None:
            request_id = f"{self._prefix}-r{next(self._counts['request'])}"
        elif not _REQUEST_ID.fullmatch(request_id):
            raise M2PConfigError(
                f"Connection {self.settings.conn_id}: the request id must be 1 to 128 letters, digits or ._:+/=@~-"
            )
        call = Call(self.settings.conn_id, method, path, request_id)
        return self._send(call, self._stop, params=params, body=json)

    def pages(
        self,
        path: str | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        max_pages: int | None = None,
    ) -> Pages:
        """
        Return the pages of a list. Nothing is asked before the first is read.

        :param path: the list; by default the connection's ``products_path``.
        :param params: query parameters beyond pageNo and pageSize.
        :param max_pages: read no more than so many pages.
        """
        if max_pages is not None and (type(max_pages) is not int or max_pages < 1):
            raise M2PConfigError(
                f"Connection {self.settings.conn_id}: max_pages must be 1 or more, as a number, not {max_pages!r}."
            )
        fetch = self._list(path, params, self.settings.page_size)
        stream = Pages(
            fetch,
            lambda: self.pages(path, params, max_pages=max_pages),
            paging=self.settings.paging,
            page_size=self.settings.page_size,
            concurrency=self.settings.max_concurrency,
            max_pages=max_pages,
            clock=self._clock.steady,
        )
        self._streams.add(stream)
        return stream

    def peek(self, path: str | None = None, params: Mapping[str, Any] | None = None) -> Page:
        """
        Return the first row of a list as a page, to see that it can be read. May hold more where pages are not known.

        :param path: the list; by default the connection's ``products_path``.
        :param params: query parameters beyond pageNo and pageSize.
        """
        fetched = self._list(path, params, 1)(0, self._stop)
        told = fetched.answer.pagination
        return Page(
            0,
            fetched.answer.rows,
            told.total_rows,
            told.total_pages,
            fetched.call.request_id,
            fetched.answer.has_escapes,
        )

    def close(self) -> None:
        """Stop reading lists, and close the connections."""
        for stream in list(self._streams):
            stream.close()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _list(
        self, path: str | None, params: Mapping[str, Any] | None, page_size: int
    ) -> Callable[[int, Cancellation], Fetched]:
        """Return what fetches one page of a list."""
        settings = self.settings
        path = settings.products_path if path is None else path
        self._check_path(path)
        params = dict(params or {})
        if settings.paging != "none" and params.keys() & {"pageNo", "pageSize"}:
            raise M2PConfigError(
                f"Connection {settings.conn_id}: pageNo and pageSize are set by the client (extra 'page_size'). To "
                "send your own, set the extra 'paging' to none."
            )
        count = next(self._counts["list"])
        prefix = self._prefix if count == 1 else f"{self._prefix}-l{count}"

        def fetch(number: int, stop: Cancellation) -> Fetched:
            if number == 0:
                self.check_claims()
            call = Call(settings.conn_id, "GET", path, f"{prefix}-p{number}")
            paging = {} if settings.paging == "none" else {"pageNo": number, "pageSize": page_size}
            response = self._send(call, stop, params={**params, **paging})
            token = response.request.headers["Authorization"].removeprefix("Bearer ")
            return Fetched.of(call, read_answer(response, call, (settings.client_secret, token)))

        return fetch

    def _send(
        self,
        call: Call,
        stop: Cancellation,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
    ) -> requests.Response:
        """Send a request, again where that can help, with a new token where the old one is refused."""
        renewed = False

        def send(token: Token) -> requests.Response:
            # Made anew for each attempt: the token may be another one by now.
            headers = {"Authorization": f"Bearer {token.value}", "X-TENANT-ID": self.settings.tenant_id}
            return self._transport.send(call, stop, headers=headers, params=params, body=body)

        def attempt() -> requests.Response:
            nonlocal renewed
            token = self._tokens.get(stop)
            response = send(token)
            if response.status_code == 401 and not renewed:
                renewed = True
                self._tokens.drop(token)
                token = self._tokens.get(stop)
                response = send(token)
            secrets = (self.settings.client_secret, token.value)
            if response.status_code >= 400:
                hints = self._hints(response.status_code, call, token)
                raise error_of(response, call, now=self._clock.wall(), secrets=secrets, hints=hints)
            self._refuse_problem(response, call, secrets)
            return response

        return self._retrier.run(attempt, stop)

    def _refuse_problem(self, response: requests.Response, call: Call, secrets: tuple[str, ...]) -> None:
        """Raise what calls itself a problem in spite of its status."""
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind == "application/problem+json":
            problem = read_problem(_json(response), secrets)
            if problem is not None:
                raise typed_error(problem.status or 200, problem, call, "HTTP 200, but the answer is a problem object")

    def _hints(self, status: int, call: Call, token: Token) -> dict[int, str]:
        """Return what to check, where the connection knows more than the status."""
        hints = {}
        if status == 403:
            claims = Claims.of(token.value)
            roles, tenants = self._shown((claims.roles or ())[:10]), self._shown(claims.tenants[:5])
            tenant = self.settings.tenant_id
            if tenants != tenant:
                tenant += f", the token's: {tenants or 'not named'}"
            address = self._transport.caller_address()
            hints[403] = f"Check role ({roles or 'not named'}), tenant ({tenant}), IP whitelist ({address})."
        if call.path == self.settings.products_path:
            other = "/configs/v1/products/" if call.path != "/configs/v1/products/" else "/v1/products/"
            hints[404] = f"Check the extra 'products_path': the platform also documents {other}"
        return hints

    def _shown(self, names: tuple[str, ...]) -> str:
        """Return what a token names, as it may stand in a message."""
        return ", ".join(one_line(name, (self.settings.client_secret,)) for name in names)

    def _check_path(self, path: str) -> None:
        problem = check_path(path)
        if problem:
            raise M2PConfigError(f"Connection {self.settings.conn_id}: the path {problem}.")


def _safe_prefix(prefix: str) -> str:
    """Return a prefix that any header may have; one that had to be changed stays unique by a digest."""
    safe = re.sub(r"[^A-Za-z0-9._:+/=@~-]", "_", prefix)
    if safe == prefix and len(safe) <= _LONGEST_PREFIX:
        return safe
    digest = hashlib.sha256(prefix.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe[: _LONGEST_PREFIX - 9]}-{digest}"


def _json(response: requests.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None
