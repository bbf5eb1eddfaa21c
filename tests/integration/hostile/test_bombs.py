"""Small answers that are large inside: a typed error, and no more memory than an answer may have."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import zlib

import pyarrow as pa
import pytest

from airflow_provider_m2p.exceptions import M2PApiError, M2PResponseError
from tests.integration.hostile.conftest import MakeClient, Platform, Reply, refusal

MIB = 1024 * 1024
LIMIT = MIB
#: Of which a bomb's two hundred would show: the answer, what it is unpacked into, and the buffers of both.
MOST = 16 * MIB


def gzipped() -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as file:
        for _ in range(200):
            file.write(bytes(MIB))
    return out.getvalue()


ONCE = gzipped()
TWICE = gzip.compress(ONCE)
DEFLATED = zlib.compress(bytes(20 * MIB))
BOMBS = {
    "gzip": (ONCE, "gzip"),
    "x-gzip": (ONCE, "X-GZIP"),
    "gzip members": (gzip.compress(bytes(MIB)) * 200, "gzip"),
    "gzip in gzip": (TWICE, "gzip, gzip"),
    "gzip in gzip, said once": (TWICE, "gzip"),
    "gzip in deflate": (TWICE, "gzip, deflate"),
    "deflate": (DEFLATED, "deflate"),
    "raw deflate": (DEFLATED[2:-4], "deflate"),
    "brotli": (pa.compress(bytes(20 * MIB), "brotli", asbytes=True), "br"),
    "zstd": (pa.compress(bytes(20 * MIB), "zstd", asbytes=True), "zstd"),
    "gzip, not said": (ONCE, "identity"),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("where", ["token", "list"])
def test_a_bomb(platform: Platform, make_client: MakeClient, name: str, status: int, where: str) -> None:
    body, encoding = BOMBS[name]
    reply = Reply(body, status, {"Content-Encoding": encoding})
    if where == "token":
        platform.token = lambda _: reply
    else:
        platform.answer = lambda _: reply
    client = make_client({"max_body_bytes": LIMIT}, token_cache="off")
    tracemalloc.start()
    try:
        error = refusal(lambda: list(client.pages()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(error, M2PResponseError if status == 200 else M2PApiError)
    assert peak < MOST
    assert len(platform.asked) == (1 if where == "token" else 2)


def test_what_is_no_bomb_is_read(platform: Platform, make_client: MakeClient) -> None:
    rows = [{"productId": str(n), "name": "x" * 100} for n in range(90)]
    platform.answer = lambda _: Reply(gzip.compress(Reply(rows).payload), headers={"Content-Encoding": "gzip"})
    assert [row for page in make_client(paging="none").pages() for row in page.records()] == rows
