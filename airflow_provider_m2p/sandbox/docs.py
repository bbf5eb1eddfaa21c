"""The OpenAPI document, and Swagger UI at ``/api-docs`` from files on this machine: it works without the internet."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Header
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.routing import compile_path
from starlette.staticfiles import StaticFiles

from airflow_provider_m2p.sandbox.problems import MEDIA_TYPE
from airflow_provider_m2p.sandbox.schemas import ProblemDocument

PATH = "/api-docs"
OPENAPI_PATH = f"{PATH}/openapi.json"
ASSETS_PATH = f"{PATH}/assets"

RequestId = Annotated[
    str | None, Header(alias="X-Request-ID", description="For tracing; makes a POST or PUT safe to repeat.")
]
REFUSALS = {
    400: "The request is not valid, or X-TENANT-ID is missing.",
    401: "The access token is missing, not ours, expired or revoked; or the client secret is wrong.",
    403: "The tenant, your role or your address does not allow this.",
    404: "There is no such thing at your tenant.",
    409: "A business rule forbids this; see the business code.",
    429: "Too many requests; wait for the seconds in Retry-After.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documented refusals of a route, for FastAPI's ``responses``."""
    return {status: {"model": ProblemDocument, "description": REFUSALS[status]} for status in statuses}


SECURED = problems(400, 401, 403, 429)  # what any route with a token can answer


async def request_id(x_request_id: RequestId = None) -> None:
    """Documents the header on every route; the gateway deals with it."""


def install(app: FastAPI) -> None:
    """Add the documentation to an application that has all its routes."""
    app.mount(ASSETS_PATH, StaticFiles(packages=[("fastapi_offline", "static")]))

    @app.get(PATH, include_in_schema=False)
    async def api_docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=OPENAPI_PATH,
            title=app.title,
            swagger_js_url=f"{ASSETS_PATH}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS_PATH}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS_PATH}/favicon.png",
        )

    document = app.openapi()
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)  # the framework's own, which the platform never answers
            for status, response in operation["responses"].items():
                describe(int(status), response)


def methods(app: FastAPI, path: str) -> list[str]:
    """The methods that the documentation gives a path."""
    ways = (ways for template, ways in app.openapi()["paths"].items() if compile_path(template)[0].match(path))
    return sorted({method.upper() for way in ways for method in way})


def describe(status: int, response: dict[str, Any]) -> None:
    """Say in a documented answer what FastAPI cannot know: its media type and its headers."""
    response["headers"] = {"X-Request-ID": {"schema": {"type": "string"}, "description": "The request's id."}}
    if status >= 400:
        response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
    if status == 429:
        response["headers"]["Retry-After"] = {"schema": {"type": "string"}, "description": "Seconds to wait."}
