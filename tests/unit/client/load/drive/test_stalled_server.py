"""Coordinated omission: a real server that stalls once, over a real connection."""

import threading
import time
from concurrent import futures

import grpc
import numpy as np

from latentserve_client.load.drive.completion_queue_connection import CompletionQueueConnection
from latentserve_client.load.drive.generator import CallLimits, LoadGenerator
from latentserve_client.load.measure.call_records import COLUMN, CallRecorder
from latentserve_client.load.plan.schedule import parse_profile
from latentserve_client.load.plan.target import Target
from latentserve_client.load.plan.workload import CallKind, Request, Workload

STALLS_AT = 100  # the number of the call
PER_S, SECONDS = 200, 2.0


class Stalling(grpc.GenericRpcHandler):
    """Replies immediately, except for one call that waits until it is released."""

    def __init__(self):
        self.calls = 0
        self.stalled, self.release = threading.Event(), threading.Event()

    def service(self, details):
        def answer(request, context):
            self.calls += 1
            if self.calls == STALLS_AT:
                self.stalled.set()
                self.release.wait(30)
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


def test_p99_from_the_intended_send_time_shows_a_stall():
    """With a limit of one call in flight, as in a closed loop with concurrency 1.

    By the actual send time, one call of 400 is slow, and p99 does not show it. Only the intended
    send times count the calls that had to wait behind it.
    """
    handler = Stalling()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    connection = CompletionQueueConnection(Target(f"127.0.0.1:{port}", 2**20))
    recorder = CallRecorder()
    workload = Workload((CallKind("call", "/test.Service/Call"),), (Request(0, 0, b"x"),))
    limits = CallLimits(timeout_s=60, max_in_flight=1)
    generator = LoadGenerator([connection], workload, recorder, limits)
    arrivals = parse_profile(str(PER_S), SECONDS).arrivals("constant", 0)
    thread = threading.Thread(
        target=generator.run_open, args=(arrivals, time.monotonic_ns()), daemon=True
    )
    thread.start()
    assert handler.stalled.wait(30)
    stalled_ns = time.monotonic_ns()
    # Stall until the end of the schedule, so that all later calls have to wait.
    while time.monotonic_ns() < stalled_ns + int(0.75 * SECONDS * 1e9):
        time.sleep(0.01)
    stall_ns = time.monotonic_ns() - stalled_ns
    handler.release.set()
    thread.join(60)
    assert generator.drain(60)
    connection.close()
    server.stop(0).wait()

    rows = recorder.take()
    intended, sent, end = (rows[:, COLUMN[f"{name}_ns"]] for name in ("intended", "sent", "end"))
    assert len(rows) == PER_S * SECONDS
    assert (rows[:, COLUMN["code"]] == 0).all()
    assert np.percentile(end - intended, 99) > stall_ns / 2
    assert np.percentile(end - sent, 99) < stall_ns / 2
    # Both include the stalled call itself; only the percentile differs.
    assert (end - sent).max() >= stall_ns
    assert (sent - intended > 1_000_000).sum() > 100  # late sends
