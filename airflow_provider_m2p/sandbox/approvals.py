"""Maker-checker: a product is made or changed by one client and approved by another before anybody sees it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from airflow_provider_m2p.sandbox.catalogue import Catalogue, decode, encode
from airflow_provider_m2p.sandbox.clock import Clock
from airflow_provider_m2p.sandbox.problems import Code, Problem
from airflow_provider_m2p.sandbox.products import Product
from airflow_provider_m2p.sandbox.state import State

PENDING, APPROVED, REJECTED = "PENDING_APPROVAL", "APPROVED", "REJECTED"
Change = dict[str, Any]


class Approvals:
    """
    The changes of every tenant: pending, then approved or rejected, and nothing after that.

    :param catalogue: gives a tenant's catalogue, into which approved changes go.
    """

    def __init__(self, state: State, clock: Clock, catalogue: Callable[[str], Catalogue]) -> None:
        self._state = state
        self._clock = clock
        self._catalogue = catalogue

    def create(self, tenant: str, maker: str, draft: Product) -> Change:
        """Propose a new product; the platform gives it its id."""
        product_id = self._catalogue(tenant).new_product()["productId"]
        return self._propose(tenant, maker, "CREATE", product_id, draft, created=self._clock.instant())

    def update(self, tenant: str, maker: str, product_id: str, draft: Product) -> Change:
        """Propose to put a draft in the place of a product."""
        product = self._catalogue(tenant).get(product_id)
        if product is None:
            raise Problem(Code.NOT_FOUND, "There is no approved product with this id.")
        sql = "SELECT change_id FROM changes WHERE tenant = ? AND product_id = ? AND status = ?"
        if pending := self._state.run(sql, (tenant, product_id, PENDING)):
            detail = f"Change {pending[0][0]} of this product is pending. Have it approved or rejected first."
            raise Problem(Code.CHANGE_PENDING, detail)
        return self._propose(tenant, maker, "UPDATE", product_id, draft, created=product["createdAt"])

    def decide(self, tenant: str, checker: str, change_id: str, action: str, remark: str | None) -> Change:
        """Approve or reject a pending change, as somebody other than its maker."""
        change = self.get(tenant, change_id)
        if change["currentStatus"] != PENDING:
            detail = f"The change is {change['currentStatus']} already; only a pending one can become {action}."
            raise Problem(Code.ILLEGAL_TRANSITION, detail)
        if change["maker"] == checker:
            raise Problem(Code.OWN_CHANGE, "You made this change. Another Admin has to approve or reject it.")
        now = self._clock.instant()
        change |= {"currentStatus": action, "checker": checker, "remark": remark, "updatedAt": now}
        sql = "UPDATE changes SET status = ?, body = ? WHERE change_id = ?"
        self._state.run(sql, (action, encode(change), change_id))
        if action == APPROVED:
            self._catalogue(tenant).put({**change["product"], "updatedAt": now})
        return change

    def get(self, tenant: str, change_id: str) -> Change:
        """One change of the tenant."""
        found = self._state.run("SELECT body FROM changes WHERE tenant = ? AND change_id = ?", (tenant, change_id))
        if not found:
            raise Problem(Code.NOT_FOUND, "There is no change with this id.")
        change: Change = decode(found[0][0])
        return change

    def rows(self, tenant: str, status: str | None) -> list[bytes]:
        """The tenant's changes as JSON, oldest first; those of one status if given."""
        sql = "SELECT body FROM changes WHERE tenant = ? AND status = coalesce(?, status) ORDER BY rowid"
        return [row[0] for row in self._state.run(sql, (tenant, status))]

    def _propose(self, tenant: str, maker: str, kind: str, product_id: str, draft: Product, *, created: str) -> Change:
        if not draft.get("binRanges"):
            raise Problem(Code.NO_BIN, "A product needs at least one entry in binRanges; it cannot be linked later.")
        now = self._clock.instant()
        own = {"productId": product_id, "createdAt": created, "updatedAt": now}
        change = {
            "changeId": secrets.token_hex(12),
            "changeType": kind,
            "currentStatus": PENDING,
            "productId": product_id,
            "product": {"productId": product_id, "status": "ACTIVE", **draft, **own},
            "maker": maker,
            "checker": None,
            "remark": None,
            "createdAt": now,
            "updatedAt": now,
        }
        sql = "INSERT INTO changes VALUES (?, ?, ?, ?, ?)"
        self._state.run(sql, (change["changeId"], tenant, product_id, PENDING, encode(change)))
        return change
