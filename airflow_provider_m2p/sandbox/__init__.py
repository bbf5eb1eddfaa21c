"""
A local stand-in for the M2P Prepaid Platform: ``m2p-sandbox``, or :class:`SandboxServer` in tests.

Everything it serves is made up.
"""

from __future__ import annotations

from airflow_provider_m2p.sandbox.server import SandboxServer

__all__ = ["SandboxServer"]
