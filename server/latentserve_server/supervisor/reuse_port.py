"""Holds the port for several workers, each of which listens on it (SO_REUSEPORT).

The kernel spreads new connections over the sockets that listen. One that is bound and does not
listen gets none, but keeps the port while no worker is up.
"""

from __future__ import annotations

import errno
import socket

from latentserve_server.errors import SettingsError


class ReservedPort:
    """A port that others can only share if they say so.

    Args:
        listen: HOST:PORT; port 0 takes a free one.
        shared: whether another server may have it already, and share it.

    Raises SettingsError where it cannot be had.
    """

    def __init__(self, listen: str, *, shared: bool) -> None:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise SettingsError("--workers: this system cannot share a port (SO_REUSEPORT)")
        host, _, port = listen.rpartition(":")
        self.port = int(port)
        self._sockets: list[socket.socket] = []
        try:
            found = socket.getaddrinfo(
                host.strip("[]"), self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            absent = None
            for family, _, _, _, address in found:
                try:
                    self._bind(family, str(address[0]), shared=shared)
                except OSError as error:
                    # Such as ::1 of localhost where there is no IPv6.
                    if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                        raise
                    absent = error
            if not self._sockets and absent is not None:
                raise absent
        except OSError as error:
            self.close()
            taken = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror
            hint = "" if shared else " (--reuse-port yes shares it with another server)"
            raise SettingsError(f"--listen {listen} cannot be used: {taken}{hint}") from error
        self.address = f"{host}:{self.port}"

    def close(self) -> None:
        """Let the port go."""
        for held in self._sockets:
            held.close()

    def _bind(self, family: int, host: str, *, shared: bool) -> None:
        held = socket.socket(family, socket.SOCK_STREAM)
        self._sockets.append(held)
        try:
            # For the connections of a server that has just ended, which linger for a minute.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind((host, self.port))
            # Bound alone, and from now on shared. Without SO_REUSEADDR, which would let in
            # another one that does not listen either, such as a second supervisor's.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except OSError:
            self._sockets.remove(held)
            held.close()
            raise
        self.port = int(held.getsockname()[1])
