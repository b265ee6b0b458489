"""Where the server listens, and with which of gRPC's options."""

from __future__ import annotations

from collections.abc import Iterable

from latentserve_server.config import Settings
from latentserve_server.manifest import Manifest
from latentserve_server.security import server_credentials, token_guard
from latentserve_server.transport import Endpoint

_MIN_MESSAGE_BYTES = 4 * 2**20
_MAX_MESSAGE_BYTES = 2**31 - 1  # gRPC takes no larger limit


def endpoint(settings: Settings, manifests: Iterable[Manifest]) -> Endpoint:
    """Return the endpoint for models of these manifests; raises SettingsError."""
    return Endpoint(
        settings.listen,
        server_credentials(settings),
        token_guard(settings),
        options=(
            # Otherwise a second server on the port would start and take half the calls.
            ("grpc.so_reuseport", int(settings.shares_port)),
            ("grpc.max_receive_message_length", _message_limit(settings, manifests)),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            # The default, 5 minutes, hangs up on clients that ping every 10 s, as Go's do.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ),
    )


def host(address: str) -> str:
    """Return the host of HOST:PORT."""
    return address.rpartition(":")[0]


def _message_limit(settings: Settings, manifests: Iterable[Manifest]) -> int:
    """Return the largest request in bytes.

    It is twice the largest tensor, so that a few rows too many get an error that says so.
    """
    values = max((max(m.image.values, m.latent_dim) for m in manifests), default=0)
    wanted = 2 * settings.max_request_rows * values * 4
    return min(max(_MIN_MESSAGE_BYTES, wanted), _MAX_MESSAGE_BYTES)
