"""Server of empty calls: the minimum cost of a Python gRPC server, for comparison.

    python benchmarks/echo_server.py PORT

One thread on grpcio's completion queue returns every request unchanged, without a model, message
classes, checks or metrics. A method `/reply/N` returns N bytes instead. That thread also reads and
writes the sockets, as in the server with `--transport cq`, unless GRPC_EXPERIMENTS is set.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")

from grpc._cython import cygrpc

OUTSTANDING = 8
POLL_S = 1.0
REPLY = b"/reply/"


def main() -> None:
    """Serve on loopback until killed."""
    queue = cygrpc.CompletionQueue()
    server = cygrpc.Server(((b"grpc.so_reuseport", 0),), False)
    server.register_completion_queue(queue)
    if not server.add_http2_port(f"127.0.0.1:{sys.argv[1]}".encode()):
        raise SystemExit(f"port {sys.argv[1]} is taken")
    server.start()

    def accept_next() -> None:
        server.request_call(queue, queue, on_call)

    replies: dict[bytes, bytes] = {}

    def reply_of(method: bytes) -> bytes | None:
        if not method.startswith(REPLY):
            return None
        if method not in replies:
            replies[method] = bytes(int(method.removeprefix(REPLY)))
        return replies[method]

    def on_call(event: Any) -> None:
        accept_next()
        call = event.call
        reply = reply_of(event.call_details.method)

        def on_message(event: Any) -> None:
            message = event.batch_operations[0].message()
            if message is None:  # the call was cancelled
                return
            call.start_server_batch(
                (
                    cygrpc.SendInitialMetadataOperation((), 0),
                    cygrpc.SendMessageOperation(message if reply is None else reply, 0),
                    cygrpc.SendStatusFromServerOperation((), 0, b"", 0),
                ),
                on_end,
            )

        call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(0),), on_end)
        call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), on_message)

    def on_end(event: Any) -> None:
        pass

    for _ in range(OUTSTANDING):
        accept_next()
    while True:
        event = queue.poll(time.time() + POLL_S)
        if event.completion_type != cygrpc.CompletionType.queue_timeout:
            event.tag(event)
        event = None


if __name__ == "__main__":
    main()
