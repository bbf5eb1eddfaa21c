"""The HTTP application: the routes, behind the gateway that every request passes."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from airflow_provider_m2p import __version__
from airflow_provider_m2p.sandbox import auth_routes, control_routes, docs, issuance_routes, product_routes
from airflow_provider_m2p.sandbox.gateway import Gateway
from airflow_provider_m2p.sandbox.injection import Injection
from airflow_provider_m2p.sandbox.problems import Code, Problem
from airflow_provider_m2p.sandbox.simulator import Platform, RequestRecord

log = logging.getLogger(__name__)


def create_app(platform: Platform) -> ASGIApp:
    """
    The sandbox as an ASGI application.

    :param platform: the platform it serves.
    """
    return Gateway(Injection(routes(), platform), platform)


@cache
def routes() -> FastAPI:
    """The routes, which serve the platform that the gateway puts in a request's state; made once, for they are dear."""
    app = FastAPI(
        title="M2P Prepaid Platform (sandbox)",
        version=__version__,
        description="A local stand-in for the platform: made-up products, real rules.",
        docs_url=None,
        redoc_url=None,
        openapi_url=docs.OPENAPI_PATH,
        redirect_slashes=False,
        dependencies=[Depends(docs.request_id)],
    )
    app.include_router(auth_routes.router)
    app.include_router(product_routes.router)
    app.include_router(product_routes.router, prefix="/configs")
    app.include_router(issuance_routes.router)
    app.include_router(control_routes.router)
    docs.install(app)
    app.add_exception_handler(Problem, refuse)
    app.add_exception_handler(RequestValidationError, refuse_invalid)
    app.add_exception_handler(HTTPException, refuse_http)
    app.add_exception_handler(Exception, refuse_broken)
    return app


async def refuse(request: Request, error: Any) -> Response:
    """Answer a refusal, and put it on record against who was refused."""
    record: RequestRecord = request.scope["state"]["record"]
    platform: Platform = request.scope["state"]["platform"]
    platform.audit.record(
        tenant=record.tenant or "",
        actor=record.client_id or record.address,
        action=request.method,
        target=request.url.path,
        outcome=error.code.value[1],
        request_id=record.request_id,
    )
    return error.response(request.url.path)  # type: ignore[no-any-return]


async def refuse_invalid(request: Request, error: Any) -> Response:
    """A request that does not fit the schema: 400 with its field errors, or the header that is missing."""
    fields = [(".".join(map(str, found["loc"])), str(found["msg"])) for found in error.errors()]
    if any(field == "header.X-TENANT-ID" for field, _ in fields):
        return await refuse(request, Problem(Code.TENANT_MISSING, "Send your tenant in X-TENANT-ID."))
    return await refuse(request, Problem(Code.INVALID, "The request is not valid.", fields=fields))


async def refuse_http(request: Request, error: Any) -> Response:
    """What the framework refuses: an unknown path, a method that a path does not have, a body it cannot read."""
    if error.status_code == 405 and (methods := docs.methods(request.app, request.url.path)):
        error.headers = {"Allow": ", ".join(methods)}
    code = {404: Code.NOT_FOUND, 405: Code.METHOD}.get(error.status_code, Code.INVALID)
    return await refuse(request, Problem(code, str(error.detail), headers=error.headers, status=error.status_code))


async def refuse_broken(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return await refuse(request, Problem(Code.INTERNAL, "The sandbox failed. This is a defect of the sandbox."))
