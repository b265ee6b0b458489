"""Reservation of the port that several workers share with SO_REUSEPORT.

The kernel distributes new connections over the listening sockets. A socket that is bound but does
not listen receives none, yet reserves the port while no worker is running.
"""

from __future__ import annotations

import errno
import socket

from latentserve_server.errors import SettingsError


class ReservedPort:
    """A bound port that only sockets with SO_REUSEPORT can share.

    Args:
        listen: HOST:PORT; port 0 selects a free port.
        shared: whether the port may be bound by another server that shares it.

    Raises SettingsError if the port cannot be bound.
    """

    def __init__(self, listen: str, *, shared: bool) -> None:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise SettingsError("--workers: this system does not support SO_REUSEPORT")
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
                    # For example ::1 for localhost on a system without IPv6.
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
        """Release the port."""
        for reserved in self._sockets:
            reserved.close()

    def _bind(self, family: int, host: str, *, shared: bool) -> None:
        reserved = socket.socket(family, socket.SOCK_STREAM)
        self._sockets.append(reserved)
        try:
            # Connections of a server that has just exited stay in TIME_WAIT for a minute.
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.bind((host, self.port))
            # The bind was exclusive; from now on the port is shared. SO_REUSEADDR is cleared,
            # because it would admit another socket that does not listen, such as that of a
            # second supervisor.
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except OSError:
            self._sockets.remove(reserved)
            reserved.close()
            raise
        self.port = int(reserved.getsockname()[1])
