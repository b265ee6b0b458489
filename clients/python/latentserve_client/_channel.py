"""How a channel to the server is set up: sizes, keepalive, retries, load balancing."""

from __future__ import annotations

import json
from typing import Any

import grpc
import grpc.aio

# Attempts in all, the first one included.
MAX_ATTEMPTS = 4

_LOOPBACK = ("localhost:", "127.", "[::1]:", "unix:")


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
        # gRPC would refuse replies above 4 MiB: some 1,300 MNIST images.
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # Notice a dead peer within 40 s while a call is open; idle channels stay silent.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 0),
        # Try a server that just started again soon, not after a second.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 10_000),
        ("grpc.service_config", json.dumps(service_config(server))),
    ]
    if server.startswith(_LOOPBACK):
        # A proxy set for the internet in http_proxy cannot reach this machine.
        options.append(("grpc.enable_http_proxy", 0))
    return options


def service_config(server: str) -> dict[str, Any]:
    """Return the retry and load balancing rules.

    RESOURCE_EXHAUSTED means a full queue, where the server says how long to wait by
    `grpc-retry-pushback-ms`, but also a message that is too large, where trying again is useless:
    hence few attempts and the throttle. CANCELLED comes from a server that was closing its port
    as the call arrived; a call that its caller cancels is not tried again. Health checks are not
    either: they report what is.
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
        # No more retries once half of the tokens are gone: a server in trouble is left alone. A
        # worker that dies fails all calls in flight at once, and these must fit into the half.
        "retryThrottling": {"maxTokens": 200, "tokenRatio": 0.1},
    }
    if server.startswith("dns:///"):
        # One name for several servers: use all of them.
        config["loadBalancingConfig"] = [{"round_robin": {}}]
    return config


def load_channel_options(server: str, max_message_bytes: int) -> list[tuple[str, Any]]:
    """Return the channel arguments for load: nothing is hidden, shared or retried.

    A connection of its own per channel, and no retry policy, so that a call is a call.
    """
    ours = ("grpc.service_config",)
    options = [pair for pair in channel_options(server, max_message_bytes) if pair[0] not in ours]
    return [*options, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
