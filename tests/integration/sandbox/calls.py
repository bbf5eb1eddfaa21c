"""A small caller of the sandbox that shares no code with the provider's client."""

from __future__ import annotations

from typing import Any

import requests

from airflow_provider_m2p.sandbox import SandboxServer


def ask_token(box: SandboxServer, client_id: str = "acme-viewer", secret: str | None = None) -> requests.Response:
    body = {
        "clientId": client_id,
        "clientSecret": f"{client_id}-secret" if secret is None else secret,
        "grantType": "client_credentials",
    }
    return requests.post(f"{box.url}/auth/token", json=body, timeout=30)


def call(
    box: SandboxServer,
    method: str,
    path: str,
    *,
    client: str = "acme-viewer",
    tenant: str | None = "ACME_CORP",
    headers: dict[str, Any] | None = None,
    **more: Any,
) -> requests.Response:
    """Send a request as a client; ``tenant=None`` and a header of ``None`` leave that header out."""
    sent = {"Authorization": f"Bearer {box.token(client)}", "X-TENANT-ID": tenant, **(headers or {})}
    kept = {name: value for name, value in sent.items() if value is not None}
    return requests.request(method, box.url + path, headers=kept, timeout=30, **more)


def assert_problem(answer: requests.Response, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem.get("businessCode") or problem.get("business.code")) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert problem["status"] == status
    assert {"type", "title", "detail", "path", "message"} <= set(problem)
    assert answer.headers["X-Request-ID"]
    return problem
