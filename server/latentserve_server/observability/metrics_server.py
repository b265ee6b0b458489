"""HTTP server of the Prometheus metrics."""

from __future__ import annotations

import logging

import prometheus_client
from prometheus_client import CollectorRegistry

from latentserve_server.errors import SettingsError

log = logging.getLogger(__name__)


def serve_metrics(registry: CollectorRegistry, address: str) -> int:
    """Serve /metrics on HOST:PORT from separate threads; return the port.

    Raises SettingsError if the address cannot be used.
    """
    host, _, port = address.rpartition(":")
    try:
        server, _ = prometheus_client.start_http_server(
            int(port), host.strip("[]"), registry=registry
        )
    except OSError as error:
        raise SettingsError(
            f"--metrics-listen {address} cannot be used: {error.strerror}"
        ) from error
    log.info("metrics are at http://%s:%d/metrics", host, server.server_port)
    return int(server.server_port)
