"""Log formats: readable lines, or one JSON object per line.

Both go to stderr. Messages that C libraries (gRPC core, ONNX Runtime) write to stderr themselves
are not formatted.
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

from latentserve_server.observability.logs.rate_limit import LIMITED_LOGGERS, limit_flood

FORMATS = ("readable", "json")
LEVELS = ("debug", "info", "warning", "error")
SUCCESS_LOGGER = "latentserve_server.request.ok"
"""Logger of successful calls; disabled without `--log-requests`."""

SUPERVISOR = 0
"""Worker number of the supervisor, and of a server with a single process."""

MAX_MESSAGE_CHARS = 4000
"""Longer messages are truncated."""

_READABLE = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
# The attributes of every record; all others were passed as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

log = logging.getLogger(__name__)


class ReadableFormatter(logging.Formatter):
    """Formats a record as exactly one line, so that text from clients cannot forge a line.

    Stack traces follow on indented lines.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line, with newlines and other control characters in the message escaped."""
        record.message = _printable(_cut(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Return the stack trace, indented."""
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"    {_printable(line)}" for line in lines)


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object: time (UTC), level, logger, worker, message, `extra`."""

    def __init__(self, worker: int = SUPERVISOR) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; JSON escapes newlines in texts."""
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
    """Set up logging for this process, including warnings and uncaught exceptions.

    Args:
        form: `readable` or `json`.
        level: lowest level that is written.
        worker: worker number in every line; None for a server with a single process.
        log_requests: whether successful calls are logged.
        stream: output stream, stderr by default.
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
    # A separate level, so that --log-requests also works with --log-level warning.
    logging.getLogger(SUCCESS_LOGGER).setLevel(logging.INFO if log_requests else logging.ERROR)
    for name in LIMITED_LOGGERS:
        logging.getLogger(name).addFilter(limit_flood)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def ignore_write_errors_at_exit() -> None:
    """Ignore failing writes to stdout and stderr at exit, on a full disk or a closed pipe.

    Otherwise Python would replace the exit status by 120.
    """
    atexit.unregister(_discard_unwritten)
    atexit.register(_discard_unwritten)


def _discard_unwritten() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            # Python flushes the stream once more, which must then succeed.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _cut(text: str) -> str:
    if len(text) <= MAX_MESSAGE_CHARS:
        return text
    return f"{text[:MAX_MESSAGE_CHARS]}... ({len(text)} characters)"


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    log.critical(
        "the process ends because of an uncaught exception", exc_info=(kind, error, traceback)
    )


def _log_uncaught_in_thread(caught: threading.ExceptHookArgs) -> None:
    if caught.exc_value is not None and not issubclass(caught.exc_type, SystemExit):
        name = caught.thread.name if caught.thread else "unknown"
        log.error(
            "the thread %s ended because of an uncaught exception", name, exc_info=caught.exc_value
        )
