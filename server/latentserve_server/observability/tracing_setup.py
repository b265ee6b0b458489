"""Start of tracing, where an OTLP endpoint is configured."""

from __future__ import annotations

from latentserve_server.errors import SettingsError
from latentserve_server.observability.tracing import Tracing


def open_tracing(endpoint: str) -> Tracing | None:
    """Return tracing with an export to an OTLP endpoint, None if the endpoint is "".

    Raises SettingsError if the extra `tracing` is not installed.
    """
    if not endpoint:
        return None
    try:
        from latentserve_server.observability.opentelemetry import OpenTelemetry
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise SettingsError(
            "--otlp-endpoint needs OpenTelemetry, which is not installed: "
            "pip install 'latentserve-server[tracing]'"
        ) from error
    return OpenTelemetry.exporting(endpoint)
