"""State machine of a server-streaming call; see `calls`."""

from __future__ import annotations

from typing import Any

from latentserve_server.services.call import ChunkStream
from latentserve_server.transport.completion_queue import operations
from latentserve_server.transport.completion_queue.calls import Method, UnaryCall


class StreamCall(UnaryCall):
    """A call with many replies, which requests the next one after the previous is written."""

    __slots__ = ("_connection", "_metadata_sent", "_stream")

    def __init__(self, event: Any, method: Method) -> None:
        super().__init__(event, method)
        self._stream: ChunkStream | None = None
        self._metadata_sent = False
        self._connection = ""  # its name, while the stream waits for earlier replies to be read

    def _begin(self, request: bytes) -> None:
        method = self._method.stream
        assert method is not None  # noqa: S101 - Acceptor creates no other call
        try:
            self._stream = method(request)
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            self._fail(error)
            return
        self._next()

    def _next(self) -> None:
        stream = self._stream
        if stream is None or self._closed or self._ended_early:
            return
        interceptors = self._method.interceptors
        if interceptors is not None and interceptors.replies.tight:
            connection = self._connection = self._call.peer()
            if not interceptors.replies.has_room(connection):
                interceptors.replies.wait(self, connection, self._next)
                self._forget_if_closed()
                return
        try:
            work = stream.next_chunk(self._deadline, self._done)
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            self._fail(error)
            return
        self._set_work(work)

    def _send_reply(self, body: bytes) -> None:
        parts = (*self._unsent_metadata(), *operations.message(body))
        self._metadata_sent = True
        if (interceptors := self._method.interceptors) is not None:
            interceptors.rpc.sent()
        if self._stream is None or self._stream.exhausted:
            self._finish((*parts, *operations.status(operations.OK)), "OK")
        else:
            self._send(parts, self._on_written)

    def _on_written(self, event: Any) -> object:
        """Handle the end of a write: request the next chunk."""
        self._writing_s = 0.0
        self._release_hold()
        self._next()
        return self._batch_ended()

    def _forget_if_closed(self) -> None:
        """Stop waiting if the close event came before the wait began."""
        if self._closed:
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        interceptors = self._method.interceptors
        if self._connection and interceptors is not None:
            interceptors.replies.forget(self, self._connection)

    def _unsent_metadata(self) -> tuple[Any, ...]:
        return () if self._metadata_sent else operations.initial_metadata()
