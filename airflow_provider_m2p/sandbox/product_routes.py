"""The product catalogue, and the changes to it that wait for approval."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import Response

from airflow_provider_m2p.sandbox.authorization import Checker, Maker, PlatformDep, Reader
from airflow_provider_m2p.sandbox.catalogue import decode, encode
from airflow_provider_m2p.sandbox.docs import SECURED, problems
from airflow_provider_m2p.sandbox.idempotency import once
from airflow_provider_m2p.sandbox.paging import PagingDep
from airflow_provider_m2p.sandbox.problems import Code, Problem
from airflow_provider_m2p.sandbox.products import Product
from airflow_provider_m2p.sandbox.schemas import (
    ChangeAnswer,
    ChangeList,
    ChangeStatus,
    ProductDraft,
    ProductList,
    Transition,
)

router = APIRouter(tags=["Products"], responses=SECURED)

ProductId = Annotated[str, Path(min_length=1, description="A product's id; upper and lower case differ.")]
ChangeId = Annotated[str, Path(min_length=1, description="`changeId` of the answer that made the change.")]


async def exact_draft(request: Request, draft: ProductDraft) -> Product:
    """The body with its numbers digit for digit, after the schema has been checked."""
    try:
        product: Product = decode(await request.body())
    except msgspec.DecodeError as error:
        raise Problem(Code.INVALID, f"The body is not JSON: {error}") from error
    return product


Draft = Annotated[Product, Depends(exact_draft)]


@router.get("/v1/products/", response_model=ProductList)
async def list_products(platform: PlatformDep, caller: Reader, paging: PagingDep) -> Response:
    """The tenant's approved products: the whole list, or one page of it if `pageNo` or `pageSize` is given."""
    return paging.answer(platform.catalogue(caller.tenant).rows())


@router.post("/v1/products/", status_code=202, response_model=ChangeAnswer, responses=problems(409))
async def create_product(request: Request, platform: PlatformDep, caller: Maker, draft: Draft) -> Response:
    """Propose a new product. It is listed once another client has approved the change."""

    def act() -> tuple[int, str, object]:
        change = platform.approvals.create(caller.tenant, caller.client_id, draft)
        return 202, change["changeId"], change

    return await once(request, platform, caller, "PRODUCT_CREATE", act)


@router.put("/v1/products/{productId}", status_code=202, response_model=ChangeAnswer, responses=problems(404, 409))
async def update_product(
    request: Request, platform: PlatformDep, caller: Maker, productId: ProductId, draft: Draft
) -> Response:
    """Propose to replace a product. The list shows it as it was until another client has approved the change."""

    def act() -> tuple[int, str, object]:
        change = platform.approvals.update(caller.tenant, caller.client_id, productId, draft)
        return 202, change["changeId"], change

    return await once(request, platform, caller, "PRODUCT_UPDATE", act)


@router.get("/v1/product-changes/", response_model=ChangeList)
async def list_changes(
    platform: PlatformDep, caller: Reader, paging: PagingDep, status: ChangeStatus | None = None
) -> Response:
    """The tenant's changes, oldest first."""
    return paging.answer(platform.approvals.rows(caller.tenant, status))


@router.get("/v1/product-changes/{changeId}", response_model=ChangeAnswer, responses=problems(404))
async def get_change(platform: PlatformDep, caller: Reader, changeId: ChangeId) -> Response:
    """One change: what it would do, who made it, who decided."""
    change = platform.approvals.get(caller.tenant, changeId)
    return Response(encode({"result": change}), media_type="application/json")


@router.post("/v1/product-changes/{changeId}/transition", response_model=ChangeAnswer, responses=problems(404, 409))
async def decide_change(
    request: Request, platform: PlatformDep, caller: Checker, changeId: ChangeId, transition: Transition
) -> Response:
    """Approve or reject a pending change that another client made."""

    def act() -> tuple[int, str, object]:
        change = platform.approvals.decide(
            caller.tenant, caller.client_id, changeId, transition.action, transition.remark
        )
        return 200, changeId, change

    return await once(request, platform, caller, f"CHANGE_{transition.action}", act)
