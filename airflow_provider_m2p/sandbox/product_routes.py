"""The product catalogue."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from airflow_provider_m2p.sandbox.authorization import PlatformDep, Reader
from airflow_provider_m2p.sandbox.paging import PageNo, PageSize, cut, envelope
from airflow_provider_m2p.sandbox.schemas import ProductList

router = APIRouter(tags=["Products"])


@router.get("/v1/products/", response_model=ProductList)
async def list_products(
    platform: PlatformDep, caller: Reader, pageNo: PageNo = None, pageSize: PageSize = None
) -> Response:
    """The tenant's approved products: the whole list, or one page of it if `pageNo` or `pageSize` is given."""
    rows = platform.catalogue(caller.tenant).rows()
    return envelope(*cut(rows, pageNo, pageSize, platform.settings.page_size_max))
