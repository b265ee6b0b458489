"""How the log looks: lines for a person, or one JSON object per line.

Both go to stderr. What C libraries write there themselves (gRPC's core, ONNX Runtime) is not ours
to format.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import threading
import time
from types import TracebackType
from typing import Any, TextIO

FORMATS = ("readable", "json")
LEVELS = ("debug", "info", "warning", "error")
GOOD_REQUESTS = "latentserve_server.request.ok"
"""The logger of calls that were answered; silent unless asked for."""

SUPERVISOR = 0
"""The worker number of the supervisor, and of a server that is one process."""

MAX_MESSAGE_LETTERS = 4000
"""Longer messages are cut."""

_READABLE = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
# What every record has; anything else in it was given as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

log = logging.getLogger(__name__)


class ReadableFormatter(logging.Formatter):
    """One line per record, and only one: what is sent by callers cannot look like another.

    Stack traces have lines of their own, indented.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line; newlines and other control characters in texts are escaped."""
        record.message = _printable(_cut(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return the stack trace, indented."""
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"    {_printable(line)}" for line in lines)


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time (UTC), level, logger, worker, message, what was given."""

    def __init__(self, worker: int = SUPERVISOR) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; newlines in texts are escaped, so that it is one."""
        seconds, fraction = divmod(record.created, 1)
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
            + f".{int(fraction * 1000):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "worker": self._worker,
            "message": _cut(record.getMessage()),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(
    form: str,
    level: str,
    *,
    worker: int | None = None,
    log_requests: bool = False,
    stream: TextIO | None = None,
) -> None:
    """Set up the log of this process; what nothing catches goes there too.

    Args:
        form: `readable` or `json`.
        level: the lowest that is written.
        worker: the number in every line; None for a server that is one process.
        log_requests: whether calls that were answered get a line.
        stream: where to write, stderr by default.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter(worker or SUPERVISOR))
    elif worker is None:
        handler.setFormatter(ReadableFormatter(_READABLE))
    else:
        name = f"worker {worker}" if worker else "supervisor"
        handler.setFormatter(ReadableFormatter(f"%(asctime)s [{name}] {_READABLE[12:]}"))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Of its own level: --log-requests means it, also with --log-level warning.
    logging.getLogger(GOOD_REQUESTS).setLevel(logging.INFO if log_requests else logging.ERROR)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def ignore_write_errors_at_exit() -> None:
    """Let what nobody takes at the end of the process be lost, on a full disk or a closed pipe.

    Python would end with exit status 120, whatever the process has to say of itself.
    """
    atexit.unregister(_drop_what_is_left)
    atexit.register(_drop_what_is_left)


def _drop_what_is_left() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            # Python flushes it once more, and must succeed then.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _cut(text: str) -> str:
    if len(text) <= MAX_MESSAGE_LETTERS:
        return text
    return f"{text[:MAX_MESSAGE_LETTERS]}... ({len(text)} letters)"


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    log.critical("the process ends by an error of its own", exc_info=(kind, error, traceback))


def _log_uncaught_in_thread(caught: threading.ExceptHookArgs) -> None:
    if caught.exc_value is not None and not issubclass(caught.exc_type, SystemExit):
        name = caught.thread.name if caught.thread else "unknown"
        log.error("the thread %s ended by an error", name, exc_info=caught.exc_value)
