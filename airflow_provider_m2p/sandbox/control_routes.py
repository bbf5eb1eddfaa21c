"""The sandbox's own controls, for programs on the same machine only. Not part of the platform."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from airflow_provider_m2p.sandbox.authorization import PlatformDep, is_loopback
from airflow_provider_m2p.sandbox.paging import envelope
from airflow_provider_m2p.sandbox.problems import Code, Problem
from airflow_provider_m2p.sandbox.simulator import Platform

Count = Annotated[int, Query(ge=0)]


async def on_this_machine(request: Request) -> None:
    if not is_loopback(request.scope):
        raise Problem(Code.ADDRESS, "The sandbox's controls are for programs on its own machine.")


health = APIRouter(prefix="/_sandbox", include_in_schema=False)
router = APIRouter(include_in_schema=False)
control = APIRouter(prefix="/_sandbox", include_in_schema=False, dependencies=[Depends(on_this_machine)])


@health.get("/health")
async def healthy() -> dict[str, str]:
    """For a container's health check."""
    return {"status": "UP"}


@control.get("/catalogue/{tenant}")
async def catalogue(platform: PlatformDep, tenant: str) -> Response:
    """Every product of a tenant, past all rules and faults: what a load has to equal."""
    return envelope(platform.catalogue(known(platform, tenant)).rows(), None)


@control.post("/catalogue/{tenant}/evolve")
async def evolve(
    platform: PlatformDep, tenant: str, add: Count = 2, change: Count = 5, remove: Count = 1
) -> dict[str, list[str]]:
    """Change the catalogue as a day at the tenant's would."""
    return platform.catalogue(known(platform, tenant)).evolve(add=add, change=change, remove=remove)


@control.get("/requests")
async def requests(platform: PlatformDep) -> list[dict[str, Any]]:
    """The requests so far, without secrets."""
    return [asdict(record) for record in list(platform.requests)]


@control.get("/faults")
async def faults(platform: PlatformDep) -> list[dict[str, Any]]:
    """The faults in force, and how often each has hit."""
    return [{"spec": fault.spec, "fired": fault.fired} for fault in platform.faults.active]


@control.put("/faults")
async def replace_faults(platform: PlatformDep, specs: list[str]) -> list[dict[str, Any]]:
    """Put these faults in the place of those in force; an empty list ends them all."""
    try:
        platform.faults.replace(specs)
    except ValueError as error:
        raise Problem(Code.INVALID, str(error)) from error
    return await faults(platform)


def known(platform: Platform, tenant: str) -> str:
    if tenant not in platform.settings.all_tenants:
        raise Problem(Code.NOT_FOUND, "There is no such tenant.")
    return tenant


router.include_router(health)
router.include_router(control)
