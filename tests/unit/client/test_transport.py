from __future__ import annotations

import gzip
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_provider_m2p.client import M2PClient
from airflow_provider_m2p.exceptions import M2PApiError, M2PConfigError, M2PError, M2PResponseError

from .conftest import SECRET, TOKEN, Asked, MakeClient, MakeSettings, Platform, Reply

PATH = "/v1/products/"


def test_one_connection_is_kept(platform: Platform, make_client: MakeClient) -> None:
    client = make_client()
    for _ in range(10):
        client.request("GET", PATH)
    assert platform.connections == 1


def test_a_connection_closed_meanwhile_is_opened_again(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda _: Reply([], headers={"Connection": "close"})
    client = make_client()
    for _ in range(3):
        client.request("GET", PATH)
    assert len(platform.lists) == 3


def test_nothing_but_ours_is_sent(
    platform: Platform, make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login foreign password foreign\n")
    monkeypatch.setenv("NETRC", str(netrc))
    platform.answer = lambda _: Reply([], headers={"Set-Cookie": "session=1; Path=/"})
    client = make_client({"user_agent": "test/1", "request_id_prefix": "run"})
    client.request("GET", PATH)
    client.request("GET", PATH)
    assert platform.lists[1].headers == {
        "Host": platform.url.removeprefix("http://"),
        "Authorization": f"Bearer {TOKEN}",
        "X-TENANT-ID": "ACME_CORP",
        "X-Request-ID": "run-r2",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "gzip",
        "User-Agent": "test/1",
    }


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308, 399])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_redirects_are_not_followed(platform: Platform, make_client: MakeClient, status: int, method: str) -> None:
    platform.answer = lambda _: Reply(
        b"hidden", status=status, headers={"Location": "https://me:hidden@evil.example/x?hidden"}
    )
    with pytest.raises(M2PApiError, match=rf"HTTP {status}, a redirect to https://evil\.example\. Redirects") as caught:
        make_client().request(method, PATH)
    assert caught.value.status_code == status
    assert "hidden" not in str(caught.value)
    assert len(platform.lists) == 1


@pytest.mark.parametrize("location", [None, "/elsewhere", "javascript:hidden", "https://[", "http://\x7f/"])
def test_redirects_to_nowhere(platform: Platform, make_client: MakeClient, location: str | None) -> None:
    platform.answer = lambda _: Reply(status=302, headers={"Location": location} if location else {})
    with pytest.raises(M2PApiError, match=r"HTTP 302, a redirect. Redirects"):
        make_client().request("GET", PATH)


BROKEN = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 20",
    "no HTTP": b"SSH-2.0-OpenSSH_9\r\n",
    "half a header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 200 + b"\r\n",
    "endless header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[1, 2",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\n[]",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\n[1, 2",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n",
    "no chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[]\r\n",
    "no gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n[]",
    "corrupt gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 60\r\n\r\n"
    + gzip.compress(bytes(range(256)))[:30]
    + b"\xff" * 30,
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_answers_are_asked_for_again(platform: Platform, make_client: MakeClient, name: str) -> None:
    replies: list[Any] = [Reply(raw=BROKEN[name]), Reply(raw=BROKEN[name]), {"ok": 1}]
    platform.answer = lambda _: replies.pop(0)
    assert make_client().request("GET", PATH).json() == {"ok": 1}
    assert len({asked.header("X-Request-ID") for asked in platform.lists}) == 1


def test_but_not_for_ever(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda _: Reply(raw=BROKEN["half a body"])
    with pytest.raises(M2PApiError, match=r"no whole answer from http://127\.0\.0\.1:\d+: .*Gave up after 6") as caught:
        make_client().request("GET", PATH)
    assert caught.value.status_code is None
    assert caught.value.request_id


def test_compressed_answers(platform: Platform, make_client: MakeClient) -> None:
    body = gzip.compress(b'{"x": ') + gzip.compress(b"1}")
    platform.answer = lambda _: Reply(body, headers={"Content-Encoding": "gzip"})
    assert make_client().request("GET", PATH).json() == {"x": 1}


def test_every_cut_of_a_compressed_answer_is_noticed(platform: Platform, make_client: MakeClient) -> None:
    whole = gzip.compress(b"[]")
    for length in range(1, len(whole)):
        platform.answer = lambda _, length=length: Reply(whole[:length], headers={"Content-Encoding": "gzip"})  # type: ignore[misc]
        with pytest.raises(M2PApiError, match="no whole answer"):
            make_client({"retry_seconds": 0}).request("GET", PATH)


def test_chunked_answers(platform: Platform, make_client: MakeClient) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n3\r\n 2]\r\n0\r\n\r\n"
    platform.answer = lambda _: Reply(raw=chunked)
    assert make_client().request("GET", PATH).json() == [1, 2]


@pytest.mark.parametrize("size", [1000, 1001, 5_000_000])
@pytest.mark.parametrize("kind", ["identity", "gzip", "chunked", "open end"])
def test_large_answers_are_refused(platform: Platform, make_client: MakeClient, size: int, kind: str) -> None:
    body = b" " * size
    head = b"HTTP/1.1 200 OK\r\n"
    reply = {
        "identity": Reply(body),
        "gzip": Reply(gzip.compress(body), headers={"Content-Encoding": "gzip"}),
        "chunked": Reply(raw=head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, body)),
        "open end": Reply(raw=head + b"\r\n" + body),
    }[kind]
    platform.answer = lambda _: reply
    client = make_client({"max_body_bytes": 1000})
    if size == 1000:
        assert client.request("GET", PATH).content == body
        return
    with pytest.raises(M2PResponseError, match=r"larger than 1000 bytes, decompressed\. .*page_size"):
        client.request("GET", PATH)
    assert len(platform.lists) == 1


def test_a_decompression_bomb_is_not_unpacked(platform: Platform, make_client: MakeClient) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000, 1) * 30
    platform.answer = lambda _: Reply(bomb, headers={"Content-Encoding": "gzip"})
    started = time.process_time()
    with pytest.raises(M2PResponseError, match="larger than 1000000 bytes"):
        make_client({"max_body_bytes": 1_000_000}).request("GET", PATH)
    assert time.process_time() - started < 1


def test_a_large_error_body_is_cut(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda _: Reply(b"x" * 5_000_000, status=400)
    with pytest.raises(M2PApiError, match="HTTP 400: the answer is no problem object"):
        make_client().request("GET", PATH)


def drip(head: bytes = b"") -> Iterator[bytes]:
    for byte in head:
        yield bytes([byte])
        time.sleep(0.02)
    while True:
        yield b" "
        time.sleep(0.02)


@pytest.mark.parametrize("status", [200, 302, 400])
def test_a_dripping_body_ends_in_time(platform: Platform, make_settings: MakeSettings, status: int) -> None:
    platform.answer = lambda _: Reply(status=status, chunks=drip())
    started = time.monotonic()
    with M2PClient(make_settings(read_timeout=0.1), retry_seconds=0) as client, pytest.raises(M2PApiError):
        client.request("GET", PATH)
    assert time.monotonic() - started < 5


def test_dripping_headers_end_in_time(make_settings: MakeSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    for byte in drip(b"HTTP/1.1 200 OK\r\nX-Endless: "):
                        connection.sendall(byte)
                except OSError:
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        started = time.monotonic()
        with (
            M2PClient(make_settings(host=url, read_timeout=0.1), retry_seconds=0) as client,
            pytest.raises(M2PApiError, match=r"no whole answer .*(took too long as a whole|timed out)"),
        ):
            client.get_token()
        assert time.monotonic() - started < 5
        thread.join(10)


def test_silence_ends_with_the_read_timeout(platform: Platform, make_settings: MakeSettings) -> None:
    release = threading.Event()
    platform.answer = lambda _: release.wait(20)
    started = time.monotonic()
    with (
        M2PClient(make_settings(read_timeout=0.1), retry_seconds=0) as client,
        pytest.raises(M2PApiError, match=r"no whole answer .*: ReadTimeoutError .*Check host, network and proxy"),
    ):
        client.request("GET", PATH)
    release.set()
    assert time.monotonic() - started < 5


def test_nobody_listens(make_client: MakeClient, make_settings: MakeSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(
        M2PApiError, match=rf"no whole answer from {url}: NewConnectionError \(Connection refused\)"
    ) as caught:
        make_client(host=url).get_token()
    assert caught.value.status_code is None


def test_ipv6(make_settings: MakeSettings) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(10_000)
                body = b'{"access_token": "six"}'
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        thread = threading.Thread(target=serve)
        thread.start()
        with M2PClient(make_settings(host=f"http://[::1]:{server.getsockname()[1]}")) as client:
            assert client.get_token() == "six"
        thread.join(10)


def test_an_http_proxy_of_the_environment(
    platform: Platform, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", platform.url.replace("http://", "http://user:hidden@"))
    client = make_client(host="http://api.example.com")
    platform.token = lambda _: {"access_token": TOKEN}
    client.request("GET", PATH, params={"a": 1})
    assert platform.asked[0].target == "http://api.example.com/auth/token"
    assert platform.asked[1].target == "http://api.example.com/v1/products/?a=1"
    assert platform.asked[1].header("Host") == "api.example.com"
    assert platform.asked[1].header("Proxy-Authorization")


def test_a_proxy_that_is_down_is_not_named_with_its_password(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("https_proxy", f"http://user:hidden@127.0.0.1:{server.getsockname()[1]}")
    with pytest.raises(M2PApiError, match=r"ProxyError \(Connection refused\)") as caught:
        make_client(host="https://api.example.com").get_token()
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("params", [{"a": "ü &=", "b": [1, 2], "c": None}, {"a": "x\r\nHost: evil"}, {"a": "#?/.."}])
def test_parameters_are_quoted(platform: Platform, make_client: MakeClient, params: dict[str, Any]) -> None:
    make_client().request("GET", f"{PATH}?x=1", params=params)
    (asked,) = platform.lists
    assert asked.path == PATH
    assert asked.query["x"] == "1"
    assert asked.query["a"] == params["a"]
    assert "c" not in asked.query
    assert asked.header("Host") == platform.url.removeprefix("http://")


@pytest.mark.parametrize("body", [{1, 2}, float("nan"), {"x": object()}])
def test_bodies_that_are_no_json(make_client: MakeClient, body: Any) -> None:
    with pytest.raises(M2PConfigError, match=r"m2p_test: POST .* the body cannot be written as JSON"):
        make_client().request("POST", PATH, json=body)


def test_a_rate_limit_holds_for_all_requests(platform: Platform, make_client: MakeClient, fake_time: Any) -> None:
    client = make_client(max_requests_per_minute=60)
    for _ in range(5):
        client.request("GET", PATH)
    assert fake_time.pauses == pytest.approx([1.0] * 5)


def key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


class Tls:
    """A platform behind TLS, and the CA that signed it."""

    def __init__(self, directory: Path, *, name: str = "localhost", days: int = 10) -> None:
        now = datetime.now(UTC)
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])

        def certificate(subject: str, key: Any, until: datetime, *, ca: bool) -> x509.Certificate:
            public = key.public_key()
            return (
                x509.CertificateBuilder()
                .subject_name(ca_name if ca else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
                .issuer_name(ca_name)
                .public_key(public)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - timedelta(days=30))
                .not_valid_after(until)
                .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
                .add_extension(x509.SubjectAlternativeName([x509.DNSName(subject)]), critical=False)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), critical=False)
                .add_extension(key_usage(ca=ca), critical=True)
                .sign(keys[0], hashes.SHA256())
            )

        self.ca_file, both = directory / "ca.pem", directory / "server.pem"
        pem = serialization.Encoding.PEM
        self.ca_file.write_bytes(certificate("ca", keys[0], now + timedelta(days=99), ca=True).public_bytes(pem))
        private = keys[1].private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        leaf = certificate(name, keys[1], now + timedelta(days=days), ca=False)
        both.write_bytes(private + leaf.public_bytes(pem))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(both)


@pytest.fixture
def tls(platform: Platform, tmp_path: Path) -> Callable[..., Tls]:
    def start(**certificate: Any) -> Tls:
        tls = Tls(tmp_path, **certificate)
        server = platform._server
        server.socket = tls.context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        platform.url = f"https://localhost:{server.server_port}"
        return tls

    return start


def test_a_private_ca(platform: Platform, tls: Callable[..., Tls], make_client: MakeClient) -> None:
    ca_file = tls().ca_file
    platform.answer = lambda _: [1, 2]
    client = make_client(verify=str(ca_file))
    assert client.request("GET", PATH).json() == [1, 2]
    assert client.request("GET", PATH).json() == [1, 2]
    assert platform.connections == 1


def test_a_ca_of_the_environment(
    platform: Platform, tls: Callable[..., Tls], make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls().ca_file))
    assert make_client().get_token() == TOKEN


@pytest.mark.parametrize(
    ("certificate", "own_ca", "words"),
    [
        ({}, False, "certificate"),
        ({"days": -1}, True, "expired"),
        ({"name": "elsewhere.example"}, True, "Hostname mismatch"),
    ],
)
def test_certificates_that_are_not_accepted(
    platform: Platform,
    tls: Callable[..., Tls],
    make_client: MakeClient,
    certificate: dict[str, Any],
    own_ca: bool,
    words: str,
) -> None:
    ca_file = tls(**certificate).ca_file
    with pytest.raises(M2PConfigError, match=rf"the certificate of https://localhost:\d+ is not accepted: .*{words}"):
        make_client(verify=str(ca_file) if own_ca else True).get_token()
    assert platform.asked == []
    assert platform.connections <= 1


def test_without_verification(
    platform: Platform, tls: Callable[..., Tls], make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    tls()
    with caplog.at_level(logging.WARNING):
        client = make_client(verify="false")
        client.request("GET", PATH)
        client.request("GET", PATH)
    assert [record.getMessage() for record in caplog.records] == [
        "Connection m2p_test: TLS certificates are not checked (extra 'verify')."
    ]


def test_closing_ends_a_read_over_tls(platform: Platform, tls: Callable[..., Tls], make_settings: MakeSettings) -> None:
    ca_file = tls().ca_file
    release, waiting = threading.Event(), threading.Event()

    def answer(asked: Asked) -> Any:
        if asked.page == 0:
            return [{"n": number} for number in range(10)]
        waiting.set()
        release.wait(30)
        return []

    platform.answer = answer
    with M2PClient(make_settings(verify=str(ca_file), page_size=10)) as client:
        stream = client.pages()
        next(iter(stream))
        assert waiting.wait(10)
        started = time.monotonic()
        stream.close()
        assert time.monotonic() - started < 5
    release.set()


def test_no_secret_in_any_message(platform: Platform, make_client: MakeClient) -> None:
    for raw in BROKEN.values():
        platform.answer = lambda _, raw=raw: Reply(raw=raw + f" {TOKEN} {SECRET}".encode())  # type: ignore[misc]
        try:
            make_client().request("GET", PATH)
        except M2PError as error:
            assert TOKEN not in str(error)
            assert SECRET not in str(error)
