"""Channels to the server: message sizes, keepalive, retries, load balancing."""

from __future__ import annotations

import ipaddress
import json
from typing import Any
from urllib.parse import unquote, urlsplit

import grpc
import grpc.aio

# Including the first attempt.
MAX_ATTEMPTS = 4


def open_channel(
    server: str, max_message_bytes: int, credentials: grpc.ChannelCredentials | None
) -> grpc.Channel:
    """Return a channel for the sync API; it connects on the first call."""
    options = channel_options(server, max_message_bytes)
    if credentials is None:
        return grpc.insecure_channel(server, options)
    return grpc.secure_channel(server, credentials, options)


def open_async_channel(
    server: str, max_message_bytes: int, credentials: grpc.ChannelCredentials | None
) -> grpc.aio.Channel:
    """Return a channel for the asyncio API; it belongs to the running event loop."""
    options = channel_options(server, max_message_bytes)
    if credentials is None:
        return grpc.aio.insecure_channel(server, options)
    return grpc.aio.secure_channel(server, credentials, options)


def channel_options(server: str, max_message_bytes: int) -> list[tuple[str, Any]]:
    """Return the channel arguments for a server address."""
    options: list[tuple[str, Any]] = [
        # The default of gRPC refuses replies above 4 MiB, about 1,300 MNIST images.
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # Detects a dead peer within 40 s while a call is open; idle channels send no pings.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 0),
        # Reconnects to a restarted server after 0.2 s instead of 1 s.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 10_000),
        ("grpc.service_config", json.dumps(service_config(server))),
    ]
    if is_local_target(server):
        # The proxy of http_proxy cannot reach the loopback interface of this machine.
        options.append(("grpc.enable_http_proxy", 0))
    return options


def service_config(server: str) -> dict[str, Any]:
    """Return the gRPC service config: retry policies and load balancing.

    RESOURCE_EXHAUSTED means a full queue, with the delay in `grpc-retry-pushback-ms`, or a message
    that is too large, for which a retry is useless: hence few attempts and the retry throttling.
    CANCELLED comes from a server that closes its port while the call arrives; gRPC does not retry a
    call that the client cancels. Health checks have no retry policy, because they report the
    current state.
    """
    backoff = {"initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2}
    config: dict[str, Any] = {
        "methodConfig": [
            {
                "name": [{"service": "latentserve.v1.GenerativeService"}],
                "retryPolicy": {
                    "maxAttempts": MAX_ATTEMPTS,
                    **backoff,
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"],
                },
            },
            {
                "name": [{"service": "latentserve.v1.ModelService"}],
                "retryPolicy": {
                    "maxAttempts": MAX_ATTEMPTS,
                    **backoff,
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            },
        ],
        # Retries stop when half of the tokens are used, to spare an overloaded server. A worker
        # that dies fails all its calls in flight at once, and these must fit into that half.
        "retryThrottling": {"maxTokens": 200, "tokenRatio": 0.1},
    }
    if server.startswith("dns:///"):
        # The name resolves to several servers: distribute the calls over all of them.
        config["loadBalancingConfig"] = [{"round_robin": {}}]
    return config


def load_channel_options(server: str, max_message_bytes: int) -> list[tuple[str, Any]]:
    """Return the channel arguments of the load tester.

    Each channel has a separate connection and no retry policy, so that each call is one attempt.
    """
    options = [
        pair
        for pair in channel_options(server, max_message_bytes)
        if pair[0] != "grpc.service_config"
    ]
    return [*options, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]


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
