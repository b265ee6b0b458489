"""Tests of limits for one client: connections, streams, metadata, pings, handshake time."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

import raw_http2
from latentserve.v1 import generative_service_pb2 as pb
from raw_http2 import connected
from served import BEFORE_ANY_TRANSPORT, Server, served

TIMEOUT_S = 10.0
MAX_CONNECTIONS = 4
MAX_STREAMS = 2
ONE_IMAGE = pb.SampleRequest(count=1)


@pytest.fixture(scope="module")
def strict(
    transport: str, tiny_exports: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with small limits."""
    log_path = tmp_path_factory.mktemp("strict") / "log.txt"
    flags = (
        *("--default-model", "tiny-vae", "--max-connections", str(MAX_CONNECTIONS)),
        *("--max-concurrent-streams", str(MAX_STREAMS), "--handshake-timeout-s", "0.5"),
    )
    with served(tiny_exports, log_path, *flags) as running:
        yield running
        assert running.process.poll() is None, running.log


@pytest.fixture(autouse=True)
def no_open_connections(request: pytest.FixtureRequest) -> None:
    """Wait until the connections of the previous test are closed."""
    if "strict" in request.fixturenames:
        server = request.getfixturevalue("strict")
        end = time.monotonic() + TIMEOUT_S
        while client_ports(server) and time.monotonic() < end:
            time.sleep(0.01)
        assert not client_ports(server)


def sample(channel: grpc.Channel, **options: Any) -> bytes:
    call = channel.unary_unary(
        "/latentserve.v1.GenerativeService/Sample",
        request_serializer=pb.SampleRequest.SerializeToString,
        response_deserializer=pb.SampleResponse.FromString,
    )
    data: bytes = call(ONE_IMAGE, **{"timeout": TIMEOUT_S, **options}).images.tensor.data
    return data


def sample_with_retry(channel: grpc.Channel) -> bytes:
    """Retry until a connection is free, since a closed connection counts for a short time."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return sample(channel)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                raise
            time.sleep(0.05)


def test_connections_over_the_limit_are_refused_until_one_closes(strict: Server) -> None:
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS - 1):
            assert sample_with_retry(stack.enter_context(strict.channel()))
        with strict.channel() as accepted, strict.channel() as rejected:
            assert sample_with_retry(accepted)
            with pytest.raises(grpc.RpcError) as caught:
                sample(rejected)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert sample(accepted)  # accepted connections are not affected
            accepted.close()
            assert sample_with_retry(rejected)


def test_the_stream_limit_applies_to_each_connection(
    strict: Server,
) -> None:
    with strict.channel() as channel, strict.channel() as other:
        health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(MAX_STREAMS)]
        for watch in watches:
            next(watch)
        with pytest.raises(grpc.RpcError) as caught:
            sample(channel, timeout=0.3)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert sample_with_retry(other)
        watches[0].cancel()
        assert sample(channel)
        watches[1].cancel()


def test_streams_over_the_limit_are_refused(strict: Server) -> None:
    with connected(strict.address) as connection:
        connection.handshake()
        for number in range(MAX_STREAMS + 1):
            connection.open_stream(2 * number + 1, "/grpc.health.v1.Health/Watch")
        refused = next(f for f in connection.frames() if f.type == raw_http2.RST_STREAM)
        assert refused.stream == 2 * MAX_STREAMS + 1
        assert refused.error_code == raw_http2.REFUSED_STREAM


def test_metadata_over_the_limit_is_refused_and_the_connection_stays_open(strict: Server) -> None:
    large, too_large = [("note", "x" * 14_000)], [("note", "x" * 17_000)]
    with strict.channel() as channel:
        assert sample_with_retry(channel)
        before = client_ports(strict)
        for _ in range(10):  # gRPC's default limits would refuse this at random
            assert sample(channel, metadata=large)
        with pytest.raises(grpc.RpcError) as caught:
            sample(channel, metadata=too_large)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "metadata size exceeds hard limit" in caught.value.details()
        assert "vs. 16384" in caught.value.details()
        assert sample(channel)
        assert len(before) == 1
        assert client_ports(strict) == before


def client_ports(server: Server) -> set[int]:
    """Return the client ports of the established connections to a server."""
    port = int(server.address.rpartition(":")[2])
    tables = [Path("/proc/net", name) for name in ("tcp", "tcp6")]  # gRPC maps IPv4 into IPv6
    lines = [line for table in tables if table.exists() for line in table.read_text().splitlines()]
    rows = [line.split() for line in lines]
    established = [row for row in rows if row[3] == "01" and row[1].endswith(f":{port:04X}")]
    return {int(row[2].rpartition(":")[2], 16) for row in established}


BEGINNINGS = {"nothing": b"", "half a preface": raw_http2.PREFACE[:10]}


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_connection_without_a_handshake_is_closed(strict: Server, beginning: str) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(connected(strict.address)) for _ in range(MAX_CONNECTIONS)]
        for connection in idle:
            connection.socket.sendall(BEGINNINGS[beginning])
        # They occupy all connections until the server closes them.
        for connection in idle:
            connection.wait_for_close()
    with strict.channel() as channel:
        assert sample_with_retry(channel)


@BEFORE_ANY_TRANSPORT
def test_a_connection_with_half_a_tls_handshake_is_closed(
    tiny_exports: Path, tmp_path: Path
) -> None:
    issued = trustme.CA().issue_cert("127.0.0.1")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    key.write_bytes(issued.private_key_pem.bytes())
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    flags = ("--tls-cert", str(cert), "--tls-key", str(key), "--handshake-timeout-s", "0.5")
    with (
        served(tiny_exports, tmp_path / "log", *flags) as server,
        connected(server.address) as connection,
    ):
        connection.socket.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
        connection.wait_for_close()


def test_a_flood_of_pings_gets_enhance_your_calm(strict: Server) -> None:
    with connected(strict.address) as connection:
        connection.handshake()
        connection.ping(10)
        end = next(f for f in connection.frames() if f.type == raw_http2.GOAWAY)
        assert end.error_code == raw_http2.ENHANCE_YOUR_CALM
        assert end.payload[8:] == b"too_many_pings"
        connection.wait_for_close()


@pytest.mark.slow
@BEFORE_ANY_TRANSPORT
def test_a_client_that_pings_every_ten_seconds_keeps_its_connection(
    strict: Server, request: pytest.FixtureRequest
) -> None:
    if "slow" not in request.config.option.markexpr:
        pytest.skip("waits for more than a minute: pytest -m slow")
    options = [
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.insecure_channel(strict.address, options=options) as channel:
        assert sample_with_retry(channel)
        before = client_ports(strict)
        time.sleep(65)  # six pings; three excess pings would have closed the connection
        assert len(before) == 1
        assert client_ports(strict) == before
        assert sample(channel)


def test_the_default_address_refuses_other_hosts(strict: Server) -> None:
    """127.0.0.2 is also an address of this machine, but not the server's."""
    port = int(strict.address.rpartition(":")[2])
    assert strict.address.startswith("127.0.0.1:")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), TIMEOUT_S)
