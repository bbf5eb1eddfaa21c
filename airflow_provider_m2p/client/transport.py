"""One HTTP exchange: kept-alive connections, the headers, TLS, and limits on the time and size of an answer."""

from __future__ import annotations

import http.client
import io
import json
import logging
import re
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from airflow_provider_m2p.client.retry import Cancellation, RateLimiter, Transient
from airflow_provider_m2p.client.settings import ClientSettings
from airflow_provider_m2p.exceptions import M2PApiError, M2PConfigError, M2PResponseError

#: The largest answer that is read, decompressed; what is larger is no page of a list.
MAX_BODY_BYTES = 256 * 1024 * 1024
#: The whole of an answer must arrive within this many read timeouts, however steadily it drips.
READ_TIMEOUTS_PER_ANSWER = 5

_MAX_ERROR_BODY_BYTES = 256 * 1024
_CHUNK = 1024 * 1024
_RECEIVE_BUFFER = 256 * 1024

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
        self._adapter = _Adapter(pool_connections=1, pool_maxsize=settings.max_concurrency + 1)
        with requests.Session() as session:
            environment = session.merge_environment_settings(settings.base_url, {}, True, settings.verify, None)
        self._proxies = environment["proxies"]
        self._verify = settings.verify if settings.verify is not True else environment["verify"] or True
        if self._verify is False:
            # Chosen in the connection: one line in the log instead of a warning per request.
            log.warning("Connection %s: TLS certificates are not checked (extra 'verify').", settings.conn_id)
            host = re.escape(urlsplit(settings.base_url).hostname or "")
            insecure = urllib3.exceptions.InsecureRequestWarning
            warnings.filterwarnings("ignore", message=f".*host '\\[?{host}\\]?'", category=insecure)

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
            "Accept-Encoding": "gzip, deflate",
            "Content-Type": "application/json",
            "User-Agent": self._user_agent,
            "X-Request-ID": call.request_id,
        }
        stop.check()
        pause = self._limiter.reserve()
        if pause > 0:
            self._sleep(pause, stop)
        timeout = (self._settings.connect_timeout, self._settings.read_timeout)
        try:
            url = self._settings.base_url + call.path
            request = requests.Request(call.method, url, params=params, headers=sent, data=data).prepare()
            with _Exchange(stop, self._settings.read_timeout):
                response = self._adapter.send(
                    request, stream=True, timeout=timeout, verify=self._verify, proxies=self._proxies
                )
                self._read(call, response)
        except (OSError, UnicodeError, http.client.HTTPException, urllib3.exceptions.HTTPError) as error:
            # requests' own errors are OSErrors, too.
            stop.check()
            raise self._failure(call, error) from None
        self._refuse_redirect(call, response)
        return response

    def close(self) -> None:
        """Close the kept connections."""
        self._adapter.close()

    def _encode(self, call: Call, body: Any) -> bytes:
        try:
            return json.dumps(body, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise M2PConfigError(call.says(f"the body cannot be written as JSON ({type(error).__name__}).")) from None

    def _read(self, call: Call, response: requests.Response) -> None:
        """Read the body into the response, so that it stays usable without the connection."""
        limit = self._max_body_bytes if response.ok else _MAX_ERROR_BODY_BYTES
        chunks: list[bytes] = []
        size = 0
        if not 300 <= response.status_code < 400:
            for chunk in response.iter_content(_CHUNK):
                size += len(chunk)
                if size > limit:
                    break
                chunks.append(chunk)
        if size > limit or 300 <= response.status_code < 400:
            response.close()
        if size > limit and response.ok:
            raise M2PResponseError(
                call.says(
                    f"the answer is larger than {limit} bytes, decompressed. Ask for smaller pages "
                    "(extra 'page_size'), or check that the path is a list."
                )
            )
        response._content = b"".join(chunks)
        response._content_consumed = True  # type: ignore[attr-defined]

    def _refuse_redirect(self, call: Call, response: requests.Response) -> None:
        if not 300 <= response.status_code < 400:
            return
        raise M2PApiError(
            call.says(
                f"HTTP {response.status_code}, a redirect{_origin(response.headers.get('Location'))}. Redirects are "
                "not followed, as they would carry the credentials elsewhere: check host and path of the connection."
            ),
            status_code=response.status_code,
            request_id=call.request_id,
        )

    def _failure(self, call: Call, error: Exception) -> Exception:
        reason = _reason(error)
        certificate = next((c for c in _causes(error) if isinstance(c, ssl.SSLCertVerificationError)), None)
        if certificate is not None:
            return M2PConfigError(
                call.says(
                    f"the certificate of {self._settings.base_url} is not accepted: {certificate.verify_message}. "
                    "If a private CA signed it, name its file in the extra 'verify'."
                )
            )
        if isinstance(error, requests.exceptions.ContentDecodingError | requests.exceptions.ChunkedEncodingError):
            text = f"the answer broke off or is damaged: {reason}."
        elif isinstance(error, ValueError):
            return M2PConfigError(call.says(f"no valid request can be made of it ({type(error).__name__})."))
        else:
            text = f"no answer from {self._settings.base_url}: {reason}. Check host, network and proxy."
        return Transient(M2PApiError(call.says(text), request_id=call.request_id))


class _Exchange:
    """What the sockets of the current thread are reading for: until when, and for whom."""

    _of_thread = threading.local()

    def __init__(self, stop: Cancellation, read_timeout: float) -> None:
        self._stop = stop
        self._read_timeout = read_timeout
        self._deadline = time.monotonic() + read_timeout * READ_TIMEOUTS_PER_ANSWER

    @classmethod
    def current(cls) -> _Exchange:
        exchange: _Exchange = cls._of_thread.exchange
        return exchange

    def __enter__(self) -> None:
        self._of_thread.exchange = self

    def __exit__(self, *_: object) -> None:
        del self._of_thread.exchange
        self._stop.forget(self)

    def begin(self, sock: socket.socket) -> None:
        """Let the reader's going away end the wait for this socket."""
        self._stop.watch(self, lambda: _shut_down(sock))

    def next_timeout(self) -> float:
        """Return how long the next read may wait."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long as a whole")
        return min(left, self._read_timeout)


class _TimedReader(io.RawIOBase):
    """A socket's bytes, with the exchange's time limit over all reads: a timeout per read alone never ends a drip."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, exchange: _Exchange) -> None:
        self._raw = raw
        self._sock = sock
        self._exchange = exchange

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._exchange.next_timeout())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """Reads through ``_TimedReader``, with a buffer that holds most answers: every read competes for the GIL."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        exchange = _Exchange.current()
        exchange.begin(sock)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_TimedReader(raw, sock, exchange), _RECEIVE_BUFFER)


class _PlainConnection(HTTPConnection):
    response_class = _Response


class _TlsConnection(HTTPSConnection):
    response_class = _Response


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    """Connections whose reads end in time."""

    _pools: ClassVar = {"http": _PlainPool, "https": _TlsPool}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self._pools
        return manager


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):
        # Not SSLSocket's own, which would take the TLS state away from the thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


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
    details = (
        cause.strerror or str(cause)
        for cause in _causes(error)
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException)
    )
    detail = next(filter(None, details), "")
    return f"{type(error).__name__} ({detail})" if detail else type(error).__name__


def _origin(location: str | None) -> str:
    """Name where a redirect points to, as far as that is safe to show: scheme and host."""
    try:
        url = urlsplit(location or "")
        host = url.hostname or ""
        return f" to {url.scheme}://{host}" if url.scheme in ("http", "https") and host.isprintable() and host else ""
    except ValueError:
        return ""
