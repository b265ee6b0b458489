"""HTTP/2 client that sends arbitrary frames over a plain socket."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK, END_STREAM, END_HEADERS = 1, 1, 4
_INITIAL_WINDOW = b"\x00\x04"
REFUSED_STREAM, ENHANCE_YOUR_CALM = 7, 11


@dataclass(frozen=True)
class Frame:
    """One HTTP/2 frame (RFC 9113, section 4.1)."""

    type: int
    flags: int
    stream: int
    payload: bytes

    @property
    def error_code(self) -> int:
        """Error code of a RST_STREAM or a GOAWAY."""
        return int.from_bytes(self.payload[:4] if self.type == RST_STREAM else self.payload[4:8])


class Connection:
    """A connection that writes and reads single frames."""

    def __init__(self, opened: socket.socket, stream: BufferedReader) -> None:
        self.socket = opened
        self._stream = stream

    def handshake(self, window: int | None = None) -> None:
        """Send the preface and settings, and acknowledge the server's settings.

        `window` is how many bytes of a reply the server may send; None for HTTP/2's default.
        """
        settings = b"" if window is None else _INITIAL_WINDOW + window.to_bytes(4)
        self.socket.sendall(PREFACE + _frame(SETTINGS, 0, 0, settings) + _frame(SETTINGS, ACK))

    def ping(self, times: int) -> None:
        """Send PINGs without a pause."""
        self.socket.sendall(_frame(PING, payload=bytes(8)) * times)

    def open_stream(self, number: int, path: str) -> None:
        """Send the headers of a gRPC call, and no message."""
        block = (
            b"\x83\x86"  # :method POST, :scheme http, from HPACK's static table
            + _literal(4, path)
            + _literal(1, "localhost")
            + _literal(31, "application/grpc")
            + b"\x00\x02te\x08trailers"
        )
        self.socket.sendall(_frame(HEADERS, END_HEADERS, number, block))

    def call(self, number: int, path: str, message: bytes) -> None:
        """Send a gRPC call with one message."""
        self.open_stream(number, path)
        body = b"\x00" + len(message).to_bytes(4) + message
        self.socket.sendall(_frame(DATA, END_STREAM, number, body))

    def open_windows(self, stream: int = 0) -> None:
        """Let the server send up to 1 GiB on one stream, or on every stream."""
        window = (2**30).to_bytes(4)
        setting = _frame(SETTINGS, 0, 0, _INITIAL_WINDOW + window)
        self.socket.sendall(_frame(WINDOW_UPDATE, 0, stream, window) if stream else setting)

    def open_connection_window(self) -> None:
        """Let the server send up to 1 GiB on all streams together."""
        self.socket.sendall(_frame(WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4)))

    def frames(self) -> Iterator[Frame]:
        """Yield the server's frames until it closes the connection."""
        while head := self._stream.read(9):
            payload = self._stream.read(int.from_bytes(head[:3]))
            yield Frame(head[3], head[4], int.from_bytes(head[5:]) & 0x7FFFFFFF, payload)

    def wait_for_close(self) -> None:
        """Read until the server closes the connection. Raises TimeoutError."""
        with contextlib.suppress(ConnectionResetError):
            while self._stream.read1():
                pass


@contextlib.contextmanager
def connected(address: str, limit_s: float = 10.0) -> Iterator[Connection]:
    """Connect to HOST:PORT, with a timeout of `limit_s` for each read and write."""
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), limit_s) as opened,
        opened.makefile("rb") as stream,
    ):
        yield Connection(opened, stream)


def _frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4)
    return head + payload


def _literal(name: int, value: str) -> bytes:
    """Return a literal header with entry `name` of the static table as its name (RFC 7541)."""
    index = bytes([name]) if name < 15 else bytes([15, name - 15])
    return index + bytes([len(value)]) + value.encode()
