"""Server address, TLS material and metadata of a load test."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from latentserve_client._channel import load_channel_options


@dataclass(frozen=True, slots=True)
class Target:
    """Server address and credentials; picklable, because subprocesses receive it."""

    server: str
    max_message_bytes: int
    metadata: tuple[tuple[str, str], ...] = ()
    tls: bool = False
    tls_ca: bytes | None = None
    tls_cert: bytes | None = None
    tls_key: bytes | None = None

    def options(self) -> list[tuple[str, int | str]]:
        """Return channel arguments: a separate connection per channel, and no automatic retries."""
        return load_channel_options(self.server, self.max_message_bytes)

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return TLS credentials, None for plain text."""
        if not self.tls:
            return None
        return grpc.ssl_channel_credentials(self.tls_ca, self.tls_key, self.tls_cert)

    def channel(self) -> grpc.Channel:
        """Return a channel of the sync API with a separate connection."""
        credentials = self.credentials()
        if credentials is None:
            return grpc.insecure_channel(self.server, self.options())
        return grpc.secure_channel(self.server, credentials, self.options())
