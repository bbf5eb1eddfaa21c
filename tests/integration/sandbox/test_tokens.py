"""Tokens: how they are got, what they hold, and when they stop being good."""

from __future__ import annotations

import jwt
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa

from airflow_provider_m2p.sandbox import SandboxServer
from tests.integration.sandbox.calls import ask_token, assert_problem, call


def test_token_says_who_and_for_how_long(box: SandboxServer) -> None:
    answer = ask_token(box, "acme-operator").json()
    assert answer == {"access_token": answer["access_token"], "token_type": "Bearer", "expires_in": 3600}
    keys = requests.get(f"{box.url}/.well-known/jwks.json", timeout=30).json()
    key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(answer["access_token"])["kid"]]
    claims = jwt.decode(answer["access_token"], key, algorithms=["RS256"])
    assert (claims["sub"], claims["tenant"], claims["roles"]) == ("acme-operator", "ACME_CORP", ["Operator"])
    assert claims["exp"] - claims["iat"] in (3600, 3601)
    assert claims["jti"]


@pytest.mark.parametrize(
    ("client", "secret"),
    [("acme-viewer", "no-such-secret"), ("nobody", "nobody-secret"), ("acme-viewer", "acme-admin-secret")],
)
def test_wrong_secret_and_unknown_client_are_refused_alike(box: SandboxServer, client: str, secret: str) -> None:
    problem = assert_problem(ask_token(box, client, secret), 401, "SBX_010")
    assert secret not in str(problem)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"clientId": "acme-viewer", "clientSecret": "acme-viewer-secret", "grantType": "password"},
        {"clientId": 7, "clientSecret": "acme-viewer-secret", "grantType": "client_credentials"},
    ],
)
def test_malformed_token_request(box: SandboxServer, body: dict[str, object]) -> None:
    answer = requests.post(f"{box.url}/auth/token", json=body, timeout=30)
    assert assert_problem(answer, 400, "SBX_001")["fieldErrors"]


def test_token_request_must_be_json(box: SandboxServer) -> None:
    form = {"clientId": "acme-viewer", "clientSecret": "acme-viewer-secret", "grantType": "client_credentials"}
    assert_problem(requests.post(f"{box.url}/auth/token", data=form, timeout=30), 400, "SBX_001")


def test_missing_and_malformed_tokens(box: SandboxServer) -> None:
    missing = call(box, "GET", "/v1/products/", headers={"Authorization": None})
    assert_problem(missing, 401, "SBX_011")
    assert missing.headers["WWW-Authenticate"] == "Bearer"
    assert_problem(call(box, "GET", "/v1/products/", headers={"Authorization": "Bearer nonsense"}), 401, "SBX_012")
    assert_problem(call(box, "GET", "/v1/products/", headers={"Authorization": "Basic Zm9vOmJhcg=="}), 401, "SBX_011")


def test_foreign_and_forged_tokens(box: SandboxServer) -> None:
    claims = jwt.decode(box.token(), options={"verify_signature": False})
    foreign = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    forgeries = [
        jwt.encode(claims, foreign, algorithm="RS256"),
        jwt.encode(claims, "", algorithm="none"),
        jwt.encode(claims, "x" * 64, algorithm="HS256"),
        box.token()[:-4] + "AAAA",
    ]
    with SandboxServer(products=1) as other:
        forgeries.append(other.token())
    for token in forgeries:
        answer = call(box, "GET", "/v1/products/", headers={"Authorization": f"Bearer {token}"})
        assert_problem(answer, 401, "SBX_012")


def test_failed_tries_are_on_the_tenants_record(sandbox: SandboxServer) -> None:
    ask_token(sandbox, "acme-viewer", "guess")
    ask_token(sandbox, "nobody")
    assert [(event.actor, event.target, event.outcome) for event in sandbox.audit()] == [
        ("acme-viewer", "/auth/token", "SBX_010")
    ]
    assert [event.actor for event in sandbox.audit("")] == ["nobody"]


def test_token_expires() -> None:
    with SandboxServer(products=1, token_ttl=60) as box:
        token = ask_token(box).json()
        assert token["expires_in"] == 60
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        box.advance(50)
        assert call(box, "GET", "/v1/products/", headers=headers).status_code == 200
        box.advance(12)
        assert_problem(call(box, "GET", "/v1/products/", headers=headers), 401, "SBX_013")


def test_revocation(sandbox: SandboxServer) -> None:
    mine, other = sandbox.token("acme-viewer"), sandbox.token("acme-operator")
    revoke = {"method": "POST", "path": "/auth/revoke", "headers": {"Authorization": f"Bearer {mine}"}}
    assert_problem(call(sandbox, **revoke, json={"token": other}), 403, "SBX_021")
    assert call(sandbox, **revoke, json={"token": "never was one"}).status_code == 204
    assert call(sandbox, **revoke, json={"token": mine}).status_code == 204
    assert_problem(call(sandbox, "GET", "/v1/products/", headers=revoke["headers"]), 401, "SBX_014")


def test_admin_revokes_all_tokens_of_a_client(sandbox: SandboxServer) -> None:
    theirs = {"Authorization": f"Bearer {sandbox.token('acme-viewer')}"}
    assert_problem(call(sandbox, "POST", "/auth/clients/acme-viewer/revoke", client="acme-operator"), 403, "SBX_021")
    answer = call(sandbox, "POST", "/auth/clients/acme-viewer/revoke", client="acme-admin")
    assert answer.json() == {"result": {"clientId": "acme-viewer"}}
    assert_problem(call(sandbox, "GET", "/v1/products/", headers=theirs), 401, "SBX_014")
    assert call(sandbox, "GET", "/v1/products/").status_code == 200
    foreign = call(sandbox, "POST", "/auth/clients/globex-viewer/revoke", client="acme-admin")
    assert_problem(foreign, 404, "SBX_030")


def test_rotation_window(sandbox: SandboxServer) -> None:
    path = "/auth/clients/acme-viewer/rotate"
    answer = call(sandbox, "POST", path, client="acme-admin", json={"windowSeconds": 600}).json()["result"]
    new = answer["clientSecret"]
    assert ask_token(sandbox, "acme-viewer", new).status_code == 200
    assert ask_token(sandbox, "acme-viewer").status_code == 200
    sandbox.advance(601)
    assert_problem(ask_token(sandbox, "acme-viewer"), 401, "SBX_010")
    assert ask_token(sandbox, "acme-viewer", new).status_code == 200


def test_second_rotation_ends_the_oldest_secret(sandbox: SandboxServer) -> None:
    sandbox.rotate_secret("acme-viewer", "second", window=600)
    sandbox.rotate_secret("acme-viewer", "third", window=600)
    codes = [ask_token(sandbox, "acme-viewer", secret).status_code for secret in (None, "second", "third")]
    assert codes == [401, 200, 200]


def test_nobody_rotates_another_tenants_secret(sandbox: SandboxServer) -> None:
    answer = call(sandbox, "POST", "/auth/clients/globex-viewer/rotate", client="acme-admin", json={})
    assert_problem(answer, 404, "SBX_030")
    assert ask_token(sandbox, "globex-viewer").status_code == 200
