"""Address, credentials, gRPC options and reply limits of the server."""

from __future__ import annotations

from collections.abc import Iterable

from latentserve_server.config import Settings
from latentserve_server.manifest.reader import Manifest
from latentserve_server.transport.base import Endpoint
from latentserve_server.transport.certificates import server_credentials
from latentserve_server.transport.flow_control.reply_quota import ReplyLimits
from latentserve_server.transport.security import token_guard

_MIN_MESSAGE_BYTES = 4 * 2**20
_MAX_MESSAGE_BYTES = 2**31 - 1  # gRPC accepts no larger limit
# A bearer token may have some KiB. Between a soft and a hard limit gRPC refuses calls at random,
# so both are equal.
_MAX_METADATA_BYTES = 16 * 2**10
# Clients may ping every 10 s, Go's shortest interval. Clocks differ and the network delays some
# pings, so the limit is lower.
_MIN_PING_INTERVAL_MS = 5_000
# Excess pings that are tolerated between two sends of the server before it closes the connection.
_MAX_PING_STRIKES = 2


def endpoint(settings: Settings, manifests: Iterable[Manifest]) -> Endpoint:
    """Return the endpoint for models with these manifests. Raises SettingsError."""
    return Endpoint(
        settings.listen,
        server_credentials(settings),
        token_guard(settings),
        options=(
            # 1 by default: a second server on the port would start and get half of the calls.
            ("grpc.so_reuseport", int(settings.shares_port)),
            ("grpc.max_receive_message_length", _message_limit(settings, manifests)),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
            ("grpc.max_allowed_incoming_connections", settings.max_connections),
            ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
            # An idle connection without a handshake counts as one; gRPC's default is 2 minutes.
            ("grpc.server_handshake_timeout_ms", round(settings.handshake_timeout_s * 1000)),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MS),
            ("grpc.http2.max_ping_strikes", _MAX_PING_STRIKES),
            ("grpc.keepalive_permit_without_calls", 1),
        ),
    )


def reply_limits(settings: Settings) -> ReplyLimits:
    """Return the limits on unwritten replies and on the duration of calls."""
    return ReplyLimits(
        connection_bytes=settings.reply_bytes,
        total_bytes=settings.total_reply_bytes,
        decoding_bytes=settings.queue_bytes,
        reader_idle_s=settings.reader_idle_s,
        max_call_s=settings.max_call_s,
    )


def host(address: str) -> str:
    """Return the host of HOST:PORT."""
    return address.rpartition(":")[0]


def _message_limit(settings: Settings, manifests: Iterable[Manifest]) -> int:
    """Return the size limit of a request in bytes.

    It is twice the largest tensor, so that a request with a few rows too many gets an error about
    its rows.
    """
    values = max((max(m.image.values, m.latent_dim) for m in manifests), default=0)
    limit = 2 * settings.max_request_rows * values * 4
    return min(max(_MIN_MESSAGE_BYTES, limit), _MAX_MESSAGE_BYTES)
