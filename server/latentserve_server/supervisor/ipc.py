"""Message channel between the supervisor and a worker, over a socket pair.

Either side sends one-way messages, or requests whose reply arrives in a future. Messages are
pickled, which is safe because the supervisor started the process at the other end.
"""

from __future__ import annotations

import itertools
import pickle
import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from latentserve_server.vital_thread import VitalThread


class IpcClosed(Exception):
    """The other process closed its end of the channel."""


@dataclass(frozen=True)
class IpcRequest:
    """A message that expects a reply, see `IpcChannel.reply`."""

    number: int
    body: object


@dataclass(frozen=True)
class _IpcReply:
    """The reply to a request; `body` is the result of its future, or the exception it raises."""

    number: int
    body: object


class IpcChannel:
    """One end of a channel. Any thread may send, request and reply; one thread receives.

    Args:
        connection: the end of the socket pair.
        queued: whether a separate thread writes the messages, so that no caller blocks while the
            other process does not read. The caller must then bound the number of messages.
    """

    def __init__(self, connection: Connection, *, queued: bool = False) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._sender: threading.Thread | None = None
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._requested: dict[int, Future[Any]] = {}
        self._closed = False
        if queued:
            self._sender = VitalThread(self._send_queued, name="ipc-sender")
            self._sender.start()

    def send(self, message: object) -> None:
        """Send a message; it is lost without an error if the other end is closed."""
        data = pickle.dumps(message)
        if self._sender is not None:
            self._queue.put(data)
        else:
            self._write(data)

    def _send_queued(self) -> None:
        while (data := self._queue.get()) is not None:
            self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            with self._sending:
                self._connection.send_bytes(data)
        except OSError:
            pass  # `receive` raises IpcClosed

    def request(self, body: object) -> Future[Any]:
        """Send a request; return the future of its reply, or of IpcClosed."""
        future: Future[Any] = Future()
        request = IpcRequest(next(self._numbers), body)
        with self._lock:
            if not self._closed:
                self._requested[request.number] = future
        if self._closed:
            future.set_exception(IpcClosed("the other process has closed the channel"))
        else:
            self.send(request)
        return future

    def reply(self, request: IpcRequest, body: object) -> None:
        """Reply to a request; if `body` is an exception, the requester's future raises it."""
        self.send(_IpcReply(request.number, body))

    def receive(self) -> object:
        """Wait for the next message or IpcRequest; set the futures of replies on the way.

        Raises IpcClosed if the other process has closed the channel.
        """
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError) as error:
                self._close()
                raise IpcClosed("the other process has closed the channel") from error
            if not isinstance(message, _IpcReply):
                return message
            with self._lock:
                future = self._requested.pop(message.number, None)
            if future is not None:
                _resolve(future, message.body)

    def _close(self) -> None:
        self._queue.put(None)
        with self._lock:
            self._closed = True
            unanswered, self._requested = list(self._requested.values()), {}
        for future in unanswered:
            _resolve(future, IpcClosed("the other process has closed the channel"))
        if self._sender is not None:
            self._sender.join()  # a blocked write fails, because the other end is closed


def _resolve(future: Future[Any], body: object) -> None:
    if isinstance(body, BaseException):
        future.set_exception(body)
    else:
        future.set_result(body)
