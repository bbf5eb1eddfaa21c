"""
The samples of the vendor's authentication page run against the sandbox, with another base URL and nothing else changed.

They are kept as the vendor prints them, and its functions are called by a line that the test appends. Java is an
exception: the JDK's HttpClient stands in for Spring's RestTemplate.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_m2p.sandbox import SandboxServer
from airflow_provider_m2p.sandbox.catalogue import decode

HERE = Path(__file__).parent
VENDOR = "https://sandbox-api.m2pprepaid.com"


def sample(name: str, box: SandboxServer) -> str:
    text = (HERE / name).read_text("utf-8")
    assert text.count(VENDOR) == 1
    return text.replace(VENDOR, box.url)


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        # Where all changes are checked, tools/programs.sh has installed it.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{program} IS NOT INSTALLED, SO THE VENDOR'S {program.upper()} SAMPLE WAS NOT RUN")
    return found


def run(*command: str, stdin: str | None = None, **more: str) -> bytes:
    env = {
        **os.environ,
        "M2P_CLIENT_ID": "acme-viewer",
        "M2P_CLIENT_SECRET": "acme-viewer-secret",
        "M2P_TENANT_ID": "ACME_CORP",
        **more,
    }
    done = subprocess.run(
        command, input=stdin.encode() if stdin else None, env=env, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def assert_catalogue(answer: bytes, box: SandboxServer) -> None:
    body = decode(answer)
    assert body["pagination"] is None
    assert [row["productId"] for row in body["result"]] == [row["productId"] for row in box.catalogue()]
    assert [row["productName"] for row in body["result"]] == [row["productName"] for row in box.catalogue()]


def test_curl(sandbox: SandboxServer) -> None:
    script = sample("authentication.sh", sandbox)
    script = script.replace("your_client_id", "acme-viewer").replace("your_client_secret", "acme-viewer-secret")
    answer = decode(run("sh", stdin=script))
    assert set(answer) == {"access_token", "token_type", "expires_in"}
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3600)
    products = run(
        *("curl", "-sS", f"{sandbox.url}/v1/products/", "-H", "X-TENANT-ID: ACME_CORP"),
        *("-H", f"Authorization: Bearer {answer['access_token']}", "-H", "Content-Type: application/json"),
    )
    assert_catalogue(products, sandbox)


def test_python(sandbox: SandboxServer) -> None:
    script = sample("authentication.py.txt", sandbox)
    call = "\nimport json\nprint(json.dumps(fetch_products(get_access_token())))\n"
    assert_catalogue(run(sys.executable, "-", stdin=script + call), sandbox)


def test_javascript(sandbox: SandboxServer, pytestconfig: pytest.Config) -> None:
    node, npm = need("node"), need("npm")
    manifest = HERE / "package.json"
    home = pytestconfig.cache.mkdir("vendor-samples")  # type: ignore[union-attr]
    installed = home / "installed.json"  # written last, so that an installation cut short is done again
    if not installed.exists() or installed.read_text() != manifest.read_text():
        shutil.copy(manifest, home / "package.json")
        run(npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--prefix", str(home))
        shutil.copy(manifest, installed)
    script = sample("authentication.js", sandbox)
    call = "\ngetAccessToken().then(fetchProducts).then((answer) => console.log(JSON.stringify(answer)));\n"
    assert_catalogue(run(node, "-", stdin=script + call, NODE_PATH=str(home / "node_modules")), sandbox)


def test_java(sandbox: SandboxServer, tmp_path: Path) -> None:
    java = need("java")
    source = tmp_path / "Authentication.java"
    source.write_text(sample("Authentication.java", sandbox), "utf-8")
    assert_catalogue(run(java, "-XX:TieredStopAtLevel=1", str(source)), sandbox)
