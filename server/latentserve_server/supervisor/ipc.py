"""Messages between the supervisor and a worker, over a socket pair.

Either side tells the other something, or asks and gets a future of the answer. What is sent is
pickled; both ends are ours, one started by the other.
"""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any


class IpcClosed(Exception):
    """The other process is gone."""


@dataclass(frozen=True)
class IpcRequest:
    """Something that wants an answer, see `IpcChannel.answer`."""

    number: int
    body: object


@dataclass(frozen=True)
class _IpcReply:
    """`body` is what the future gives, or the exception that it raises."""

    number: int
    body: object


class IpcChannel:
    """One end. Telling, asking and answering are safe from any thread; one thread receives."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._asked: dict[int, Future[Any]] = {}
        self._closed = False

    def tell(self, message: object) -> None:
        """Send a message; nothing happens where the other process is gone."""
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            pass  # `receive` says so

    def ask(self, body: object) -> Future[Any]:
        """Send a question and return the answer's future; it raises LinkClosed if none can come."""
        future: Future[Any] = Future()
        request = IpcRequest(next(self._numbers), body)
        with self._lock:
            if not self._closed:
                self._asked[request.number] = future
        if self._closed:
            future.set_exception(IpcClosed("the other process is gone"))
        else:
            self.tell(request)
        return future

    def answer(self, request: IpcRequest, body: object) -> None:
        """Answer a question; an exception is raised on the other side."""
        self.tell(_IpcReply(request.number, body))

    def receive(self) -> object:
        """Wait for the next message or Question; answers go to their futures.

        Raises LinkClosed where the other process is gone.
        """
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError) as error:
                self._close()
                raise IpcClosed("the other process is gone") from error
            if not isinstance(message, _IpcReply):
                return message
            with self._lock:
                future = self._asked.pop(message.number, None)
            if future is not None:
                _resolve(future, message.body)

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            left, self._asked = list(self._asked.values()), {}
        for future in left:
            _resolve(future, IpcClosed("the other process is gone"))


def _resolve(future: Future[Any], body: object) -> None:
    if isinstance(body, BaseException):
        future.set_exception(body)
    else:
        future.set_result(body)
