"""Reservation of a port: sharing, and the refusal of a taken port."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from latentserve_server.errors import SettingsError
from latentserve_server.supervisor.reuse_port import ReservedPort


@contextlib.contextmanager
def reserved(listen: str = "127.0.0.1:0", *, shared: bool = False) -> Iterator[ReservedPort]:
    port = ReservedPort(listen, shared=shared)
    try:
        yield port
    finally:
        port.close()


@contextlib.contextmanager
def listening(port: int, *, shared: bool) -> Iterator[socket.socket]:
    """Open a listening socket with the options that gRPC sets."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        server.bind(("127.0.0.1", port))
        server.listen()
        yield server


def test_port_0_selects_a_free_port_and_reports_it() -> None:
    with reserved() as port:
        assert port.port > 0
        assert port.address == f"127.0.0.1:{port.port}"


def test_workers_can_listen_on_the_port_and_a_server_without_reuse_port_cannot() -> None:
    with (
        reserved() as port,
        listening(port.port, shared=True),
        listening(port.port, shared=True),
        pytest.raises(OSError, match="in use"),
        listening(port.port, shared=False),
    ):
        pass


def test_the_reservation_accepts_no_connections() -> None:
    with reserved() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port.port), timeout=5)


def test_a_second_reservation_is_refused_whether_workers_listen_or_not() -> None:
    with reserved() as port:
        with pytest.raises(SettingsError, match="the port is taken") as refused:
            ReservedPort(port.address, shared=False)
        assert f"--listen {port.address}" in str(refused.value)
        assert "--reuse-port yes" in str(refused.value)
        with (
            listening(port.port, shared=True),
            pytest.raises(SettingsError, match="the port is taken"),
        ):
            ReservedPort(port.address, shared=False)


def test_a_second_reservation_with_shared_succeeds() -> None:
    with reserved() as port, reserved(port.address, shared=True) as second:
        assert second.port == port.port


def test_the_port_of_a_server_without_reuse_port_is_refused() -> None:
    with listening(0, shared=False) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for shared in (False, True):
            with pytest.raises(SettingsError, match="the port is taken"):
                ReservedPort(address, shared=shared)


def test_a_port_with_connections_in_time_wait_can_be_reserved() -> None:
    """As after a restart: the side that closes first stays in TIME_WAIT for a minute."""
    with listening(0, shared=True) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            accepted, _ = server.accept()
            accepted.close()
            assert client.recv(1) == b""
    with reserved(f"127.0.0.1:{port}"):
        pass


@pytest.mark.parametrize("listen", ["localhost:0", "0.0.0.0:0"])
def test_host_names_and_the_wildcard_address_can_be_reserved(listen: str) -> None:
    with reserved(listen) as port:
        assert port.address.rpartition(":")[0] == listen.rpartition(":")[0]
        with pytest.raises(SettingsError, match="the port is taken"):
            ReservedPort(port.address, shared=False)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"--listen 192\.0\.2\.1:0 cannot be used"):
        ReservedPort("192.0.2.1:0", shared=False)


def test_an_unknown_host_name_is_refused() -> None:
    with pytest.raises(SettingsError, match="cannot be used"):
        ReservedPort("no.such.host.invalid:0", shared=False)
