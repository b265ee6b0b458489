"""The seven promises of the server, with the tests of each over real connections.

`PROMISES` names the tests; tests/contract/test_named_tests.py checks that they exist. This module
has the tests that are in no other module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import tensor_pb2
from latentserve_client import Client
from latentserve_client.cli import main
from refusals import refused
from request_target import to_tensor
from scraped import scrape, value
from served import Server, ref, served

TIMEOUT_S = 20.0
ENGINE_S = 0.5
ATTEMPTS = 5

PROMISES: dict[str, tuple[str, ...]] = {
    "Sampling is reproducible": (
        "integration/test_reproducible_draws.py::"
        "test_latents_are_as_predicted_in_every_batch_and_worker",
        "integration/test_promises.py::test_images_repeat_bit_for_bit_in_batches_of_the_same_size",
        "integration/test_calls.py::test_a_stream_is_one_sample_in_chunks_and_can_be_resumed",
        "contract/test_documented_draws.py::test_the_program_for_a_standard_normal_prior",
    ),
    "A request does not affect the others in its batch": (
        "integration/test_bad_input.py::test_a_cancelled_caller_harms_no_neighbour",
        "integration/test_promises.py::test_an_expired_call_does_not_affect_its_batch",
        "integration/test_promises.py::test_invalid_requests_do_not_affect_the_batch",
        "integration/test_promises.py::test_all_calls_of_a_batch_may_be_cancelled",
        "integration/test_bad_input.py::test_a_poisoned_row_fails_alone_and_leaks_nothing",
        "integration/test_bad_input.py::test_a_killed_client_leaves_no_queued_requests",
        "unit/server/batching/test_cancellation.py::test_while_the_batch_runs",
    ),
    "Every resource is bounded": (
        "integration/test_bad_input.py::test_a_full_queue_returns_a_retry_delay",
        "integration/test_bad_input.py::"
        "test_a_message_over_the_limit_is_refused_and_the_connection_stays_open",
        "integration/test_bad_input.py::test_invalid_input_is_reported_and_the_next_call_succeeds",
        "integration/test_limits.py::test_connections_over_the_limit_are_refused_until_one_closes",
        "integration/test_limits.py::test_streams_over_the_limit_are_refused",
        "integration/test_limits.py::"
        "test_metadata_over_the_limit_is_refused_and_the_connection_stays_open",
        "integration/test_promises.py::test_labels_and_threads_do_not_grow_with_the_requests",
        "unit/server/codec/test_images.py::test_memory_stays_flat",
    ),
    "No silent fallback": (
        "integration/test_lifecycle.py::test_cuda_without_a_gpu_is_a_startup_error",
        "integration/test_lifecycle.py::test_the_settings_and_the_provider_are_printed",
        "integration/test_calls.py::test_replies_have_served_by_and_timings",
        "integration/test_metrics.py::"
        "test_models_are_described_and_their_series_are_removed_with_them",
        "unit/server/engine/test_device.py::test_a_session_that_fell_back_to_the_cpu_is_refused",
    ),
    "A reload fails no call": (
        "integration/test_reload.py::test_reloads_under_load_fail_no_call",
        "integration/test_reload.py::test_a_bad_version_is_refused_everywhere_and_the_old_one_stays",
        "integration/test_reload.py::test_a_stream_ends_on_the_version_it_began_with",
        "integration/test_hostile_models.py::"
        "test_nothing_outside_is_opened_and_every_hostile_model_is_refused",
    ),
    "SIGTERM drops no call": (
        "integration/test_lifecycle.py::"
        "test_sigterm_finishes_what_is_in_flight_and_refuses_the_rest",
        "integration/test_lifecycle.py::test_calls_are_still_served_during_the_drain_delay",
        "integration/test_workers.py::test_a_stop_under_load_drops_nothing",
        "integration/test_workers.py::test_a_rolling_restart_under_load_fails_no_call",
    ),
    "The same request has the same reply from every client": (
        "conformance/test_python_runner.py::test_every_case_passes",
        "integration/test_promises.py::test_stub_client_and_command_line_get_the_same_reply",
        "integration/test_error_table.py::test_a_row_of_the_error_table",
        "contract/test_wire_contract.py::test_the_committed_stubs_are_what_the_proto_files_give",
    ),
}


@pytest.fixture(scope="module")
def slow(
    transport: str, tiny_exports: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server whose batches take long, so that more requests are queued meanwhile."""
    log_path = tmp_path_factory.mktemp("slow") / "log.txt"
    flags = ("--default-model", "tiny-vae", "--metrics-listen", "127.0.0.1:0")
    with served(tiny_exports, log_path, *flags, delay_s=ENGINE_S) as running:
        yield running
        assert running.process.poll() is None, running.log


def queued_rows(server: Server) -> float:
    return value(server, "latentserve_queue_rows", model="tiny-vae", version="3")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class QueuedCalls:
    """Four calls that are queued together, in this order, while the engine runs another one."""

    def __init__(self, server: Server, stub: Any, *timeouts_s: float) -> None:
        self._server, self._stub = server, stub
        began = value(server, "grpc_server_started_total", grpc_method="Decode")
        self._busy = self._begin(0)
        wait_for(
            lambda: (
                value(server, "grpc_server_started_total", grpc_method="Decode") > began
                and queued_rows(server) == 0
            )
        )
        self.calls = [
            self._begin(number, timeout_s)
            for number, timeout_s in enumerate(timeouts_s or [TIMEOUT_S] * 4)
        ]

    def _begin(self, number: int, timeout_s: float = TIMEOUT_S) -> Any:
        request = pb.DecodeRequest(latents=to_tensor(latent(number)))
        return self._stub.Decode.future(request, timeout=timeout_s)

    @property
    def engine_is_busy(self) -> bool:
        """Whether the calls are still queued; if not, the machine was too slow for the test."""
        return not self._busy.done()

    def wait(self) -> None:
        """Wait until all calls are queued."""
        wait_for(lambda: queued_rows(self._server) == len(self.calls) or not self.engine_is_busy)

    def check(self, *dropped: int) -> None:
        """Check that all calls except the dropped ones got their own rows, from one batch."""
        self._busy.result()
        for number, call in enumerate(self.calls):
            if number not in dropped:
                reply = call.result()
                assert reply.timings.batch_rows == len(self.calls) - len(dropped)
                images = np.frombuffer(reply.images.tensor.data, np.float32)
                expected = tiny_models.decode(latent(number)).ravel()
                np.testing.assert_allclose(images, expected, atol=1e-6)


def attempts(server: Server, stub: Any, *timeouts_s: float) -> Iterator[QueuedCalls]:
    """Yield queued calls until a test has finished its part while the engine is busy."""
    for _ in range(ATTEMPTS):
        yield QueuedCalls(server, stub, *timeouts_s)
    raise AssertionError(f"the engine was never busy for long enough, in {ATTEMPTS} attempts")


def latent(number: int) -> Any:
    return np.full((1, tiny_models.DIM), 0.1 * number + 0.1, "<f4")


@pytest.mark.parametrize("dropped", range(4), ids=["first", "second", "third", "last"])
def test_an_expired_call_does_not_affect_its_batch(slow: Server, dropped: int) -> None:
    with slow.generative() as stub:
        timeouts_s = [0.2 if number == dropped else TIMEOUT_S for number in range(4)]
        for queued in attempts(slow, stub, *timeouts_s):
            error = queued.calls[dropped].exception()
            if queued.engine_is_busy:
                break
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        queued.check(dropped)


def test_all_calls_of_a_batch_may_be_cancelled(slow: Server) -> None:
    with slow.generative() as stub:
        for queued in attempts(slow, stub):
            queued.wait()
            for call in queued.calls:
                call.cancel()
            wait_for(lambda: queued_rows(slow) == 0)
            if queued.engine_is_busy:
                break
        queued.check(*range(4))
        assert stub.Sample(pb.SampleRequest(count=1), timeout=TIMEOUT_S).timings.batch_rows == 1


def test_invalid_requests_do_not_affect_the_batch(slow: Server) -> None:
    """An invalid request is refused before it is queued."""
    invalid = [
        pb.DecodeRequest(latents=to_tensor(np.full((1, tiny_models.DIM), np.nan, "<f4"))),
        pb.DecodeRequest(latents=tensor_pb2.Tensor(data_type=1, shape=[2**62, 3])),
        pb.DecodeRequest(),
    ]
    with slow.generative() as stub:
        for queued in attempts(slow, stub):
            queued.wait()
            for request in invalid:
                assert refused(stub.Decode, request, timeout=TIMEOUT_S).code == "INVALID_ARGUMENT"
            if queued.engine_is_busy:
                break
        queued.check()


def test_images_repeat_bit_for_bit_in_batches_of_the_same_size(server: Server) -> None:
    request = pb.SampleRequest(count=5, seed=3, temperature=0.5)
    with server.generative() as stub:
        replies = [stub.Sample(request, timeout=TIMEOUT_S) for _ in range(5)]
    assert {reply.timings.batch_rows for reply in replies} == {5}
    assert len({reply.images.tensor.data for reply in replies}) == 1


def test_labels_and_threads_do_not_grow_with_the_requests(slow: Server) -> None:
    def bad_calls(numbers: range) -> None:
        with slow.channel() as channel:
            for number in numbers:
                for method in ("GenerativeService/Encode", f"GenerativeService/Dream{number}"):
                    request = pb.EncodeRequest(model=ref(f"nobody-{number}", number + 1))
                    call = channel.unary_unary(f"/latentserve.v1.{method}")
                    refused(call, request.SerializeToString(), timeout=TIMEOUT_S)

    def measure() -> tuple[int, int]:
        threads = len(list(Path(f"/proc/{slow.process.pid}/task").iterdir()))
        return sum(map(len, scrape(slow).values())), threads

    def load(clients: int) -> None:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(bad_calls, [range(n, n + 5) for n in range(0, 5 * clients, 5)]))

    load(16)  # creates everything that is created only once
    series, threads = measure()
    load(48)
    after = measure()
    assert after[0] == series
    assert after[1] <= threads + 4  # the size of gRPC's thread pool varies


def test_stub_client_and_command_line_get_the_same_reply(server: Server, tmp_path: Path) -> None:
    request = pb.SampleRequest(count=3, seed=7, offset=2, temperature=0.5, include_latents=True)
    with server.generative() as stub:
        reply = stub.Sample(request, timeout=TIMEOUT_S)
    raw = np.frombuffer(reply.images.tensor.data, np.float32).reshape(3, 1, 4, 4)
    with Client(server.address, timeout_s=TIMEOUT_S) as client:
        sampled = client.sample(3, seed=7, offset=2, temperature=0.5, include_latents=True)
        streamed = list(client.sample_stream(3, seed=7, offset=2, temperature=0.5))
    np.testing.assert_array_equal(sampled.images, raw)
    latents = np.frombuffer(reply.latents.data, np.float32).reshape(3, tiny_models.DIM)
    np.testing.assert_array_equal(sampled.latents, latents)
    np.testing.assert_array_equal(np.concatenate([chunk.images for chunk in streamed]), raw)
    options = {"--count": "3", "--seed": "7", "--offset": "2", "--temperature": "0.5"}
    arguments = [word for option in options.items() for word in option]
    out = tmp_path / "sampled.npz"
    assert main(["sample", *arguments, "--server", server.address, "--out", str(out)]) == 0
    with np.load(out) as arrays:
        np.testing.assert_array_equal(arrays["images"], raw)
