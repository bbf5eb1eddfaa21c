"""One HTTP exchange: kept-alive connections, the headers, TLS, and limits on the time and size of an answer."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import logging
import re
import ssl
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests
import urllib3
from requests.structures import CaseInsensitiveDict

from airflow_provider_m2p.client.address import caller_address
from airflow_provider_m2p.client.connection import Adapter, Exchange
from airflow_provider_m2p.client.retry import Cancellation, RateLimiter, Transient
from airflow_provider_m2p.client.settings import ClientSettings
from airflow_provider_m2p.exceptions import M2PApiError, M2PConfigError, M2PResponseError

#: The largest answer that is read, decompressed; what is larger is no page of a list.
MAX_BODY_BYTES = 256 * 1024 * 1024

_MAX_ERROR_BODY_BYTES = 256 * 1024
_CHUNK = 1024 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """
    One logical request, as messages name it.

    :param conn_id: the connection.
    :param method: the HTTP method.
    :param path: path below the base URL.
    :param request_id: the ``X-Request-ID``, the same through all retries.
    """

    conn_id: str
    method: str
    path: str
    request_id: str

    def says(self, text: str) -> str:
        """Return a message that begins with what was asked."""
        path = self.path.partition("?")[0]
        return f"Connection {self.conn_id}: {self.method} {path} (X-Request-ID {self.request_id}): {text}"


class Transport:
    """
    Sends requests to one base URL. Used by several threads at once.

    Nothing but what is given here is sent: no cookies, no ``.netrc``, no redirects. Proxies and ``REQUESTS_CA_BUNDLE``
    of the environment work.

    :param settings: where to, and how long to wait.
    :param user_agent: the ``User-Agent``.
    :param sleep: pauses; takes the seconds and the reader's ``Cancellation``.
    :param clock: seconds that only go forward.
    :param max_body_bytes: the largest answer that is read.
    """

    def __init__(
        self,
        settings: ClientSettings,
        user_agent: str,
        *,
        sleep: Callable[[float, Cancellation], None],
        clock: Callable[[], float] = time.monotonic,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._settings = settings
        self._user_agent = user_agent
        self._sleep = sleep
        self._max_body_bytes = max_body_bytes
        self._limiter = RateLimiter(settings.max_requests_per_minute, clock)
        self._timeout = urllib3.Timeout(connect=settings.connect_timeout, read=settings.read_timeout)
        with requests.Session() as session:
            environment = session.merge_environment_settings(settings.base_url, {}, True, settings.verify, None)
        proxies = environment["proxies"]
        verify = settings.verify if settings.verify is not True else environment["verify"] or True
        # Of requests' session only what finds the way: the rest would follow redirects and send what .netrc says.
        self._adapter = Adapter(pool_connections=1, pool_maxsize=max(10, settings.max_concurrency + 1))
        base = requests.Request("GET", settings.base_url).prepare()
        self._pool: Any = self._adapter.get_connection_with_tls_context(base, verify, proxies=proxies)
        self._adapter.cert_verify(self._pool, settings.base_url, verify, None)  # type: ignore[no-untyped-call]
        self._by_proxy = self._adapter.request_url(base, proxies) != base.path_url
        self._proxied = bool(requests.utils.select_proxy(settings.base_url, proxies))  # by a tunnel, too
        if verify is False:
            # Chosen in the connection: one line in the log instead of a warning per request.
            log.warning("Connection %s: TLS certificates are not checked (extra 'verify').", settings.conn_id)
            host = re.escape(urlsplit(settings.base_url).hostname or "")
            insecure = urllib3.exceptions.InsecureRequestWarning
            warnings.filterwarnings("ignore", message=f".*host '\\[?{host}\\]?'", category=insecure)

    def caller_address(self) -> str:
        """Describe the address that requests leave from."""
        return caller_address(self._settings.base_url, by_proxy=self._proxied)

    def send(
        self,
        call: Call,
        stop: Cancellation,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, Any] | None = None,
        body: Any = None,
    ) -> requests.Response:
        """
        Send one request and read its answer whole. Failures that may pass are raised as ``Transient``.

        :param call: what is asked.
        :param stop: the reader it is for.
        :param headers: the headers beyond those that every request has.
        :param params: query parameters.
        :param body: to be sent as JSON, where not ``None``.
        """
        data = None if body is None else self._encode(call, body)
        sent = {
            **headers,
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "Content-Type": "application/json",
            "User-Agent": self._user_agent,
            "X-Request-ID": call.request_id,
        }
        stop.check()
        pause = self._limiter.reserve()
        if pause > 0:
            self._sleep(pause, stop)
        try:
            request = _prepare(call.method, self._settings.base_url + call.path, params, sent, data)
        except ValueError:
            raise M2PConfigError(call.says("the path or a parameter is not text that a URL can hold.")) from None
        try:
            with Exchange(stop, self._settings.read_timeout):
                raw = self._pool.urlopen(
                    call.method,
                    request.url if self._by_proxy else request.path_url,
                    body=request.body,
                    headers=request.headers,
                    timeout=self._timeout,
                    retries=False,
                    redirect=False,
                    assert_same_host=False,
                    preload_content=False,
                    decode_content=False,
                )
                response = self._adapter.build_response(request, raw)
                self._read(call, response)
        except urllib3.exceptions.ClosedPoolError:
            raise RuntimeError("the client is closed") from None
        except (OSError, EOFError, zlib.error, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
            stop.check()
            raise self._failure(call, error) from None
        self._refuse_redirect(call, response)
        return response

    def close(self) -> None:
        """Close the kept connections."""
        self._pool.close()
        self._adapter.close()

    def _encode(self, call: Call, body: Any) -> bytes:
        try:
            return json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise M2PConfigError(call.says(f"the body cannot be written as JSON ({type(error).__name__}).")) from None

    def _read(self, call: Call, response: requests.Response) -> None:
        """Read the body into the response, so that it stays usable without the connection."""
        limit = self._max_body_bytes if response.ok else _MAX_ERROR_BODY_BYTES
        if 300 <= response.status_code < 400:
            limit = 0
        length = response.raw.length_remaining
        if length is not None and length <= limit:
            # Of known length, and read without a copy.
            body = response.raw.read()
        else:
            body = b"".join(_first_bytes(response.raw.stream(_CHUNK), limit))
        if len(body) > limit:
            response.close()
        elif response.headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip"):
            # Not by urllib3, which takes a stream that breaks off for a whole one.
            with gzip.open(io.BytesIO(body)) as file:
                body = b"".join(_first_bytes(iter(partial(file.read, _CHUNK), b""), limit))
        if len(body) > limit and response.status_code < 300:
            raise M2PResponseError(
                call.says(
                    f"the answer is larger than {limit} bytes, decompressed. Ask for smaller pages "
                    "(extra 'page_size'), or check that the path is a list."
                )
            )
        response._content = body
        response._content_consumed = True  # type: ignore[attr-defined]

    def _refuse_redirect(self, call: Call, response: requests.Response) -> None:
        if not 300 <= response.status_code < 400:
            return
        token = response.request.headers.get("Authorization", "").removeprefix("Bearer ")
        origin = _origin(response.headers.get("Location"), (self._settings.client_secret, token))
        raise M2PApiError(
            call.says(
                f"HTTP {response.status_code}, a redirect{origin}. Redirects are "
                "not followed, as they would carry the credentials elsewhere: check host and path of the connection."
            ),
            status_code=response.status_code,
            request_id=call.request_id,
        )

    def _failure(self, call: Call, error: Exception) -> Exception:
        certificate = next((c for c in _causes(error) if isinstance(c, ssl.SSLCertVerificationError)), None)
        if certificate is not None:
            return M2PConfigError(
                call.says(
                    f"the certificate of {self._settings.base_url} is not accepted: {certificate.verify_message}. "
                    "If a private CA signed it, name its file in the extra 'verify'."
                )
            )
        text = f"no whole answer from {self._settings.base_url}: {_reason(error)}. Check host, network and proxy."
        return Transient(M2PApiError(call.says(text), request_id=call.request_id))


@lru_cache(maxsize=64)
def _prepared_url(url: str) -> str:
    """Return the URL as it goes over the wire: requests takes its time for that."""
    return requests.Request("GET", url).prepare().url or ""


def _prepare(
    method: str, url: str, params: Mapping[str, Any] | None, headers: Mapping[str, str], data: bytes | None
) -> requests.PreparedRequest:
    request = requests.PreparedRequest()
    request.method = method
    request.url = _prepared_url(url)
    query = urlencode({name: value for name, value in (params or {}).items() if value is not None}, doseq=True)
    if query:
        request.url += ("&" if "?" in request.url else "?") + query
    request.headers = CaseInsensitiveDict(headers)
    if data is not None:
        request.headers["Content-Length"] = str(len(data))
        request.body = data
    return request


def _first_bytes(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Yield chunks up to the one that goes beyond the limit."""
    for chunk in chunks:
        yield chunk
        limit -= len(chunk)
        if limit < 0:
            return


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and whatever it was made from: its arguments, reasons and causes."""
    seen: set[int] = set()
    queue: list[object] = [error]
    while queue:
        current = queue.pop(0)
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            queue += [*current.args, getattr(current, "reason", None), current.__cause__, current.__context__]


def _reason(error: Exception) -> str:
    """Say why a connection failed, in words that hold no address of a proxy and nothing of the request."""
    details = (cause.strerror or str(cause) for cause in _causes(error) if isinstance(cause, OSError))
    detail = next(filter(None, details), "")
    return f"{type(error).__name__} ({detail})" if detail else type(error).__name__


def _origin(location: str | None, secrets: Iterable[str]) -> str:
    """Name where a redirect points to, as far as that is safe to show: scheme and host."""
    try:
        url = urlsplit(location or "")
        host = url.hostname or ""
    except ValueError:
        return ""
    shown = url.scheme in ("http", "https") and host.isascii() and host.isprintable() and len(host) < 254
    if not host or not shown or any(secret and secret.lower() in host for secret in secrets):
        return ""
    return f" to {url.scheme}://{host}"
