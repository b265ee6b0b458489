"""Clients that never read their replies cost bounded memory, and other clients are served."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import raw_http2
from latentserve.v1 import generative_service_pb2 as pb
from raw_http2 import Connection, connected
from scraped import value
from served import Server, ref, served
from vitals import eventually

SERVICE = "/latentserve.v1.GenerativeService/"
ROWS = 1024
REPLY_BYTES = ROWS * 16 * 4  # images of a tiny model
MODEL = ref("tiny-vae")
UNARY = (SERVICE + "Sample", pb.SampleRequest(model=MODEL, count=ROWS))
STREAM = (
    SERVICE + "SampleStream",
    pb.SampleStreamRequest(model=MODEL, count=100 * ROWS, chunk_rows=ROWS),
)
KINDS = {"unary": UNARY, "stream": STREAM}
UNWRITTEN = "latentserve_unwritten_reply_bytes"
REFUSED = "latentserve_unread_refused_total"
OVERDUE = "latentserve_overdue_calls_total"
TIMEOUT_S = 10.0


@contextlib.contextmanager
def server_with(exports: Path, folder: Path, *flags: str, delay_s: float = 0.0) -> Iterator[Server]:
    metrics = ("--metrics-listen", "127.0.0.1:0")
    with served(exports, folder / "log", *metrics, *flags, delay_s=delay_s) as server:
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.log


def open_unread(server: Server, connection: Connection, kind: str, calls: int) -> None:
    """Open calls whose replies are not read, one after the other."""
    path, request = KINDS[kind]
    message = request.SerializeToString()
    for number in range(calls):
        before = value(server, UNWRITTEN) + value(server, REFUSED)
        connection.call(2 * number + 1, path, message)
        eventually(
            lambda before=before: value(server, UNWRITTEN) + value(server, REFUSED) != before,
            "the call was neither built nor refused",
        )


def sample(server: Server) -> None:
    with server.generative() as stub:
        stub.Sample(pb.SampleRequest(model=MODEL, count=ROWS), timeout=TIMEOUT_S)


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_reads_nothing_is_refused_and_others_are_served(
    exports: Path, tmp_path: Path, kind: str
) -> None:
    calls, allowed = 8, 3
    flags = ("--reply-bytes", str(allowed * REPLY_BYTES))
    with server_with(exports, tmp_path, *flags) as server:
        with connected(server.address) as connection:
            connection.handshake(window=0)
            open_unread(server, connection, kind, calls)
            assert value(server, REFUSED, limit="connection") == calls - allowed
            assert value(server, UNWRITTEN) < (allowed + 1) * REPLY_BYTES
            trailers = next(
                frame.payload
                for frame in connection.frames()
                if frame.type == raw_http2.HEADERS and frame.stream == 2 * allowed + 1
            )
            assert b"are not read" in trailers
            assert b"grpc-retry-pushback-ms" in trailers
            sample(server)
        eventually(lambda: value(server, UNWRITTEN) == 0, "unread replies remain counted")
        sample(server)


def test_the_total_limit_leaves_room_for_connections_that_read(
    exports: Path, tmp_path: Path
) -> None:
    flags = ("--total-reply-bytes", str(8 * REPLY_BYTES))
    with server_with(exports, tmp_path, *flags) as server, connected(server.address) as connection:
        connection.handshake(window=0)
        open_unread(server, connection, "unary", 6)
        assert value(server, REFUSED, limit="total") > 0
        assert value(server, UNWRITTEN) < 6 * REPLY_BYTES
        sample(server)


def test_streams_wait_until_their_connection_reads_and_go_on(exports: Path, tmp_path: Path) -> None:
    chunks, streams = 3, 3
    request = pb.SampleStreamRequest(model=MODEL, count=chunks * ROWS, chunk_rows=ROWS)
    flags = ("--reply-bytes", str(REPLY_BYTES), "--max-batch-rows", str(ROWS))
    with (
        server_with(exports, tmp_path, *flags, delay_s=0.3) as server,
        connected(server.address) as connection,
    ):
        connection.handshake(window=0)
        for number in range(streams):  # all are admitted before the engine has run
            connection.call(2 * number + 1, STREAM[0], request.SerializeToString())
        eventually(lambda: value(server, UNWRITTEN) >= streams * REPLY_BYTES)
        ran = value(server, "latentserve_batch_rows_sum", operation="sample")
        assert ran == streams * ROWS
        connection.open_connection_window()
        connection.open_windows(stream=1)
        eventually(lambda: value(server, UNWRITTEN) < streams * REPLY_BYTES)
        sample(server)  # of another connection; the first stream's next chunk would run before it
        ran = value(server, "latentserve_batch_rows_sum", operation="sample")
        assert ran == (streams + 1) * ROWS, "a stream did not wait for the others to be read"
        connection.open_windows()
        ended = (
            f.stream for f in connection.frames() if f.flags & raw_http2.END_STREAM and f.stream
        )
        assert {next(ended) for _ in range(streams)} == {1, 3, 5}
        ran = value(server, "latentserve_batch_rows_sum", operation="sample")
        assert ran == (streams * chunks + 1) * ROWS
        eventually(lambda: value(server, UNWRITTEN) == 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("flag", "reason"), [("--reader-idle-s", "reader_idle"), ("--max-call-s", "max_call")]
)
def test_an_unread_call_without_a_deadline_ends(
    exports: Path, tmp_path: Path, kind: str, flag: str, reason: str
) -> None:
    with (
        server_with(exports, tmp_path, flag, "0.5") as server,
        connected(server.address) as connection,
    ):
        connection.handshake(window=0)
        open_unread(server, connection, kind, 1)
        eventually(lambda: value(server, OVERDUE, reason=reason) >= 1, "the call was not ended")
        eventually(lambda: value(server, UNWRITTEN) == 0, "its reply is still held")
        ended = {"grpc_method": KINDS[kind][0].rpartition("/")[2]}
        eventually(lambda: value(server, "grpc_server_handled_total", **ended) == 1)
        sample(server)


def test_a_call_without_a_deadline_ends_while_its_batch_runs(exports: Path, tmp_path: Path) -> None:
    flags = ("--max-call-s", "0.3", "--metrics-listen", "127.0.0.1:0")
    with (
        served(exports, tmp_path / "log", *flags, delay_s=4) as server,
        server.generative() as stub,
    ):
        with pytest.raises(grpc.RpcError) as ended:
            stub.Sample(pb.SampleRequest(model=MODEL, count=1))
        assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "--max-call-s" in ended.value.details()
        assert value(server, OVERDUE, reason="max_call") == 1
