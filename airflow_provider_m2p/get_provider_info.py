"""
What Airflow discovers about this provider: modules, the connection type and its form.

Airflow calls :func:`get_provider_info` while its own configuration is still loading, so this module imports
nothing from Airflow, nor anything that does.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_m2p import __version__


def _field(label: str, type_: str, description: str, **schema: Any) -> dict[str, Any]:
    # "null" lets the form be saved with the field left empty.
    return {"label": label, "description": description, "schema": {"type": [type_, "null"], **schema}}


#: The connection's own fields, stored in its extra. The only place where their texts are written.
CONN_FIELDS: dict[str, dict[str, Any]] = {
    "tenant_id": {
        "label": "Tenant ID",
        "description": "Assigned by M2P, sent as X-TENANT-ID. Upper and lower case matter, as in ACME_CORP.",
        "schema": {"type": "string", "minLength": 1},
    },
    "products_path": _field(
        "Products path",
        "string",
        "Path of the product list. Default /v1/products/; some tenants have it at /configs/v1/products/.",
    ),
    "token_path": _field(
        "Token path", "string", "Path that hands out tokens for client id and secret. Default /auth/token."
    ),
    "paging": _field(
        "Paging",
        "string",
        "auto (default): ask page by page and follow what the answer says. page: insist on pages. "
        "none: one plain GET, as in the vendor's samples.",
        enum=["auto", "page", "none"],
    ),
    "page_size": _field("Page size", "integer", "Rows asked for per page. Default 100.", minimum=1),
    "max_concurrency": _field(
        "Pages in flight",
        "integer",
        "Most pages asked for at the same time. Default 4; 1 reads one by one.",
        minimum=1,
    ),
    "max_requests_per_minute": _field(
        "Requests per minute",
        "integer",
        "Stay below this rate. Empty: as fast as the platform allows.",
        minimum=1,
    ),
    "connect_timeout": _field(
        "Connect timeout", "number", "Seconds to wait for a connection. Default 10.", exclusiveMinimum=0
    ),
    "read_timeout": _field(
        "Read timeout",
        "number",
        "Seconds to wait for the next bytes of an answer. Default 60.",
        exclusiveMinimum=0,
    ),
    "verify": _field(
        "Verify TLS",
        "string",
        "true (default), false (never in production), or the path of a CA file on the workers.",
    ),
    "credentials_issued_on": _field(
        "Credentials issued on",
        "string",
        "Day the client secret was issued. It is due for rotation after 90 days; Airflow warns in time.",
        format="date",
    ),
    "token_cache": _field(
        "Token cache",
        "string",
        "disk (default): the tasks of one host share a token, encrypted in an owner-only file. "
        "process: one token per task. off: one per client.",
        enum=["disk", "process", "off"],
    ),
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description in the shape of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-m2p",
        "name": "M2P Prepaid Platform",
        "description": "The product catalogue of the M2P Prepaid Platform as DataFrame, Parquet, SQL table.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": "M2P Prepaid Platform",
                "external-doc-url": "https://dev.m2p.app/docs/prepaidv2",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": "M2P Prepaid Platform", "python-modules": ["airflow_provider_m2p.hooks.m2p"]}],
        "operators": [
            {
                "integration-name": "M2P Prepaid Platform",
                "python-modules": ["airflow_provider_m2p.operators.m2p"],
            }
        ],
        "transfers": [
            {
                "source-integration-name": "M2P Prepaid Platform",
                "target-integration-name": "Common SQL",
                "python-module": "airflow_provider_m2p.transfers.m2p_to_sql",
            }
        ],
        "triggers": [
            {"integration-name": "M2P Prepaid Platform", "python-modules": ["airflow_provider_m2p.triggers.m2p"]}
        ],
        "asset-uris": [
            {
                "schemes": ["m2p"],
                "handler": None,
                "to_openlineage_converter": "airflow_provider_m2p.lineage.to_dataset",
            }
        ],
        "extra-links": ["airflow_provider_m2p.links.m2p.M2PApiDocsLink"],
        "connection-types": [
            {
                "connection-type": "m2p",
                "hook-class-name": "airflow_provider_m2p.hooks.m2p.M2PHook",
                "hook-name": "M2P",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {"host": "Base URL", "login": "Client ID", "password": "Client secret"},
                    "placeholders": {
                        "host": "https://sandbox-api.m2pprepaid.com",
                        "port": "443; Airflow 3.3.1 and 3.3.2 cannot test without",
                        "login": "client id issued by M2P",
                    },
                },
                "conn-fields": CONN_FIELDS,
            }
        ],
    }
