"""What grpc.aio has to say of callers who left: nothing that anybody must know."""

from __future__ import annotations

import asyncio
import logging

# Private to grpcio. It comes from nothing but its own writes and reads.
_WRITE_TO_NOBODY = "ExecuteBatchError"


def drop_cancellation(record: logging.LogRecord) -> bool:
    """Filter of a logger: False for the record of a call whose caller has gone.

    grpc.aio writes a stack trace where a health Watch ends with its client or with the server,
    which is how every Watch ends, and where a stream that was full meets the end of its caller.
    Our interceptor counts and logs such a call by itself.
    """
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not (kind is asyncio.CancelledError or kind.__name__ == _WRITE_TO_NOBODY)
