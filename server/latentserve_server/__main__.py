"""Entry point of the server: `latentserve-server` or `python -m latentserve_server`.

The signal handlers are installed before anything else is imported, which takes a few tenths of a
second. Process 1 of a container ignores a signal without a handler, so a SIGTERM meanwhile would be
lost; every other process would be killed by it, and by SIGHUP.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys


def main() -> int:
    """Serve until a signal arrives, and return the exit status (see `exit_status`)."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    signal.signal(signal.SIGHUP, _ignore)
    from latentserve_server.command_line import run

    return run()


def _end(number: int, frame: object) -> None:
    """End the process at once, because nothing has been started yet."""
    line = f"latentserve-server: stopped by {signal.Signals(number).name} before the start\n"
    with contextlib.suppress(OSError):
        os.write(2, line.encode())
    os._exit(0)


def _ignore(number: int, frame: object) -> None:
    """Ignore a request to reload, because no model has been loaded yet."""


if __name__ == "__main__":
    sys.exit(main())
