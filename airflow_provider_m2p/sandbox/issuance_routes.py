"""Corporate issuances, of which the vendor documents a list by status."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from fastapi import APIRouter
from starlette.responses import Response

from airflow_provider_m2p.sandbox.authorization import PlatformDep, Reader
from airflow_provider_m2p.sandbox.docs import SECURED
from airflow_provider_m2p.sandbox.issuances import issuance_rows
from airflow_provider_m2p.sandbox.paging import PagingDep
from airflow_provider_m2p.sandbox.schemas import IssuanceList

router = APIRouter(prefix="/prepaid/middleware", tags=["Issuances"], responses=SECURED)
Status = Literal["CREATED", "PENDING_APPROVAL", "APPROVED", "REJECTED", "SUCCESS", "FAILED"]
cached_rows = lru_cache(maxsize=64)(issuance_rows)


@router.get("/v1/corporate-issuances/fetch-by-status/{status}", response_model=IssuanceList)
async def list_issuances(platform: PlatformDep, caller: Reader, paging: PagingDep, status: Status) -> Response:
    """The tenant's issuances in one status, page 0 unless asked. The answer tells neither `list` nor `totalPages`."""
    settings = platform.settings
    return paging.partial_answer(cached_rows(settings.seed, caller.tenant, settings.products, status))
