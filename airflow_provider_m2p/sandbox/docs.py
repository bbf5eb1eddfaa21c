"""Swagger UI at ``/api-docs``, from files on this machine: it works without the internet."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

PATH = "/api-docs"
OPENAPI_PATH = f"{PATH}/openapi.json"
ASSETS_PATH = f"{PATH}/assets"


def install(app: FastAPI) -> None:
    """Add the documentation page to an application."""
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
