from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_m2p.client.claims import Claims

from .conftest import jwt


@pytest.mark.parametrize("opaque", ["", "abc", "a.b", "a.b.c", "....", "e30.e30.e30", jwt([1]), jwt("x"), "\x00é"])
def test_opaque_tokens_have_no_claims(opaque: str) -> None:
    claims = Claims.of(opaque)
    assert (claims.tenants, claims.roles, claims.may_read, claims.lifetime(0)) == ((), None, True, None)


@pytest.mark.parametrize(
    ("claims", "tenants"),
    [
        ({"tenantId": "ACME"}, ("ACME",)),
        ({"tenant_id": "ACME"}, ("ACME",)),
        ({"tenant": "ACME"}, ("ACME",)),
        ({"tenants": ["ACME", "GLOBEX"]}, ("ACME", "GLOBEX")),
        ({"tenant": {"id": "ACME"}}, ()),
        ({"tenant": None}, ()),
        ({"tenant": ""}, ()),
        ({"tenant": 5}, ()),
        ({"tenant": "A\nB"}, ("A?B",)),
        ({}, ()),
    ],
)
def test_tenants(claims: dict[str, Any], tenants: tuple[str, ...]) -> None:
    assert Claims.of(jwt(claims)).tenants == tenants


@pytest.mark.parametrize(
    ("claims", "roles", "may_read"),
    [
        ({}, None, True),
        ({"roles": ["Viewer"]}, ("Viewer",), True),
        ({"role": "ROLE_ADMIN"}, ("ROLE_ADMIN",), True),
        ({"authorities": ["operator"]}, ("operator",), True),
        ({"roles": ["Auditor"]}, ("Auditor",), False),
        ({"roles": []}, (), False),
    ],
)
def test_roles(claims: dict[str, Any], roles: tuple[str, ...] | None, may_read: bool) -> None:
    found = Claims.of(jwt(claims))
    assert (found.roles, found.may_read) == (roles, may_read)


@pytest.mark.parametrize(
    ("claims", "seconds"),
    [
        ({"iat": 1000, "exp": 4600}, 3600.0),
        ({"exp": 150}, 50.0),
        ({"exp": 50}, None),
        ({"iat": 10, "exp": 10}, None),
        ({"exp": "soon"}, None),
        ({"exp": True}, None),
        ({"exp": 10**400}, None),
        ({"exp": float("nan")}, None),
    ],
)
def test_lifetime(claims: dict[str, Any], seconds: float | None) -> None:
    assert Claims.of(jwt(claims)).lifetime(100) == seconds


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
CLAIMS = st.dictionaries(st.sampled_from(["tenant", "tenants", "roles", "role", "iat", "exp", "x"]), JSON)


@given(CLAIMS | JSON)
def test_no_claims_are_an_error(claims: Any) -> None:
    found = Claims.of(jwt(claims))
    assert all(text.isprintable() for text in (*found.tenants, *(found.roles or ())))
    lifetime = found.lifetime(0)
    assert found.may_read in (True, False)
    assert lifetime is None or lifetime > 0
