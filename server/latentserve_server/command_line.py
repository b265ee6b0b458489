"""Command line of the server: reads the settings and runs one process, or the supervisor."""

from __future__ import annotations

import contextlib
import logging
import os
import sys

from latentserve_server import __version__, exit_status, grpc_environment
from latentserve_server.config import Settings, read_settings
from latentserve_server.errors import SettingsError, StartupError
from latentserve_server.observability.logs import format as log_format

log = logging.getLogger("latentserve_server")


def run() -> int:
    """Serve until a signal arrives, and return the exit status (see `exit_status`)."""
    log_format.ignore_write_errors_at_exit()
    try:
        settings = read_settings(sys.argv[1:])
    except SettingsError as error:
        with contextlib.suppress(OSError):  # stderr may be closed; the exit status is enough
            print(f"latentserve-server: {error}", file=sys.stderr)
        return exit_status.SETTINGS
    log_format.configure(
        settings.log_format,
        settings.log_level,
        worker=log_format.SUPERVISOR if settings.workers > 1 else None,
        log_requests=settings.log_requests == "yes",
    )
    log.info("latentserve %s: %s", __version__, settings.describe())
    try:
        return _serve(settings)
    except StartupError as error:
        log.error("latentserve-server: %s", error)
        return exit_status.status_of(error)


def _serve(settings: Settings) -> int:
    grpc_environment.prepare(settings.transport, os.environ)
    # Imported here, because a supervisor needs neither gRPC nor ONNX Runtime.
    if settings.workers > 1:
        from latentserve_server.supervisor.control_loop import supervise

        return supervise(settings)
    import asyncio

    from latentserve_server.process import serve_and_end

    asyncio.run(serve_and_end(settings))
