"""Quota on the bytes of unwritten replies, per connection and in total.

HTTP/2 lets a client stop reading, for as long as it likes, while its calls go on. gRPC core then
keeps every reply in memory. So the bytes of a reply are counted from its building, or from the end
of its inference if it waits for a thread to build it, until gRPC core has written it or the call
has ended. Above a limit, new calls are refused before they are batched, and streams wait with
their next reply. A call that was admitted gets its reply, so the limits can be exceeded by the
replies of the rows that were queued.

The second half of the total is reserved for connections without unwritten replies, so that a few
clients that do not read cannot use all of it.

Memory is about twice the counted bytes: Python's copy and gRPC core's. Replies below
`COUNTED_BYTES` cost less than their call; they are limited by the number of calls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from latentserve_server.errors import RepliesUnread

COUNTED_BYTES = 1024
"""Smaller replies are not counted."""
_CONNECTION_BYTES = 16 * 1024
"""Smaller replies count in total only: the streams of a connection are limited, too."""
_RETRY_S = 1.0
REFUSED = ("connection", "total")
"""Limits for which a call is refused."""


@dataclass(frozen=True)
class ReplyLimits:
    """Limits on the memory outside the batcher's queues, and on the duration of calls.

    Attributes:
        connection_bytes, total_bytes: limits on unwritten bytes.
        decoding_bytes: limit on the bytes of large requests that wait to be decoded.
        reader_idle_s: longest time that a reply may wait for its client to read it.
        max_call_s: longest duration of a call without a deadline; None for no limit.
    """

    connection_bytes: int = 2**62
    total_bytes: int = 2**62
    decoding_bytes: int = 2**62
    reader_idle_s: float = 1e9
    max_call_s: float | None = None


class ReplyQuota:
    """Counts unwritten replies. Safe from any thread; no method blocks.

    `tight` is whether a new call or reply must ask `check` or `has_room`; it is False while few
    bytes are unwritten, so that a call reads only one attribute.

    Args:
        limits: the limits.
        on_refused: called with one of `REFUSED` for every refused call.
    """

    def __init__(
        self,
        limits: ReplyLimits | None = None,
        on_refused: Callable[[str], object] = lambda _: None,
    ) -> None:
        limits = limits or ReplyLimits()
        self._limit = limits.connection_bytes
        self._total_limit = limits.total_bytes
        self._on_refused = on_refused
        self._lock = threading.Lock()
        self._by_connection: dict[str, int] = {}
        self._full: set[str] = set()  # connections above their limit
        self._waiting: dict[str, dict[object, Callable[[], object]]] = {}
        self.nbytes = 0
        self.tight = False

    def acquire(self, connection: Callable[[], str], nbytes: int) -> ReplyHold:
        """Count the bytes of a reply; `connection` returns the name of its connection."""
        name = connection() if nbytes >= _CONNECTION_BYTES else ""
        with self._lock:
            self._add(name, nbytes)
        return ReplyHold(self, name, nbytes)

    def check(self, connection: str) -> None:
        """Raise RepliesUnread if a new call of a connection must be refused."""
        with self._lock:
            limit = self._exceeded(connection)
            held, total = self._by_connection.get(connection, 0), self.nbytes
        if not limit:
            return
        self._on_refused(limit)
        whose = "of this connection" if limit == "connection" else "of all connections"
        flag = "--reply-bytes" if limit == "connection" else "--total-reply-bytes"
        highest = self._limit if limit == "connection" else self._total_limit
        raise RepliesUnread(
            f"replies {whose} are not read: {held if limit == 'connection' else total} bytes wait "
            f"to be written, the limit is {highest} ({flag}). Read the replies of earlier calls "
            "first",
            metadata={"limit": flag.removeprefix("--").replace("-", "_")},
            retry_after_s=_RETRY_S,
        )

    def has_room(self, connection: str) -> bool:
        """Return whether a running stream of a connection may build its next reply."""
        with self._lock:
            return not self._exceeded(connection)

    def wait(self, stream: object, connection: str, resume: Callable[[], object]) -> None:
        """Call `resume` once, from any thread, when the connection has room again.

        It may be called at once. `forget` removes the stream.
        """
        with self._lock:
            self._waiting.setdefault(connection, {})[stream] = resume
        self._resume((connection,))

    def forget(self, stream: object, connection: str) -> None:
        """Remove a stream that waits, if it does."""
        with self._lock:
            waiting = self._waiting.get(connection)
            if waiting is not None:
                waiting.pop(stream, None)
                if not waiting:
                    del self._waiting[connection]

    def resize(self, hold: ReplyHold, nbytes: int) -> None:
        """Change the bytes of a hold, and resume streams that have room; 0 ends the hold."""
        connection = hold.connection
        with self._lock:
            before = self.nbytes
            if not hold.nbytes:
                return
            self._add(connection, nbytes - hold.nbytes)
            hold.nbytes = nbytes
            if not self._waiting:
                return
            # Only a limit that is met again can end the wait of other connections.
            met = [x for x in (self._total_limit, self._total_limit // 2) if self.nbytes < x]
            candidates = tuple(self._waiting) if any(before >= x for x in met) else (connection,)
        self._resume(candidates)

    def _add(self, connection: str, nbytes: int) -> None:
        self.nbytes += nbytes
        if connection:
            held = self._by_connection.get(connection, 0) + nbytes
            if held:
                self._by_connection[connection] = held
            else:
                del self._by_connection[connection]
            if held >= self._limit:
                self._full.add(connection)
            else:
                self._full.discard(connection)
        self.tight = bool(self._full) or self.nbytes >= self._total_limit // 2

    def _exceeded(self, connection: str) -> str:
        """Return the limit that a connection or all of them exceed, "" for none."""
        if connection in self._full:
            return "connection"
        if self.nbytes >= self._total_limit:
            return "total"
        if self.nbytes >= self._total_limit // 2 and connection in self._by_connection:
            return "total"
        return ""

    def _resume(self, connections: Iterable[str]) -> None:
        """Resume the streams that wait on connections with room."""
        for connection in connections:
            while (resume := self._next_waiting(connection)) is not None:
                resume()

    def _next_waiting(self, connection: str) -> Callable[[], object] | None:
        with self._lock:
            waiting = self._waiting.get(connection)
            if not waiting or self._exceeded(connection):
                return None
            resume = waiting.pop(next(iter(waiting)))
            if not waiting:
                del self._waiting[connection]
            return resume


class ReplyHold:
    """The counted bytes of one reply, and the name of its connection, "" for a small reply."""

    __slots__ = ("_quota", "connection", "nbytes")

    def __init__(self, quota: ReplyQuota, connection: str, nbytes: int) -> None:
        self._quota = quota
        self.connection = connection
        self.nbytes = nbytes

    def resize(self, nbytes: int) -> None:
        """Count another number of bytes, unless the hold was released."""
        self._quota.resize(self, nbytes)

    def release(self) -> None:
        """Subtract the bytes. Further calls have no effect."""
        self._quota.resize(self, 0)
