"""The command line: `latentserve-server` or `python -m latentserve_server`."""

from __future__ import annotations

import asyncio
import logging
import sys

from latentserve_server import __version__, logs
from latentserve_server.app import serve
from latentserve_server.config import read_settings
from latentserve_server.errors import SettingsError, StartupError

EXIT_SETTINGS = 2
EXIT_STARTUP = 3


def main() -> int:
    """Serve until a signal; return 0, 2 for bad settings, 3 for a server that cannot start."""
    try:
        settings = read_settings(sys.argv[1:])
    except SettingsError as error:
        print(f"latentserve-server: {error}", file=sys.stderr)
        return EXIT_SETTINGS
    logs.configure(
        settings.log_format, settings.log_level, log_requests=settings.log_requests == "yes"
    )
    logging.getLogger(__name__).info("latentserve %s: %s", __version__, settings.describe())
    try:
        asyncio.run(serve(settings))
    except StartupError as error:
        print(f"latentserve-server: {error}", file=sys.stderr)
        return EXIT_SETTINGS if isinstance(error, SettingsError) else EXIT_STARTUP
    return 0


if __name__ == "__main__":
    sys.exit(main())
