"""Roles, maker-checker, idempotent writes, audit log, and a state file that outlives the sandbox."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_provider_m2p.sandbox import SandboxServer
from airflow_provider_m2p.sandbox.catalogue import decode
from tests.integration.sandbox.calls import assert_problem, call

DRAFT = {"productName": "Nouvelle carte", "productType": "GIFT", "binRanges": [{"binNumber": "508755"}]}


def propose(box: SandboxServer, client: str = "acme-operator", **more: Any) -> dict[str, Any]:
    answer = call(box, "POST", "/v1/products/", client=client, json={**DRAFT, **more})
    assert answer.status_code == 202, answer.text
    change: dict[str, Any] = answer.json()["result"]
    return change


def decide(box: SandboxServer, change: dict[str, Any], action: str, client: str = "acme-admin") -> requests.Response:
    path = f"/v1/product-changes/{change['changeId']}/transition"
    return call(box, "POST", path, client=client, json={"action": action})


def ids(box: SandboxServer) -> list[str]:
    return [row["productId"] for row in call(box, "GET", "/v1/products/").json()["result"]]


def test_new_product_is_listed_once_another_client_approved_it(sandbox: SandboxServer) -> None:
    before = ids(sandbox)
    change = propose(sandbox)
    assert (change["currentStatus"], change["maker"], change["checker"]) == ("PENDING_APPROVAL", "acme-operator", None)
    assert ids(sandbox) == before
    approved = decide(sandbox, change, "APPROVED").json()["result"]
    assert (approved["currentStatus"], approved["checker"]) == ("APPROVED", "acme-admin")
    assert ids(sandbox) == [*before, change["productId"]]
    assert sandbox.catalogue()[-1]["productName"] == "Nouvelle carte"
    assert sandbox.catalogue()[-1]["status"] == "ACTIVE"


def test_rejected_product_is_never_listed(sandbox: SandboxServer) -> None:
    change = propose(sandbox)
    assert decide(sandbox, change, "REJECTED").json()["result"]["currentStatus"] == "REJECTED"
    assert change["productId"] not in ids(sandbox)


def test_update_shows_after_approval_only_and_digit_for_digit(sandbox: SandboxServer) -> None:
    before = sandbox.catalogue()[5]
    path = f"/v1/products/{before['productId']}"
    body = '{"productName":"X","productType":"GPR","binRanges":[{}],"limits":{"daily":8500.00,"more":[0.1]}}'
    json_headers = {"Content-Type": "application/json"}
    answer = call(sandbox, "PUT", path, client="acme-operator", data=body, headers=json_headers)
    assert answer.status_code == 202
    assert '"limits":{"daily":8500.00,"more":[0.1]}' in answer.text
    assert sandbox.catalogue()[5] == before
    decide(sandbox, answer.json()["result"], "APPROVED")
    after = decode(call(sandbox, "GET", "/v1/products/").content)["result"][5]
    assert after["limits"] == {"daily": Decimal("8500.00"), "more": [Decimal("0.1")]}
    assert str(after["limits"]["daily"]) == "8500.00"
    assert (after["productId"], after["createdAt"]) == (before["productId"], before["createdAt"])
    assert after["updatedAt"] != before["updatedAt"]
    assert "kycType" not in after


def test_roles(sandbox: SandboxServer) -> None:
    assert_problem(call(sandbox, "POST", "/v1/products/", json=DRAFT), 403, "SBX_021")
    assert_problem(call(sandbox, "PUT", "/v1/products/x", json=DRAFT), 403, "SBX_021")
    change = propose(sandbox)
    for client in ("acme-viewer", "acme-operator"):
        assert_problem(decide(sandbox, change, "APPROVED", client), 403, "SBX_021")
        assert_problem(call(sandbox, "GET", "/v1/audit-events/", client=client), 403, "SBX_021")
    assert call(sandbox, "GET", f"/v1/product-changes/{change['changeId']}").json()["result"] == change


def test_nobody_checks_their_own_change(sandbox: SandboxServer) -> None:
    change = propose(sandbox, client="acme-admin")
    for action in ("APPROVED", "REJECTED"):
        problem = assert_problem(decide(sandbox, change, action), 403, "SBX_023")
        assert "Another Admin" in problem["detail"]
    sandbox.add_client("acme-second", "ACME_CORP", "Admin")
    assert decide(sandbox, change, "APPROVED", "acme-second").status_code == 200


@pytest.mark.parametrize("first", ["APPROVED", "REJECTED"])
@pytest.mark.parametrize("second", ["APPROVED", "REJECTED"])
def test_a_decision_is_final(sandbox: SandboxServer, first: str, second: str) -> None:
    change = propose(sandbox)
    assert decide(sandbox, change, first).status_code == 200
    listed = ids(sandbox)
    assert_problem(decide(sandbox, change, second), 409, "PP_CORP_187")
    assert ids(sandbox) == listed


def test_business_rules(sandbox: SandboxServer) -> None:
    maker = {"client": "acme-operator"}
    no_bin = call(sandbox, "POST", "/v1/products/", **maker, json={"productName": "X", "productType": "GPR"})
    assert_problem(no_bin, 409, "PP_CORP_028")
    assert_problem(call(sandbox, "PUT", "/v1/products/unknown", **maker, json=DRAFT), 404, "SBX_030")
    path = f"/v1/products/{sandbox.catalogue()[0]['productId']}"
    assert call(sandbox, "PUT", path, **maker, json=DRAFT).status_code == 202
    assert_problem(call(sandbox, "PUT", path, **maker, json=DRAFT), 409, "SBX_041")
    bad = call(sandbox, "POST", "/v1/products/", **maker, json={**DRAFT, "productName": ""})
    assert assert_problem(bad, 400, "SBX_001")["fieldErrors"][0]["field"] == "body.productName"
    unknown = {"changeId": "0" * 24}
    assert_problem(decide(sandbox, unknown, "APPROVED"), 404, "SBX_030")
    assert_problem(decide(sandbox, unknown, "CREATED"), 400, "SBX_001")


def test_list_of_changes_shows_what_the_status_says(sandbox: SandboxServer) -> None:
    changes = [propose(sandbox, productName=f"P{number}") for number in range(4)]
    decide(sandbox, changes[1], "APPROVED")
    decide(sandbox, changes[2], "REJECTED")

    def listed(query: str) -> list[str]:
        answer = call(sandbox, "GET", f"/v1/product-changes/{query}").json()
        return [change["product"]["productName"] for change in answer["result"]]

    assert listed("") == ["P0", "P1", "P2", "P3"]
    assert listed("?status=PENDING_APPROVAL") == ["P0", "P3"]
    assert listed("?status=APPROVED") == ["P1"]
    assert listed("?pageNo=1&pageSize=3") == ["P3"]
    answer = call(sandbox, "GET", "/v1/product-changes/", client="globex-viewer", tenant="GLOBEX")
    assert answer.json()["result"] == []


def test_same_request_id_same_answer(sandbox: SandboxServer) -> None:
    headers = {"X-Request-ID": "once-only"}
    first, again = (
        call(sandbox, "POST", "/v1/products/", client="acme-operator", json=DRAFT, headers=headers) for _ in range(2)
    )
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert len(call(sandbox, "GET", "/v1/product-changes/").json()["result"]) == 1
    other = call(
        sandbox, "POST", "/v1/products/", client="acme-operator", json={**DRAFT, "status": "X"}, headers=headers
    )
    assert_problem(other, 409, "SBX_040")
    path = f"/v1/products/{sandbox.catalogue()[0]['productId']}"
    assert_problem(call(sandbox, "PUT", path, client="acme-operator", json=DRAFT, headers=headers), 409, "SBX_040")
    assert call(sandbox, "POST", "/v1/products/", client="acme-admin", json=DRAFT, headers=headers).status_code == 202
    no_bin = {"productName": "X", "productType": "GPR"}
    refused = [
        call(sandbox, "POST", "/v1/products/", client="acme-admin", json=no_bin, headers={"X-Request-ID": "no-bin"})
        for _ in range(2)
    ]
    assert refused[0].content == refused[1].content
    assert_problem(refused[1], 409, "PP_CORP_028")


def test_audit_log(sandbox: SandboxServer) -> None:
    change = propose(sandbox)
    decide(sandbox, change, "APPROVED")
    call(sandbox, "GET", "/v1/products/", tenant="GLOBEX")
    events = call(sandbox, "GET", "/v1/audit-events/", client="acme-admin").json()["result"]
    told = [(event["actor"], event["action"], event["target"], event["outcome"]) for event in events]
    assert told == [
        ("acme-operator", "PRODUCT_CREATE", change["changeId"], "OK"),
        ("acme-admin", "CHANGE_APPROVED", change["changeId"], "OK"),
        ("acme-viewer", "GET", "/v1/products/", "SBX_020"),
    ]
    assert [event.action for event in sandbox.audit()] == ["PRODUCT_CREATE", "CHANGE_APPROVED", "GET"]
    assert sandbox.audit("GLOBEX") == []


def test_state_file_outlives_the_sandbox(tmp_path: Path) -> None:
    options: dict[str, Any] = {"products": 20, "state": str(tmp_path / "state.db")}
    with SandboxServer(**options) as box:
        token, change = box.token("acme-admin"), propose(box)
        box.evolve()
        box.rotate_secret("acme-viewer", "rotated")
        products = box.catalogue()
    with SandboxServer(**options) as box:
        assert box.catalogue() == products
        headers = {"Authorization": f"Bearer {token}"}
        path = f"/v1/product-changes/{change['changeId']}"
        assert call(box, "GET", path, headers=headers).json()["result"] == change
        assert [event.action for event in box.audit()] == ["PRODUCT_CREATE"]
        assert decide(box, change, "APPROVED").status_code == 200
        assert box.catalogue()[-1]["productId"] == change["productId"]
    with pytest.raises(ValueError, match="was made with products=20, so it cannot go on with 21"):
        SandboxServer(**{**options, "products": 21})
