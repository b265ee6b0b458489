"""Log filter for grpc.aio's stack traces of cancelled calls."""

from __future__ import annotations

import asyncio
import logging

# Private to grpcio, which raises it only for a failed read or write of a call.
_FAILED_BATCH = "ExecuteBatchError"


def drop_cancellation(record: logging.LogRecord) -> bool:
    """Return False for the record of a cancelled call, for use as a logging filter.

    grpc.aio logs a stack trace at the normal end of every health Watch (when the client or the
    server ends), and when the client of a stream with a full send buffer disconnects.
    `CallInterceptor` counts and logs such calls.
    """
    error = record.exc_info[0] if record.exc_info else None
    return error is None or not (error is asyncio.CancelledError or error.__name__ == _FAILED_BATCH)
