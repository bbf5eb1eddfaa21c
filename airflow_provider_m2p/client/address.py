"""Which address the platform sees, as far as this machine can know: what a whitelist has to hold."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit


def caller_address(base_url: str, *, by_proxy: bool) -> str:
    """
    Describe the address that requests leave from, for messages. Nothing is sent to find out.

    :param base_url: where the requests go.
    :param by_proxy: whether they go through a proxy.
    """
    if by_proxy:
        return "this worker's proxy"
    address = _local_address(base_url)
    if address is None:
        return "this worker's address"
    return f"worker {address}" if address.is_global else f"worker {address} before NAT"


def _local_address(base_url: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    url = urlsplit(base_url)
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        family, kind, protocol, _, remote = socket.getaddrinfo(url.hostname, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(remote)  # a datagram socket: this chooses a route and sends nothing
            return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])
    except (OSError, ValueError):
        return None
