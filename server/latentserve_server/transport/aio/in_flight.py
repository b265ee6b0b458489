"""Calls in flight on an event loop: their counted reply bytes, and their end when overdue."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from latentserve_server.errors import DeadlineExceeded
from latentserve_server.transport.aio.connections import close_connection
from latentserve_server.transport.flow_control.expiry import MARGIN_S
from latentserve_server.transport.flow_control.reply_quota import (
    COUNTED_BYTES,
    ReplyHold,
    ReplyQuota,
)


class CallInFlight:
    """One call. grpc.aio serves it in one task, which ends when its status is written.

    `deadline` is on the monotonic clock; `waiting` is the future that the call awaits.
    """

    def __init__(self, context: Any, deadline: float | None, replies: ReplyQuota) -> None:
        self.deadline = deadline
        self.waiting: asyncio.Future[Any] | None = None
        self._context = context
        self._replies = replies
        self._hold: ReplyHold | None = None
        self._writing_s = 0.0

    def hold(self, nbytes: int) -> None:
        """Count the bytes of the outputs, then of the reply, until it is written."""
        if self._hold is not None:
            self._hold.resize(nbytes)
        elif nbytes >= COUNTED_BYTES:
            self._hold = self._replies.acquire(self._context.peer, nbytes)

    def writing(self) -> None:
        """Record that grpc.aio gets the reply next."""
        self._writing_s = time.monotonic()

    def written(self) -> None:
        """Record that the reply was written or dropped."""
        self._writing_s = 0.0
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    async def wait_for_room(self) -> None:
        """Wait until the connection's earlier replies are read."""
        replies = self._replies
        while replies.tight and not replies.has_room(connection := self._context.peer()):
            loop = asyncio.get_running_loop()
            room = self.waiting = loop.create_future()
            resume = partial(loop.call_soon_threadsafe, _set, room)
            replies.wait(self, connection, resume)
            try:
                await room
            finally:
                replies.forget(self, connection)

    def end_if_overdue(self, now_s: float, reader_idle_s: float) -> str:
        """End the call if it is overdue; return the reason, one of `expiry.ENDED`, or "".

        grpc.aio cannot cancel a call whose reply is being written: its connection is closed.
        """
        overdue = self.deadline is not None and now_s > self.deadline + MARGIN_S
        if self._writing_s:
            if now_s - self._writing_s > reader_idle_s:
                reason = "reader_idle"
            elif overdue:
                reason = "max_call"
            else:
                return ""
            close_connection(self._context.peer())
            return reason
        waiting = self.waiting
        if overdue and waiting is not None and not waiting.done():
            waiting.set_exception(
                DeadlineExceeded("the call has no deadline and took too long (--max-call-s)")
            )
            return "max_call"
        return ""


class CallsInFlight:
    """The calls in flight of one server.

    Args:
        replies: counts their unwritten replies.
        max_call_s: longest duration of a call without a deadline.
    """

    def __init__(self, replies: ReplyQuota, max_call_s: float | None) -> None:
        self.replies = replies
        self._max_call_s = max_call_s
        self._calls: set[CallInFlight] = set()

    def enter(self, context: Any, deadline: float | None) -> CallInFlight:
        """Return a new call of the current task. Raises RepliesUnread if it is refused."""
        if self.replies.tight:
            self.replies.check(context.peer())
        if deadline is None and self._max_call_s is not None:
            deadline = time.monotonic() + self._max_call_s
        call = CallInFlight(context, deadline, self.replies)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - grpc.aio runs handlers in tasks
        self._calls.add(call)

        def ended(_: object) -> None:
            self._calls.discard(call)
            call.written()

        task.add_done_callback(ended)
        return call

    def copy(self) -> set[CallInFlight]:
        """Return the calls in flight."""
        return self._calls.copy()


def _set(room: asyncio.Future[None]) -> None:
    if not room.done():
        room.set_result(None)
