"""The API client, free of Airflow. ``requests`` is imported with the first use of ``M2PClient``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_m2p.client.page import Page, PageStream
from airflow_provider_m2p.client.settings import KNOWN_EXTRAS, ClientSettings

if TYPE_CHECKING:
    from airflow_provider_m2p.client.client import M2PClient as M2PClient

__all__ = ["KNOWN_EXTRAS", "ClientSettings", "M2PClient", "Page", "PageStream"]


def __getattr__(name: str) -> Any:
    if name == "M2PClient":
        from airflow_provider_m2p.client.client import M2PClient

        return M2PClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
