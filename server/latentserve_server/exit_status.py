"""Exit statuses of the server; docs/operations.md has the same table."""

from __future__ import annotations

import logging
import os
import signal
from typing import NoReturn

from latentserve_server.errors import EngineStuck, SettingsError, StartupError

log = logging.getLogger(__name__)

STOPPED = 0
FAILED = 1
"""Unexpected error; the log has the stack trace."""
SETTINGS = 2
STARTUP = 3
WORKERS_DIE = 4
"""Workers died repeatedly, and none served."""
UNCLEAN_STOP = 5
"""A worker died during the stop, or was killed, so calls were cut off."""
STUCK = 6
"""The watchdog ended the process because of --watchdog-exit."""


def describe(status: int) -> str:
    """Return text on how a process ended, from a `subprocess` status (negative for a signal)."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def status_of(error: StartupError) -> int:
    """Return the exit status of a server that cannot start."""
    return SETTINGS if isinstance(error, SettingsError) else STARTUP


def end_stuck(error: EngineStuck) -> NoReturn:
    """End the process immediately: a thread that hangs in a driver may block a graceful exit."""
    log.error("the process ends: %s", error)
    logging.shutdown()
    os._exit(STUCK)
