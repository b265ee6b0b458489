"""Close of one TCP connection of this process, by the address of its peer.

grpc.aio has no way to end a call whose reply is being written, or a connection. The socket is
found among the open files of the process, and shut down: gRPC core then cancels its calls.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
from pathlib import Path
from urllib.parse import unquote

_OPEN_FILES = Path("/dev/fd")


def close_connection(peer: str) -> bool:
    """Shut down the connection of `peer`, as gRPC names it; return whether it was found.

    For example, `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`.
    """
    wanted = _address(unquote(peer).partition(":")[2])
    if wanted is None:
        return False
    for entry in list(_OPEN_FILES.iterdir()):
        with contextlib.suppress(OSError, ValueError):
            number = int(entry.name)
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as found:
                host, port, *_ = found.getpeername()
                if _address(f"{host}:{port}") == wanted:
                    found.shutdown(socket.SHUT_RDWR)
                    return True
    return False


def _address(text: str) -> tuple[str, int] | None:
    """Return (address, port) of HOST:PORT in one form; None if it is not an address."""
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return str(mapped or address), int(port)
    except ValueError:
        return None
