"""Each fault does over HTTP what it says, where and as often as it was told."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_m2p.sandbox import SandboxServer
from airflow_provider_m2p.sandbox.catalogue import decode
from airflow_provider_m2p.sandbox.faults import KINDS
from tests.integration.sandbox.calls import ask_token, assert_problem, call


@pytest.fixture
def box(box: SandboxServer) -> Iterator[SandboxServer]:
    yield box
    box.set_faults()


def page(box: SandboxServer, number: int = 0, size: int = 50, **more: Any) -> requests.Response:
    return call(box, "GET", "/v1/products/", params={"pageNo": number, "pageSize": size}, **more)


def ids(answer: requests.Response) -> list[str]:
    return [row["productId"] for row in answer.json()["result"]]


def wire(box: SandboxServer, path: str = "/v1/products/?pageNo=0&pageSize=50") -> tuple[bytes, bool]:
    """Everything the server sends for a request, and whether the connection was reset."""
    url = urlsplit(box.url)
    assert url.hostname
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {box.token()}\r\nX-TENANT-ID: ACME_CORP\r\n\r\n"
    got = b""
    with socket.create_connection((url.hostname, url.port or 0), timeout=10) as connection:
        connection.sendall(head.encode())
        try:
            while part := connection.recv(65536):
                got += part
        except ConnectionResetError:
            return got, True
    return got, False


# Schedules


def test_status_on_one_page_twice(box: SandboxServer) -> None:
    box.set_faults("503=7@page1x2")
    codes = [page(box, number).status_code for number in (0, 1, 1, 1, 2)]
    assert codes == [200, 503, 503, 200, 200]
    assert box.faults_fired() == {"503=7@page1x2": 2}


def test_where(box: SandboxServer) -> None:
    box.set_faults("500@token")
    assert_problem(ask_token(box), 500, "SBX_999")
    assert page(box).status_code == 200
    box.set_faults("500")
    assert ask_token(box).status_code == 200
    assert page(box).status_code == 500
    assert call(box, "GET", "/.well-known/jwks.json").status_code == 200
    box.set_faults("500@writes")
    assert page(box).status_code == 200
    assert call(box, "POST", "/v1/products/", client="acme-admin", json={}).status_code == 500
    box.set_faults("500@call3")
    assert [page(box).status_code for _ in range(5)] == [200, 200, 500, 200, 200]
    box.set_faults("500@page0")
    assert call(box, "GET", "/configs/v1/products/").status_code == 500


def test_chance_is_seeded(box: SandboxServer) -> None:
    def run() -> list[int]:
        box.set_faults("500~0.5")
        return [page(box, size=1).status_code for _ in range(20)]

    assert run() == run()
    assert set(run()) == {200, 500}


def test_switched_at_run_time_on_this_machine(box: SandboxServer) -> None:
    url = f"{box.url}/_sandbox/faults"
    answer = requests.put(url, json=["502x1", "drip=0.1@page3"], timeout=10)
    assert answer.json() == [{"spec": "502x1", "fired": 0}, {"spec": "drip=0.1@page3", "fired": 0}]
    assert page(box).status_code == 502
    assert requests.get(url, timeout=10).json()[0] == {"spec": "502x1", "fired": 1}
    problem = assert_problem(requests.put(url, json=["403", "no-such"], timeout=10), 400, "SBX_001")
    assert "known are a status from 400 to 599, big-page, clock-skew, close," in problem["detail"]
    assert "502x1" in box.faults_fired()
    assert requests.put(url, json=[], timeout=10).json() == []
    assert page(box).status_code == 200


def test_unknown_fault_is_refused_at_the_start() -> None:
    command = [sys.executable, "-m", "airflow_provider_m2p.sandbox", "--port", "0", "--fault", "earthquake"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no fault 'earthquake'; known are a status from 400 to 599, big-page," in done.stderr


# In place of an answer


def test_retry_after(box: SandboxServer) -> None:
    box.set_faults("429=7x1", "503=date90")
    answer = page(box)
    assert_problem(answer, 429, "SBX_999")
    assert answer.headers["Retry-After"] == "7"
    ahead = parsedate_to_datetime(page(box).headers["Retry-After"]).timestamp() - time.time()
    assert 85 < ahead < 95


def test_answers_of_others(box: SandboxServer) -> None:
    box.set_faults("htmlx1", "html=200x1", "emptyx1", "problem-200x1", "redirect=http://127.0.0.1:1/base")
    gateway, login, empty, wolf, moved = (page(box, allow_redirects=False) for _ in range(5))
    assert (gateway.status_code, login.status_code) == (502, 200)
    assert gateway.headers["Content-Type"] == login.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<h1>" in gateway.text
    assert (empty.status_code, empty.content) == (200, b"")
    assert (wolf.status_code, wolf.json()["status"]) == (200, 500)
    assert moved.status_code == 307
    assert moved.headers["Location"] == "http://127.0.0.1:1/base/v1/products/?pageNo=0&pageSize=50"


def test_hang_ends_with_the_caller_or_the_sandbox() -> None:
    with SandboxServer(products=1, faults=("hang",)) as box:
        headers = {"Authorization": f"Bearer {box.token()}"}
        with pytest.raises(requests.ReadTimeout):
            requests.get(f"{box.url}/v1/products/", headers=headers, timeout=0.2)
        with socket.create_connection((urlsplit(box.url).hostname or "", urlsplit(box.url).port or 0)) as hanging:
            hanging.sendall(b"GET /v1/products/ HTTP/1.1\r\nHost: x\r\n\r\n")
            deadline = time.monotonic() + 10
            while box.count("/v1/products/") < 2:
                assert time.monotonic() < deadline
            started = time.monotonic()
            box.stop()
    assert time.monotonic() - started < 2


def test_slow_answers(box: SandboxServer) -> None:
    box.set_faults("latency=0.2x1", "drip=0.2")
    for _ in range(2):
        started = time.monotonic()
        assert ids(page(box)) == [row["productId"] for row in box.catalogue()[:50]]
        assert time.monotonic() - started >= 0.2


# The connection


def test_resets(box: SandboxServer) -> None:
    whole = len(page(box).content)
    for fault, least, most in (
        ("reset-before-headers", 0, 0),
        ("reset-after-headers", 100, 400),
        ("reset-in-body", whole // 2, whole // 2 + 400),
    ):
        box.set_faults(fault)
        got, was_reset = wire(box)
        assert was_reset, fault
        assert least <= len(got) <= most, fault
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            page(box)


def test_a_write_is_done_although_its_answer_is_lost(box: SandboxServer) -> None:
    draft = {"productName": "Lost answer", "productType": "GPR", "binRanges": [{}]}
    headers = {"X-Request-ID": "lost-answer"}
    box.set_faults("reset-before-headers@writesx1")
    with pytest.raises(requests.ConnectionError):
        call(box, "POST", "/v1/products/", client="acme-operator", json=draft, headers=headers)
    answer = call(box, "POST", "/v1/products/", client="acme-operator", json=draft, headers=headers)
    assert answer.status_code == 202
    changes = call(box, "GET", "/v1/product-changes/").json()["result"]
    assert [change["product"]["productName"] for change in changes].count("Lost answer") == 1


def test_truncated_body(box: SandboxServer) -> None:
    box.set_faults("truncated")
    got, was_reset = wire(box)
    head, _, body = got.partition(b"\r\n\r\n")
    told = int(next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")).split(b":")[1])
    assert not was_reset
    assert len(body) == told // 2


def test_kept_alive_connection_closed_without_a_word(box: SandboxServer) -> None:
    box.set_faults("closex1")
    url = urlsplit(box.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
    headers = {"Authorization": f"Bearer {box.token()}", "X-TENANT-ID": "ACME_CORP"}
    connection.request("GET", "/v1/products/", headers=headers)
    answer = connection.getresponse()
    answer.read()
    assert answer.getheader("Connection") is None
    assert connection.sock.recv(1) == b""
    connection.close()


def test_compressed_bodies(box: SandboxServer) -> None:
    box.set_faults("gzip-truncatedx1", "gzip-corruptx1", "gzip-bomb=3x1")
    bodies = []
    for _ in range(3):
        got, _ = next_answer(box)
        bodies.append(got)
    packer = zlib.decompressobj(wbits=31)
    assert packer.decompress(bodies[0])
    assert not packer.eof
    with pytest.raises((zlib.error, gzip.BadGzipFile)):
        gzip.decompress(bodies[1])
    assert len(bodies[2]) < 100_000
    unpacked = gzip.decompress(bodies[2])
    assert len(unpacked) > 3_000_000
    assert decode(unpacked)["result"] == box.catalogue()[:50]


def next_answer(box: SandboxServer) -> tuple[bytes, dict[str, str]]:
    """The next answer's body as it is on the wire, and its headers."""
    url = urlsplit(box.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
    headers = {"Authorization": f"Bearer {box.token()}", "X-TENANT-ID": "ACME_CORP"}
    connection.request("GET", "/v1/products/?pageNo=0&pageSize=50", headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.getheader("Content-Encoding") == "gzip"
    assert answer.getheader("Content-Length") == str(len(body))
    return body, dict(answer.getheaders())


# The page


def test_content_type(box: SandboxServer) -> None:
    box.set_faults("content-type@page0", "content-type=text/plain@page1")
    first, second = page(box), page(box, 1)
    assert (first.headers["Content-Type"], second.headers["Content-Type"]) == ("text/html", "text/plain")
    assert ids(first)


def test_shapes(box: SandboxServer) -> None:
    box.set_faults("wrong-shapex1", "wrong-rowsx1")
    assert set(page(box).json()) == {"data", "total"}
    assert page(box).json()["result"][:3] == [1, "row", None]


def test_numbers_and_nesting(box: SandboxServer) -> None:
    box.set_faults("nanx1", "huge-number=500x1", "deep-nesting=7x1")
    bad, huge, deep = (page(box).text for _ in range(3))
    assert '"issuanceFee":NaN' in bad
    assert decode(huge.encode())["result"][0]["ledgerNumber"] == 10**500 - 1
    assert decode(huge.encode())["result"][0]["issuanceFee"] == Decimal("1e500")
    assert json.loads(deep)["result"][0]["limits"] == [[[[[[[]]]]]]]


def test_big_page_is_the_same_page(box: SandboxServer) -> None:
    box.set_faults("big-page=5")
    answer = page(box)
    assert len(answer.content) > 5_000_000
    assert decode(answer.content)["result"] == box.catalogue()[:50]


def test_rows_that_are_not_where_they_were(box: SandboxServer) -> None:
    known = [row["productId"] for row in box.catalogue()]
    box.set_faults("duplicate-page@page2")
    assert ids(page(box, 2, 40)) == known[40:80]
    for spec, moves in (("row-moves", 2), ("row-moves@page0x1", 1)):
        box.set_faults(spec)
        for reading in range(2):
            before, after = ([*known[n:], *known[:n]] for n in (min(reading, moves), min(reading + 1, moves)))
            assert [ids(page(box, number, 40)) for number in range(3)] == [before[:40], after[40:80], after[80:]]
    box.set_faults("latency=0")
    assert ids(page(box, 0, 40)) == known[:40]
    box.set_faults("shuffled")
    first, again = ids(page(box, 0, 40)), ids(page(box, 0, 40))
    assert first != again
    assert set(first) < set(known)
    assert page(box).json()["pagination"]["totalElements"] == 120
    box.set_faults("repeated-row")
    assert ids(page(box, 1, 40)) == [known[40], *known[40:80]]
    box.set_faults("total-changes")
    assert [page(box, number).json()["pagination"]["totalElements"] for number in range(3)] == [121, 122, 123]


# The token


def test_token_revoked_in_the_middle(box: SandboxServer) -> None:
    box.set_faults("token-revoked@page1x1")
    headers = {"Authorization": f"Bearer {box.token()}"}
    assert page(box, 0, headers=headers).status_code == 200
    assert_problem(page(box, 1, headers=headers), 401, "SBX_014")
    assert_problem(page(box, 1, headers=headers), 401, "SBX_014")
    assert page(box, 1).status_code == 200


def test_short_lived_token() -> None:
    with SandboxServer(products=1, faults=("token-ttl",)) as box:
        answer = ask_token(box).json()
        assert answer["expires_in"] == 2
        headers = {"Authorization": f"Bearer {answer['access_token']}"}
        assert call(box, "GET", "/v1/products/", headers=headers).status_code == 200
        box.advance(3.1)
        assert_problem(call(box, "GET", "/v1/products/", headers=headers), 401, "SBX_013")


@pytest.mark.parametrize(("skew", "code"), [("-7200", "SBX_013"), ("300", "SBX_012"), ("30", None), ("-600", None)])
def test_clock_skew(box: SandboxServer, skew: str, code: str | None) -> None:
    box.set_faults(f"clock-skew={skew}")
    answer = ask_token(box).json()
    assert answer["expires_in"] == 3600
    got = page(box, headers={"Authorization": f"Bearer {answer['access_token']}"})
    if code:
        assert_problem(got, 401, code)
    else:
        assert got.status_code == 200


@pytest.mark.parametrize(("value", "told"), [("missing", None), ("string", "3600"), ("0", 0), ("-5", -5), ("1.5", 1.5)])
def test_expires_in(box: SandboxServer, value: str, told: object) -> None:
    box.set_faults(f"expires-in={value}")
    answer = ask_token(box).json()
    assert answer.get("expires_in") == told
    assert ("expires_in" in answer) == (value != "missing")
    assert answer["access_token"]


def test_every_fault_is_tested_here() -> None:
    source = Path(__file__).read_text("utf-8")
    assert [name for name in KINDS if f'"{name}' not in source] == []


# TLS and addresses


def test_private_ca() -> None:
    with SandboxServer(products=1, tls="private-ca") as box:
        assert box.url.startswith("https://127.0.0.1:")
        url = f"{box.url}/.well-known/jwks.json"
        assert requests.get(url, verify=box.ca_file, timeout=10).status_code == 200
        assert requests.get(url.replace("127.0.0.1", "localhost"), verify=box.ca_file, timeout=10).status_code == 200
        with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed"):
            requests.get(url, timeout=10)


def test_expired_certificate() -> None:
    with (
        SandboxServer(products=1, tls="expired") as box,
        pytest.raises(requests.exceptions.SSLError, match="certificate has expired"),
    ):
        requests.get(f"{box.url}/.well-known/jwks.json", verify=box.ca_file, timeout=10)


def test_faults_of_the_connection_under_tls() -> None:
    with SandboxServer(products=50, tls="private-ca", faults=("reset-in-body@page0", "truncated@page1")) as box:
        for number in (0, 1):
            with pytest.raises(requests.exceptions.RequestException):
                page(box, number, 10, verify=box.ca_file)
        assert page(box, 2, 10, verify=box.ca_file).status_code == 200


def test_ipv6() -> None:
    with SandboxServer(products=1, host="::1", allow_ip=("::1/128",)) as box:
        assert box.url.startswith("http://[::1]:")
        assert page(box).status_code == 200
