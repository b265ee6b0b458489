"""Detection of addresses on this machine, which no proxy can reach.

gRPC and urllib send calls to the proxy of `http_proxy`, those to the loopback interface too, unless
`no_proxy` excludes them.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote, urlsplit


def is_local_target(target: str) -> bool:
    """Return whether a gRPC target names only this machine, in any of gRPC's forms."""
    scheme, colon, rest = target.partition(":")
    scheme = scheme.lower()
    if colon and scheme in ("unix", "unix-abstract", "vsock"):
        return True
    if colon and scheme in ("dns", "ipv4", "ipv6"):
        target = rest.rpartition("/")[2]  # dns://AUTHORITY/NAME
    addresses = unquote(target).split(",") if scheme in ("ipv4", "ipv6") else [unquote(target)]
    return all(is_local_host(_host(address)) for address in addresses)


def is_local_url(url: str) -> bool:
    """Return whether an http or https address names this machine."""
    try:
        return is_local_host(urlsplit(url).hostname or "")
    except ValueError:  # an invalid IPv6 address
        return False


def is_local_host(host: str) -> bool:
    """Return whether a host name or address is of the loopback interface, or unspecified."""
    host = host.lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def _host(address: str) -> str:
    """Return the host of HOST, HOST:PORT, [IPV6] or [IPV6]:PORT."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
