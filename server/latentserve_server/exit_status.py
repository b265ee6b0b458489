"""Exit statuses of the server; docs/operations.md has the same table."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
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
THREAD_FAILED = 7
"""A thread failed without which the process cannot serve; the log has the stack trace."""


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


def end(status: int) -> NoReturn:
    """End the process at once, without the exit handlers of Python and of the libraries.

    They join threads and destroy objects that a thread in an engine or in a codec may still use:
    a hanging thread would block the exit, or abort the process with SIGABRT.
    """
    try:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
    finally:
        os._exit(status)


def end_stuck(error: EngineStuck) -> NoReturn:
    """End the process because of --watchdog-exit."""
    try:
        log.error("the process ends: %s", error)
    finally:
        end(STUCK)


def end_failed(part: str, error: BaseException) -> NoReturn:
    """End the process because a part of it failed without which it cannot serve."""
    try:
        log.critical("%s has failed, so the process ends", part, exc_info=error)
    finally:
        # The memory may not even suffice for the log line.
        end(THREAD_FAILED)
