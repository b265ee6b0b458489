"""HTTP server of the Prometheus metrics and of the probes /healthz and /readyz.

Every client can reach this port at the cost of a connection, so it uses a bounded number of
connections, threads and bytes. It runs on a separate thread, so that it replies while the rest of
the process is busy.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from latentserve_server.errors import SettingsError

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 8
READ_TIMEOUT_S = 5.0
"""Timeout of a request: from the connection to the last byte of the header."""
WRITE_TIMEOUT_S = 5.0

_MAX_HEADER_BYTES = 8192
_BACKLOG = 16
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class ProcessState:
    """Reply of the probes: whether the process must be replaced, and whether it serves calls."""

    live: bool
    ready: bool
    text: str


@dataclass(frozen=True)
class _Reply:
    status: HTTPStatus
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("Content-Type", _TEXT),)


@dataclass
class _Connection:
    """`phase`: 0 while it waits, 1 while the reply is built, 2 while it is sent."""

    task: asyncio.Task[None] | None
    phase: int = 0


class MetricsServer:
    """Serves /metrics, /healthz and /readyz from a separate thread until `close`.

    A connection serves one request. When all connections are in use, a new one replaces the oldest
    that waits for its request or its turn, or whose reply is not read: clients that hold
    connections cannot keep a scraper out.

    Args:
        registry: the metrics.
        address: HOST:PORT; port 0 for any free port.
        state: returns the state of the process, from any thread within seconds.

    Raises SettingsError if the address cannot be used.
    """

    def __init__(
        self, registry: CollectorRegistry, address: str, state: Callable[[], ProcessState]
    ) -> None:
        self._registry = registry
        self._state = state
        host, _, port = address.rpartition(":")
        try:
            listener = _listen(host.strip("[]"), int(port))
        except OSError as error:
            raise SettingsError(
                f"--metrics-listen {address} cannot be used: {error.strerror}"
            ) from error
        self.port: int = listener.getsockname()[1]
        self._connections: list[_Connection] = []
        # One thread for scrapes, and one for the probes, which must not wait for a scrape.
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="metrics")
        self._scraping, self._probing = asyncio.Lock(), asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(
            lambda _, context: log.debug("metrics port: %s", context.get("message"))
        )
        self._closed = asyncio.Event()
        self._thread = threading.Thread(
            target=self._run, args=(listener,), name="metrics-http", daemon=True
        )
        self._thread.start()
        log.info("metrics are at http://%s:%d/metrics", host, self.port)

    def close(self) -> None:
        """Close the port and all connections, and wait for the threads."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closed.set)
            self._thread.join()
        self._executor.shutdown(cancel_futures=True)

    def _run(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(
            self._handle, sock=listener, limit=_MAX_HEADER_BYTES, backlog=_BACKLOG
        )
        await self._closed.wait()
        server.close()
        for connection in self._connections:
            if connection.task is not None:
                connection.task.cancel()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(asyncio.current_task())
        try:
            if not self._make_room():
                return
            self._connections.append(connection)
            writer.transport.set_write_buffer_limits(0)  # `drain` waits until all is written
            async with asyncio.timeout(READ_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            reply = await self._reply_to(head.decode("latin-1"), connection)
            connection.phase = 2
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                writer.write(_to_bytes(reply, with_body=not head.startswith(b"HEAD ")))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client is slow, has left, or speaks another protocol
        except asyncio.CancelledError:
            pass  # replaced by a new connection, or the server closes
        finally:
            if connection in self._connections:
                self._connections.remove(connection)
            writer.transport.abort()

    def _make_room(self) -> bool:
        """Close the oldest idle connection if there are too many; return False if none is idle."""
        if len(self._connections) < MAX_CONNECTIONS:
            return True
        idle = sorted((each for each in self._connections if each.phase != 1), key=_by_phase)
        if not idle:
            return False
        self._connections.remove(idle[0])
        if idle[0].task is not None:
            idle[0].task.cancel()
        return True

    async def _reply_to(self, head: str, connection: _Connection) -> _Reply:
        request, *lines = head.split("\r\n")
        method, _, rest = request.partition(" ")
        target = urlsplit(rest.partition(" ")[0])
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        if target.path not in ("/metrics", "/healthz", "/readyz"):
            return _Reply(HTTPStatus.NOT_FOUND, b"expected /metrics, /healthz or /readyz\n")
        if method not in ("GET", "HEAD"):
            return _Reply(HTTPStatus.METHOD_NOT_ALLOWED, b"expected GET or HEAD\n")
        loop = asyncio.get_running_loop()
        try:
            if target.path == "/metrics":
                names = parse_qs(target.query).get("name[]", [])
                async with self._scraping:
                    connection.phase = 1
                    return await loop.run_in_executor(
                        self._executor,
                        self._scrape,
                        names,
                        headers.get("accept", ""),
                        "gzip" in headers.get("accept-encoding", ""),
                    )
            async with self._probing:
                connection.phase = 1
                state = await loop.run_in_executor(self._executor, self._state)
        except Exception:
            log.exception("the metrics port cannot reply to %s", target.path)
            return _Reply(HTTPStatus.INTERNAL_SERVER_ERROR, b"internal error\n")
        passes = state.live if target.path == "/healthz" else state.ready
        status = HTTPStatus.OK if passes else HTTPStatus.SERVICE_UNAVAILABLE
        return _Reply(status, f"{state.text}\n".encode())

    def _scrape(self, names: list[str], accept: str, compressed: bool) -> _Reply:
        encoder, content_type = choose_encoder(accept)
        registry = self._registry.restricted_registry(names) if names else self._registry
        body = encoder(registry)
        headers = [("Content-Type", content_type)]
        if compressed:
            body = gzip.compress(body, 1)
            headers.append(("Content-Encoding", "gzip"))
        return _Reply(HTTPStatus.OK, body, tuple(headers))


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _by_phase(connection: _Connection) -> int:
    return connection.phase


def _to_bytes(reply: _Reply, *, with_body: bool) -> bytes:
    headers = (*reply.headers, ("Content-Length", str(len(reply.body))), ("Connection", "close"))
    lines = [f"HTTP/1.1 {reply.status.value} {reply.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (reply.body if with_body else b"")
